"""`idgr train-rec --arch causal` with tasks and the contrast, from files to a folder that is that of a run without."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from idgr.cli.main import run
from idgr.formats.run_info import hash_folder
from idgr.ids.schemes import libraries
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
from idgr.models.tokenizer import decode, encode, load_tokenizer

from .conftest import TEXTUAL_IDS
from .test_stage import check_goes_on, log_of

FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
FILES |= {"log.jsonl", "run.json", "seen_tokens.json", "ids.jsonl"}


@pytest.fixture
def sasrec(data: Path) -> Path:
    folder = data / "sasrec"
    folder.mkdir()
    config = SasrecConfig(n_items=len(TEXTUAL_IDS), width=8, heads=2)
    save_sasrec(new_sasrec(config, 1), [f"I{i}" for i in reversed(range(len(TEXTUAL_IDS)))], folder)
    return folder


def train_rec(data: Path, *options: str, output: str = "out") -> list[str]:
    return ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--arch", "causal", "--objective",
            "trie", "--valid", str(data / "valid.jsonl"), "--valid-beams", "10", "--epochs", "2", "--batch-size", "4",
            "--lr", "3e-3", "-o", str(data / output), *options]  # fmt: skip


def lists_of(data: Path, batch_size: str) -> list[list[str]]:
    """The four best items of the recommender in `out` after each validation history, so many at a time."""
    recs = data / f"recs-{batch_size}"
    command = ["recommend", str(data / "valid.jsonl"), "--rec", str(data / "out"), "-k", "4", "-o", str(recs)]
    assert run([*command, "--batch-size", batch_size]) == 0
    return [orjson.loads(line)["items"] for line in recs.read_bytes().splitlines()]


def everything(data: Path, sasrec: Path) -> list[str]:
    return ["--items", str(data / "items.jsonl"), "--reconstruction", "1", "--preference", "0.5", "--contrast-semantic",
            "0.2", "--contrast-behavior", "0.1", "--item-vectors", str(sasrec)]  # fmt: skip


def test_all_of_it_is_in_the_log_and_nothing_of_it_in_the_folder(data: Path, sasrec: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert run(train_rec(data, *everything(data, sasrec), "--epochs", "8", "--batch-size", "32")) == 0
    out = data / "out"
    assert {path.name for path in out.iterdir()} == FILES
    first, *_, last, _ = log_of(out)  # of odd epochs, in which the five preferences go the same ways
    parts = {"recommendation", "reconstruction", "preference", "generation", "semantic", "behavior"}
    assert set(first) == {"epoch", "step", "loss", "instances", "hr@10", "ndcg@10", *parts}
    assert first["instances"] == 30 + 10 + 5
    assert all(last[name] < first[name] for name in {"loss", *parts})
    drawn = 0.2 * first["semantic"] + 0.1 * first["behavior"]
    assert first["recommendation"] == pytest.approx(first["generation"] + drawn, rel=1e-5)

    _, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    tokenizer = load_tokenizer(str(out))
    text = "title: the amber basil; brand: amber"
    assert decode(tokenizer, encode(tokenizer, [text])) == [text]
    record = orjson.loads((out / "run.json").read_bytes())
    assert set(record["inputs"]) == {"train", "ids", "valid", "items", "item-vectors"}
    assert {name: record["options"][name] for name in ("reconstruction", "contrast-semantic")} == {
        "reconstruction": 1.0,
        "contrast-semantic": 0.2,
    }
    recs = data / "recs.jsonl"
    asked = ["recommend", str(data / "valid.jsonl"), "--rec", str(out), "--ids", str(data / "ids.jsonl")]
    assert run([*asked, "-k", "3", "-o", str(recs)]) == 0


def test_the_contrast_alone_leaves_vocabulary_and_what_is_saved_as_they_are(data: Path, sasrec: Path) -> None:
    contrast = ["--contrast-behavior", "0.5", "--item-vectors", str(sasrec)]
    assert run(train_rec(data, output="plain")) == 0
    assert run(train_rec(data, *contrast, output="drawn")) == 0
    assert run(train_rec(data, "--contrast-semantic", "0", "--reconstruction", "0", output="zero")) == 0
    plain, drawn, zero = (hash_folder(data / name) for name in ("plain", "drawn", "zero"))
    assert {name for name in FILES if plain.get(name) != drawn.get(name)} <= {"model.safetensors", "log.jsonl"}
    assert plain["model.safetensors"] != drawn["model.safetensors"]
    assert plain["model.safetensors"] == zero["model.safetensors"]
    assert log_of(data / "plain") == log_of(data / "zero")


def test_stopped_within_an_epoch_it_goes_on_to_the_same_bytes(
    data: Path, sasrec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = train_rec(data, *everything(data, sasrec))
    check_goes_on(command, data / "out", monkeypatch, 3)


def test_a_dry_run_counts_what_is_learnt_beside(data: Path, sasrec: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = []
    for options in (["--reconstruction", "0.5", "--items", str(data / "items.jsonl")], everything(data, sasrec)):
        capfd.readouterr()
        assert run(train_rec(data, *options, "--dry-run")) == 0
        found.append(orjson.loads(capfd.readouterr().out))
    assert [told["instances_per_epoch"] for told in found] == [30 + 5, 30 + 10 + 5]
    # `<con>`, and two layers each for texts' vectors, of a place for each word, and for 8 wide ones of items.
    width = 128
    said = 7  # words
    assert found[1]["parameters"] - found[0]["parameters"] == width + 2 * (width + 1) * width + (width + 1) * (said + 8)
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        (["--reconstruction", "-1"], 2, "--reconstruction -1; give a number of at least 0"),
        (["--contrast-behavior", "nan"], 2, "--contrast-behavior nan; give a number of at least 0"),
        (["--reconstruction", "1"], 2, "--reconstruction without --items; give the items.jsonl"),
        (["--preference", "1"], 2, "--preference without --items"),
        (["--contrast-semantic", "1"], 2, "--contrast-semantic without --items"),
        (["--contrast-behavior", "1"], 2, "--contrast-behavior without --item-vectors"),
        (["--item-vectors", "sasrec"], 2, "--item-vectors without --contrast-behavior"),
        (["--text-vectors", "model"], 2, "--text-vectors without --contrast-semantic"),
        (["--items", "items.jsonl"], 2, "--items given, but nothing here reads texts"),
        (["--items", "items.jsonl", "--item-head", "1", "--near-items", "0"], 2, "--items given, but nothing here"),
        (["--preference", "1", "--items", "items.jsonl", "--arch", "t5"], 2, "--preference given with --arch t5"),
        (["--preference", "1", "--items", "few.jsonl"], 1, "few.jsonl: has no item 'I3'"),
        (["--contrast-behavior", "1", "--item-vectors", "sasrec"], 1, "sasrec: does not know 1 of 10 items"),
    ],
)
def test_what_does_not_go_together_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], options: list[str], code: int,
    hint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(data)
    (data / "few.jsonl").write_bytes(b"".join((data / "items.jsonl").read_bytes().splitlines(keepends=True)[:3]))
    (data / "sasrec").mkdir()
    save_sasrec(new_sasrec(SasrecConfig(n_items=9, width=4), 1), [f"I{i}" for i in range(9)], data / "sasrec")
    assert run(train_rec(data, *options)) == code
    assert hint in capfd.readouterr().err
    assert not (data / "out").exists()


def test_a_package_that_is_not_installed(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nowhere(package: str) -> str:
        raise libraries.PackageNotFoundError(package)

    monkeypatch.setattr(libraries, "version", nowhere)
    assert run(train_rec(data, "--contrast-semantic", "1", "--items", str(data / "items.jsonl"))) == 1
    told = capfd.readouterr().err
    assert "--contrast-semantic needs scikit-learn, which is not installed; pip install 'idgr[schemes]'" in told
