"""`idgr bench train --part select`: what is scored costs the same in the plain way, of a T5 and of a Llama."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from idgr.bench import select as bench
from idgr.bench.processes import Measurement
from idgr.cli.main import run
from idgr.models.backbone import CausalPreset, Preset, new_causal_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=600)


def here(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Measurement:
    return Measurement(make()(*arguments), 1.0, 1.0, 100.0)


@pytest.mark.parametrize("arch", ["t5", "causal"])
def test_costs_are_those_of_the_plain_way(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", here)
    monkeypatch.setattr(bench, "FEW", 2)
    monkeypatch.setitem(bench.PRESETS, "nano", TINY)
    assert run(["prep", "demo", "--items", "30", "--users", "60", "-o", str(tmp_path / "data")]) == 0
    command = ["bench", "train", str(tmp_path / "data"), "--part", "select", "--items", "4", "--batches", "5"]
    command += ["--batch-size", "8", "--repeats", "1", "--device", "cpu"]
    if arch == "causal":
        texts = [orjson.loads(line)["text"] for line in (tmp_path / "data" / "items.jsonl").read_bytes().splitlines()]
        model = new_causal_backbone(CausalPreset(16, 24, 2, 2, 600), train_tokenizer(texts, 600), seed=0)
        (tmp_path / "model").mkdir()
        save_backbone(model, tmp_path / "model")
        command += ["--arch", "causal", "--model", str(tmp_path / "model")]
    capsys.readouterr()
    assert run(command) == 0
    plain, ours, epoch = (orjson.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [one["contender"] for one in (plain, ours, epoch)] == [bench.PLAIN, bench.OURS, bench.EPOCH]
    assert (plain["items"], ours["items"]) == (2, 4)
    assert ours["apart"] < 1e-4
    assert ours["items_per_s"] > plain["items_per_s"] > 0
    assert ours["epochs_for_all"] == pytest.approx(30 / ours["items_per_s"] / epoch["seconds"][0], rel=0.2)
    score = bench._score_ours

    def wrong(task: bench.SelectTask) -> bench.Scored:
        done = score(task)
        return bench.Scored(done.seconds, done.cpu_seconds, done.n_items, [np.array(one) + 0.1 for one in done.costs])

    monkeypatch.setattr(bench, "_score_ours", wrong)
    assert run(command) == 1
    assert "costs lie 1.0e-01 nats apart" in capsys.readouterr().err
