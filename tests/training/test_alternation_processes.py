"""Alternation whose trainings each run as several processes."""

# ruff: noqa: F811

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.models.backbone import new_backbone, save_backbone
from idgr.models.tokenizer import load_tokenizer

from .test_alternation import TINY, _tiny_preset, arguments, data, results  # noqa: F401


def test_two_processes_of_a_training_train_as_one(data: Path, tmp_path: Path) -> None:
    """Gloo; without dropout, which each process draws for itself."""
    rec = tmp_path / "rec"
    rec.mkdir()
    save_backbone(new_backbone(TINY, load_tokenizer(str(data / "gen")), seed=3), rec)
    more = ["--rec", str(rec), "--rounds", "1", "--mode", "id-only", "--gen.dropout", "0", "--gen.batch-size", "3"]
    for n in (1, 2):
        assert run(arguments(data, tmp_path / str(n), *more, "--processes", str(n))) == 0
    one, two = (tmp_path / n / "round-1" for n in "12")
    assert set(results(one)) == set(results(two))
    assert (one / "ids.jsonl").read_bytes() == (two / "ids.jsonl").read_bytes()
    weights = load_file(one / "gen" / "model.safetensors")
    for name, tensor in load_file(two / "gen" / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-5)
    # A training that is finished is not made again, whoever made it.
    before = results(tmp_path)
    assert run(arguments(data, tmp_path / "2", *more)) == 0
    assert results(tmp_path) == before


def test_a_training_of_several_processes_ends_the_run_as_it_ends(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def launched(n: int, words: list[str]) -> int:
        asked.append([str(n), *words])
        return codes.pop()

    monkeypatch.setattr("idgr.engine.launch.launch", launched)
    codes = [1, 138]
    command = arguments(data, tmp_path / "run", "--processes", "4")
    assert run(command) == 138
    assert "stopped by SIGUSR1" in capsys.readouterr().err
    assert run(command) == 1
    assert "train-rec ended with code 1; see what it said above" in capsys.readouterr().err
    assert [words[:2] for words in asked] == [["4", "train-rec"]] * 2
    assert asked[0][-2:] == ["-o", str(tmp_path / "run/round-1/rec")]
