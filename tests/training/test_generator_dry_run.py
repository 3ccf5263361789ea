"""`init-gen --dry-run` and `train-gen --dry-run`: what the trainings would take, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.models.backbone import Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer
from idgr.prompts.templates import load_templates, template_words

IDS = ["amber basil", "cedar delta", "ember fjord", "basil cedar", "delta amber"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    lines = {
        "items": [{"item_id": f"I{n}", "text": f"title: the {text}"} for n, text in enumerate(IDS)],
        "ids": [{"item_id": f"I{n}", "id": text} for n, text in enumerate(IDS)],
        "train": [{"user_id": f"U{n}", "items": [f"I{(n + step) % 5}" for step in range(4)]} for n in range(6)],
    }
    for name, rows in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = train_tokenizer([*IDS, "title: the", *template_words(load_templates())], 400)
    backbone = new_backbone(Preset(16, 32, 1, 2, 8, 400), tokenizer, 0)
    (tmp_path / "t5").mkdir()
    save_backbone(backbone, tmp_path / "t5")
    return tmp_path


def forecast(shop: Path, capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    before = sorted(shop.rglob("*"))
    assert run([*words, "--dry-run", "--device", "cpu", "-o", str(shop / "out")]) == 0
    assert sorted(shop.rglob("*")) == before
    found: dict[str, float] = json.loads(capfd.readouterr().out)
    return found


def test_init_gen(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["init-gen", f"{shop}/items.jsonl", "--pairs", f"{shop}/ids.jsonl", "--model", f"{shop}/t5"]
    found = forecast(shop, capfd, *words, "--epochs", "3", "--batch-size", "2", "--held-out", "0.2")
    assert (found["instances_per_epoch"], found["steps_per_epoch"], found["steps"]) == (4, 2, 6)
    each = found["seconds_per_epoch"] + found["validation_seconds"]
    assert found["total_seconds"] == pytest.approx(3 * each, abs=0.005)
    assert found["validation_seconds"] > 0
    assert found["peak_mib"] > 50


def test_train_gen(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train-gen", f"{shop}/train.jsonl", "--items", f"{shop}/items.jsonl", "--ids", f"{shop}/ids.jsonl"]
    words += ["--gen", f"{shop}/t5", "--rec", f"{shop}/t5", "--force"]
    found = forecast(shop, capfd, *words, "--epochs", "2", "--objective", "trie")
    # Six users with four items each have three targets each.
    assert found["instances_per_epoch"] == 18
    assert found["validation_seconds"] == 0
    assert found["total_seconds"] == pytest.approx(2 * found["seconds_per_epoch"], abs=0.005)
