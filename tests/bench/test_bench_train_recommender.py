"""The contenders of `idgr bench train` see the same instances and learn alike, and their records say what they did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.bench import train_recommender as bench
from idgr.bench.processes import Measurement
from idgr.cli.main import run
from idgr.models.backbone import Preset, new_backbone
from idgr.models.tokenizer import train_tokenizer

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=600)


def test_same_instances_and_the_same_fall_of_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results: list[bench.Done] = []

    def here(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Measurement:
        results.append(make()(*arguments))
        return Measurement(results[-1], 1.0, 1.0, 100.0)

    monkeypatch.setattr(bench, "measure", here)
    monkeypatch.setitem(bench.PRESETS, "nano", TINY)
    assert run(["prep", "demo", "--items", "30", "--users", "60", "-o", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    command = ["bench", "train", str(tmp_path / "data"), "--batches", "12", "--batch-size", "16", "--lr", "0.01"]
    assert run([*command, "--repeats", "1", "--device", "cpu"]) == 0
    records = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["contender"] for record in records] == [bench.PEER, bench.GROUPED, bench.OURS]
    assert records[0]["ratio"] == 1.0
    assert len({done.target_tokens for done in results}) == 1
    assert results[0].target_tokens > 12 * 16
    assert all(len(done.losses) == 12 for done in results)
    for record in records:
        curve = record["loss_curve"]
        assert curve[-1] < curve[0]
        assert curve[-1] == pytest.approx(records[0]["loss_curve"][-1], rel=0.05)
        assert record["target_tokens_per_s"] > 0
        assert record["mfu"] is None


def test_too_many_steps_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["prep", "demo", "--items", "30", "--users", "12", "-o", str(tmp_path / "data")]) == 0
    assert run(["bench", "train", str(tmp_path / "data"), "--batches", "999"]) == 1
    assert "training instances, not the 63936 of all steps; give fewer --batches" in capfd.readouterr().err


def test_ids_must_be_of_all_items(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["prep", "demo", "--items", "30", "--users", "12", "-o", str(tmp_path / "data")]) == 0
    (tmp_path / "ids.jsonl").write_text('{"item_id": "other", "id": "word"}\n')
    assert run(["bench", "train", str(tmp_path / "data"), "--ids", str(tmp_path / "ids.jsonl")]) == 1
    assert "has no ID of item" in capfd.readouterr().err


def test_operations_are_those_of_the_weights_that_a_token_meets() -> None:
    backbone = new_backbone(TINY, train_tokenizer(["red tent", "blue lamp"] * 3, 400), seed=0)
    attention, dense, head = 4 * 16 * 16, 2 * 16 * 32, backbone.model.lm_head.weight.numel()
    keys_and_values = 2 * 16 * 16  # of the cross-attention, made once a prompt token
    each_prompt_token, each_target_token = attention + dense + keys_and_values, 2 * attention - keys_and_values + dense
    exact = 6 * (10 * each_prompt_token + each_target_token + head)
    assert bench.flops_per_target_token(backbone, 10.0) == exact
