"""The contenders of `idgr bench train` give the generator the same gradient, and their records say what they did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.bench import train_generator as train
from idgr.bench.processes import Measurement
from idgr.cli.main import run
from idgr.models.backbone import Preset

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=600)


def test_same_gradient_from_fewer_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def here(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Measurement:
        return Measurement(make()(*arguments), 1.0, 1.0, 100.0)

    monkeypatch.setattr(train, "measure", here)
    monkeypatch.setitem(train.PRESETS, "nano", TINY)
    assert run(["prep", "demo", "--items", "30", "--users", "12", "-o", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    command = [
        "bench",
        "train",
        str(tmp_path / "data"),
        "--part",
        "generator",
        "--batches",
        "5",
        "--repeats",
        "2",
        "--device",
        "cpu",
    ]
    assert run(command) == 0
    peer, ours = (orjson.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (peer["contender"], ours["contender"]) == (train.PEER, train.OURS)
    assert peer["ratio"] == 1.0
    assert ours["gradient_norm"] == pytest.approx(peer["gradient_norm"], rel=1e-4)
    assert ours["gradient_norm"] > 0
    assert ours["slots_per_batch"] > ours["items_per_batch"]
    assert all(len(record["seconds"]) == 2 and record["batches"] == 5 for record in (peer, ours))
