"""Stages as commands: what is finished stays, what was made otherwise is told apart, what was stopped goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.cli.main import run
from idgr.engine import checkpoint, trainer
from idgr.formats.run_info import hash_folder

QUICK = ["--epochs", "2", "--batch-size", "8"]


def train_rec(data: Path, model: Path, *options: str) -> list[str]:
    return ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--model", str(model),
            "--valid", str(data / "valid.jsonl"), "--valid-beams", "10", *QUICK, "-o", str(data / "out"),
            *options]  # fmt: skip


def train_gen(data: Path, model: Path, *options: str) -> list[str]:
    return ["train-gen", str(data / "train.jsonl"), "--items", str(data / "items.jsonl"), "--force", "--ids",
            str(data / "ids.jsonl"), "--rec", str(model), "--gen", str(model), *QUICK, "-o", str(data / "out"),
            "--anchor", "0.1", *options]  # fmt: skip


def init_gen(data: Path, model: Path, *options: str) -> list[str]:
    return ["init-gen", str(data / "items.jsonl"), "--model", str(model), *QUICK, "-o", str(data / "out"), *options]


def train_sasrec(data: Path, model: Path, *options: str) -> list[str]:
    return ["train-sasrec", str(data / "train.jsonl"), "--items", str(data / "items.jsonl"), "--width", "8", "--valid",
            str(data / "valid.jsonl"), *QUICK, "-o", str(data / "out"), *options]  # fmt: skip


by_command = pytest.mark.parametrize("command", [train_rec, train_gen, train_sasrec, init_gen])
Command = Callable[..., list[str]]


def log_of(output: Path) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in (output / "log.jsonl").read_bytes().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def forked(work: Callable[[], int]) -> int:
    """The exit code of `work` in a process of its own, negative for a signal."""
    child = os.fork()
    if child == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: signal.Signals) -> None:
    """Let a process get a signal in the middle of the step after so many."""
    follow, left = trainer.optimizer_step, steps

    def counted(*arguments: Any) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), number)
        left -= 1
        follow(*arguments)

    monkeypatch.setattr(trainer, "optimizer_step", counted)


def check_goes_on(command: list[str], output: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """A training that is stopped after so many steps and run again writes the bytes of one that nothing stopped."""
    assert run(command) == 0
    whole, log = hash_folder(output), log_of(output)
    with monkeypatch.context() as patch:
        stop_after(patch, steps, signal.SIGTERM)
        assert forked(lambda: run([*command, "--overwrite"])) == 128 + signal.SIGTERM
    for path in output.iterdir():
        path.unlink()
    assert run(command) == 0
    assert hash_folder(output) == whole
    assert log_of(output) == log


@by_command
def test_a_finished_stage_is_not_run_again(
    command: Command, data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command(data, small_folder)) == 0
    before = {path: path.stat().st_mtime_ns for path in (data / "out").iterdir()}
    capfd.readouterr()
    others = ["--device", "cpu", "--checkpoint-minutes", "3"]  # which do not shape the result
    assert run(command(data, small_folder, *others)) == 0
    assert "is finished, with these options and inputs; nothing to do" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (data / "out").iterdir()} == before

    assert run(command(data, small_folder, "--lr", "0.5", "--epochs", "1")) == 1
    (told,) = capfd.readouterr().err.splitlines()
    assert "made with --epochs 2, not 1" in told
    assert "not 0.5" in told
    assert told.endswith("--overwrite to begin anew")
    assert run(command(data, small_folder, "--epochs", "3")) == 1
    (told,) = capfd.readouterr().err.splitlines()
    if command is train_sasrec:  # which begins from no model
        assert "further" not in told
    else:
        start = "--gen" if command is train_gen else "--model"
        assert f"made with --epochs 2, not 3; to train it further, give {start} {data / 'out'} and another" in told
    role = "items" if command in (init_gen, train_sasrec) else "ids"
    lines = (data / f"{role}.jsonl").read_bytes().splitlines(True)
    (data / f"{role}.jsonl").write_bytes(b"".join([*lines[1:], lines[0]]))
    assert run(command(data, small_folder)) == 1
    assert f"made from another {role} than" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (data / "out").iterdir()} == before
    assert run(command(data, small_folder, "--overwrite")) == 0
    assert {path: path.stat().st_mtime_ns for path in (data / "out").iterdir()} != before


def test_a_damaged_output_is_made_again(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(init_gen(data, small_folder)) == 0
    whole = hash_folder(data / "out")
    weights = data / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert run(init_gen(data, small_folder)) == 0
    assert "is made again" in capfd.readouterr().err
    assert hash_folder(data / "out") == whole


@by_command
def test_stopped_and_run_again_it_gives_the_same_bytes(
    command: Command, data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    output = data / "out"
    assert run(command(data, small_folder)) == 0
    whole, log = hash_folder(output), log_of(output)
    before = set(data.iterdir())
    with monkeypatch.context() as patch:
        stop_after(patch, 1, signal.SIGTERM)
        assert forked(lambda: run(command(data, small_folder, "--overwrite"))) == 128 + signal.SIGTERM
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("idgr: error:")]
    assert "stopped by SIGTERM after step 2; run the same command again to go on from there" in told
    assert hash_folder(output) == whole, "an output that is there stays until the new one is whole"
    (checkpoints,) = set(data.iterdir()) - before
    assert checkpoints.name == ".out.checkpoint"

    for path in output.iterdir():
        path.unlink()
    assert run(command(data, small_folder, "--seed", "7")) == 1
    assert f"{checkpoints}: is of a training that was made with --seed 0, not 7" in capfd.readouterr().err
    assert run(command(data, small_folder)) == 0
    assert "after step 2 of" in capfd.readouterr().err
    assert hash_folder(output) == whole
    assert log_of(output) == log
    assert set(data.iterdir()) == before, "the checkpoints are gone"


def test_killed_between_checkpoints_it_gives_the_same_bytes(
    data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(train_rec(data, small_folder)) == 0
    whole, log = hash_folder(data / "out"), log_of(data / "out")
    often = ["--checkpoint-minutes", "1e-9"]
    for number in (0, 2, 3):
        with monkeypatch.context() as patch:
            stop_after(patch, number, signal.SIGKILL)
            options = ["--overwrite"] if not number else []
            for path in (data / "out").glob("*") if not number else ():
                path.unlink()
            assert forked(lambda options=options: run(train_rec(data, small_folder, *often, *options))) == -9
    assert len(list((data / ".out.checkpoint").glob("step-*"))) == 2
    assert run(train_rec(data, small_folder, *often)) == 0
    assert hash_folder(data / "out") == whole
    assert log_of(data / "out") == log


def test_overwrite_begins_anew_past_a_checkpoint(
    data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, signal.SIGUSR1)
        assert forked(lambda: run(init_gen(data, small_folder))) == 128 + signal.SIGUSR1
    assert run(init_gen(data, small_folder, "--overwrite")) == 0
    assert "goes on" not in capfd.readouterr().err
    assert not checkpoint.checkpoint_folder(data / "out").exists()


def test_standard_input_is_never_the_same_again(
    data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = train_rec(data, small_folder)
    command[1] = "-"
    for expected, more in ((0, []), (1, []), (0, ["--overwrite"])):
        with open(data / "train.jsonl", encoding="utf-8") as stream:
            monkeypatch.setattr("sys.stdin", stream)
            assert run([*command, *more]) == expected
    said = capfd.readouterr().err
    assert said.count("reads standard input, so it cannot go on if it is stopped") == 2
    assert "made from train of standard input, which cannot be compared" in said


def test_a_dry_run_tells_what_it_would_take_and_writes_nothing(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(data.iterdir())
    options = ["--accumulate", "2", "--max-tokens-per-batch", "40", "--dry-run"]
    assert run(train_rec(data, small_folder, *options)) == 0
    told = orjson.loads(capfd.readouterr().out)
    assert told["instances_per_epoch"] == 30  # ten sequences of four items
    assert told["parameters"] > 5000
    assert 30 < told["tokens_per_epoch"] <= told["padded_tokens_per_epoch"]
    assert told["batches_per_epoch"] >= told["padded_tokens_per_epoch"] / 40
    assert told["steps_per_epoch"] == -(-told["batches_per_epoch"] // 2)
    assert told["steps"] >= 2
    assert told["seconds_per_epoch"] > 0
    assert told["total_seconds"] >= 2 * told["seconds_per_epoch"]
    assert told["peak_mib"] > 50
    assert set(data.iterdir()) == before


def test_a_tracker_that_is_not_there_is_told_with_its_extra(
    data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import PackageNotFoundError

    from idgr.engine import tracking

    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(tracking, "version", nothing)
    assert run(init_gen(data, small_folder, "--track", "trackio")) == 1
    assert "--track trackio needs trackio, which is not installed; pip install 'idgr[track]'" in capfd.readouterr().err
    assert not (data / "out").exists()


def test_a_training_can_be_watched(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert run(init_gen(data, small_folder, "--track", "tensorboard")) == 0
    assert capfd.readouterr().out == ""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(data / "out.track" / "idgr"))
    shown.Reload()
    assert {"step/loss", "step/lr", "step/grad_norm", "epoch/loss"} <= set(shown.Tags()["scalars"])
    events, steps = shown.Scalars("epoch/loss"), [event.step for event in shown.Scalars("step/loss")]
    records = log_of(data / "out")
    assert [event.step for event in events] == [record["step"] for record in records]
    assert max(steps) == records[-1]["step"]
    losses = [event.value for event in events]
    assert losses == [pytest.approx(record["loss"]) for record in log_of(data / "out")]
