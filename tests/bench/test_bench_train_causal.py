"""`idgr bench train --arch causal`: its contenders have one loss, and operations are counted right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from idgr.bench import train_causal as bench
from idgr.bench.processes import Measurement
from idgr.cli.main import run
from idgr.models.backbone import CausalPreset, new_causal_backbone, save_backbone
from idgr.models.freezing import freeze_layers
from idgr.models.tokenizer import train_tokenizer

TINY = CausalPreset(d_model=16, d_ff=24, num_layers=3, num_heads=2, vocab_size=600)


def here(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Measurement:
    return Measurement(make()(*arguments), 1.0, 1.0, 100.0)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(bench, "measure", here)
    monkeypatch.setattr(bench, "_SIDE", 64)
    backbone = new_causal_backbone(TINY, train_tokenizer(["red tent", "blue\nlamp", "a soft\nrug"] * 3, 600), seed=0)
    (tmp_path / "model").mkdir()
    backbone.model.config.item_slots = 40
    with torch.no_grad():
        for weight in backbone.model.parameters():
            weight.mul_(3)  # so that places matter
    save_backbone(backbone, tmp_path / "model")
    assert run(["prep", "demo", "--items", "30", "--users", "80", "-o", str(tmp_path / "data")]) == 0
    return ["bench", "train", str(tmp_path / "data"), "--arch", "causal", "--model", str(tmp_path / "model"),
            "--batches", "6", "--batch-size", "8", "--repeats", "1", "--max-history", "4"]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_loss_with_places_for_items(command: list[str], capsys: pytest.CaptureFixture[str], precision: str) -> None:
    capsys.readouterr()
    assert run([*command, "--layers", "2", "--freeze", "1", "--precision", precision]) == 0
    records = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["contender"] for record in records] == [bench.PEER, bench.SAME, bench.OURS]
    first, most = records[1]["loss_apart"]
    assert first <= most < (1e-4 if precision == "fp32" else 0.02)
    assert records[2]["loss_apart"] is None
    assert all(record["tokens_per_s"] > 0 and 0 < record["mfu"] < 1 for record in records)


def test_other_losses_are_told(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = bench.peer_rows
    monkeypatch.setattr(bench, "peer_rows", lambda *given, leads: rows(*given[:2], 0, leads=leads))  # other places
    capsys.readouterr()
    assert run(command) == 1
    assert "the first losses of transformers.Trainer, idgr's batches and of idgr differ by" in capsys.readouterr().err


def test_windows_as_transformers_reads_them_behind_newlines_and_eos() -> None:
    trie = bench.build_trie([[5, 6], [7], [8, 9]], end := 3)
    windows = bench.make_windows([[0, 1, 2, 0]], 2)  # 0 1 2, then 1 2 0 with 0 as its target
    told = bench.peer_rows(windows, trie, 4, leads=True)
    first = [end, 5, 6, end, 7, end, 8, 9, end]
    assert [row["input_ids"] for row in told] == [first, [end, 7, end, 8, 9, end, 5, 6, end]]
    assert [row["labels"] for row in told] == [[-100] * 4 + first[4:], [-100] * 6 + [5, 6, end]]
    assert told[0]["position_ids"] == [0, 1, 2, 4, 5, 8, 9, 10, 12]
    bare = bench.peer_rows(windows, trie, 0, leads=False)
    assert [row["input_ids"] for row in bare] == [row["input_ids"][1:] for row in told]
    assert [row["labels"] for row in bare] == [row["labels"][1:] for row in told]
    assert bare[0]["position_ids"] == list(range(8))


def test_operations_are_those_of_what_learns_and_of_what_is_passed_through() -> None:
    model = new_causal_backbone(TINY, train_tokenizer(["red tent", "blue lamp"] * 3, 600), seed=0).model
    layer, head = 4 * 16 * 16 + 3 * 16 * 24, model.lm_head.weight.numel()
    assert bench.training_flops(model, 10, 4) == 10 * 6 * 3 * layer + 4 * 6 * head
    freeze_layers(model, 2)
    assert bench.training_flops(model, 10, 4) == 10 * (2 * 2 * layer + 6 * layer) + 4 * 4 * head


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--arch", "t5"], "--arch causal and --model go together"),
        (["--compile"], "--arch causal with --part generator, --tokenizer or --compile"),
    ],
)
def test_what_does_not_go_together(
    command: list[str], options: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, *options]) == 2
    assert hint in capsys.readouterr().err
