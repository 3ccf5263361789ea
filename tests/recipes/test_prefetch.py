"""`recipes/prefetch.py` with a hub in this process, and what idgr says of the pickle-only tag generator."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from idgr.cli.main import run
from idgr.models.backbone import Backbone, Preset, load_backbone, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer
from idgr.prompts.templates import load_templates, template_words
from idgr.stages.gen_ids import HUB_GENERATOR

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")


def tiny(texts: list[str], seed: int) -> Backbone:
    tokenizer = train_tokenizer([*texts, *template_words(load_templates())], 400)
    return new_backbone(Preset(16, 32, 1, 2, 8, 400), tokenizer, seed)


def pickled(backbone: Backbone, folder: Path) -> None:
    """A folder as the tag generator's on the hub is: weights as pickle, with the names of tied ones."""
    folder.mkdir(parents=True)
    save_backbone(backbone, folder)
    (folder / "model.safetensors").unlink()
    torch.save(backbone.model.state_dict(), folder / "pytorch_model.bin")


@pytest.fixture
def prefetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prefetch", ROOT / "recipes/prefetch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pickled_weights_become_the_same_model(prefetch: ModuleType, tmp_path: Path) -> None:
    backbone = tiny(["red soap", "blue brush"], 3)
    pickled(backbone, tmp_path / "tags-pickle")
    prefetch.convert(tmp_path / "tags-pickle", tmp_path / "tags")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tags", "tags-pickle"]
    assert not (tmp_path / "tags/pytorch_model.bin").exists()
    found = load_backbone(tmp_path / "tags")
    for name, weight in backbone.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], weight, rtol=0, atol=0)
    assert found.tokenizer.get_vocab() == backbone.tokenizer.get_vocab()


def test_a_pickle_that_calls_something_is_not_read(prefetch: ModuleType, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "called"),))

    pickled(tiny(["red soap"], 0), tmp_path / "bad")
    torch.save(Hostile(), tmp_path / "bad/pytorch_model.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        prefetch.convert(tmp_path / "bad", tmp_path / "tags")
    assert not (tmp_path / "called").exists()
    assert not (tmp_path / "tags").exists()


def test_fetch_takes_safetensors_where_there_are_some(
    prefetch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    hub = {
        "safe": ["config.json", "model.safetensors", "pytorch_model.bin"],
        "old": ["config.json", "pytorch_model.bin"],
    }

    def snapshot_download(name: str, local_dir: Path, allow_patterns: list[str], ignore_patterns: list[str]) -> None:
        asked.append(allow_patterns)
        for file in hub[name]:
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (local_dir / file).write_text("x")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    prefetch.fetch("safe", tmp_path / "safe", True)
    prefetch.fetch("safe", tmp_path / "safe", True)  # it is there
    assert len(asked) == 1
    assert sorted(path.name for path in (tmp_path / "safe").iterdir()) == ["config.json", "model.safetensors"]
    prefetch.fetch("old", tmp_path / "old", True)
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["config.json", "pytorch_model.bin"]
    with pytest.raises(SystemExit, match=r"has no model\.safetensors"):
        prefetch.fetch("old", tmp_path / "none", False)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(BASH is None, reason="bash is not there")
def test_stage_2_needs_stage_1(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--stage", "2", "--stop-stage", "2"]
    done = subprocess.run(
        [str(BASH), ROOT / "recipes/prefetch.sh", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "tags-pickle is not there; run stage 1 first" in done.stderr


@pytest.mark.parametrize(
    ("left_out", "hints"),
    [
        (None, ["holds its weights as pickle", "recipes/prefetch.sh"]),
        ("pytorch_model.bin", ["the hub's cache holds no model of it, only config.json"]),
    ],
)
def test_a_generator_that_is_pickle_alone_is_told_from_the_hubs_cache(
    left_out: str | None,
    hints: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`gen-ids` with its default model, whose weights lie in the cache as pickle or were never fetched."""
    snapshot = tmp_path / "hub" / f"models--{HUB_GENERATOR.replace('/', '--')}" / "snapshots/1234"
    pickled(tiny(["red soap"], 0), snapshot)
    for path in snapshot.iterdir():
        if path.name == left_out:
            path.unlink()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("1234")
    (tmp_path / "items.jsonl").write_text(json.dumps({"item_id": "a", "text": "red soap"}) + "\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert run(["gen-ids", str(tmp_path / "items.jsonl"), "-o", str(tmp_path / "ids.jsonl")]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for hint in hints:
        assert hint in told


@pytest.mark.skipif(BASH is None, reason="bash is not there")
@pytest.mark.timeout(600)
def test_a_paper_size_run_is_planned_without_network(warm_path: str, tmp_path: Path) -> None:
    """From an empty home, with folders laid by hand: the plan of every stage, with a forecast for each training."""
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    assert run(["prep", "demo", "--items", "20", "--users", "24", "-o", str(data)]) == 0
    texts = [json.loads(line)["text"] for line in (data / "items.jsonl").read_text().splitlines()]
    for name, seed in (("t5-small", 0), ("tags", 1)):
        (tmp_path / "models" / name).mkdir(parents=True)
        save_backbone(tiny(texts, seed), tmp_path / "models" / name)
    words = ["--data", data, "--t5", tmp_path / "models/t5-small", "--tags", tmp_path / "models/tags"]
    words += ["--size", "paper", "--rows", "textual paper semantic", "--dry-run", "--out", tmp_path / "out"]
    given = {"PATH": warm_path, "PYTHONPATH": str(ROOT), "IDGR_INSTALLED": "1", "OMP_NUM_THREADS": "1"}
    given |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    done = subprocess.run(
        [str(BASH), ROOT / "recipes/standard/run.sh", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | given,
    )
    assert done.returncode == 0, done.stderr
    for number in range(1, 8):
        assert f" stage {number}: " in done.stderr
    lines = done.stdout.splitlines()
    trainings = [
        (line.split()[1], lines[number + 1]) for number, line in enumerate(lines) if line.startswith("idgr train-")
    ]
    names = ["train-gen", "train-rec", *["train-gen", "train-rec"] * 2]
    assert [name for name, _ in trainings] == [*names, *names, "train-rec", "train-sasrec"]
    for number, (_, told) in enumerate(trainings):
        later = number < 12 and number % 6 > 1
        assert told == "#   as in the round before" if later else " on this machine, " in told
        assert later or " GiB of memory" in told
    assert "--lr 1e-08" in done.stdout
    assert any(line.startswith("idgr recommend ") and line.count("--beams 10") for line in lines)
    assert list((tmp_path / "out").rglob("run.json")) == []
    assert not (home / "hf").exists()
