"""Checkpoints: a training that was stopped anywhere ends as if it had not been; damage is named and passed over."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from idgr.engine.checkpoint import CheckpointManager, StoppedError, write_snapshot
from idgr.engine.options import TrainingOptions
from idgr.engine.task import TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.errors import IdgrError
from idgr.generator.training import pair_loss
from idgr.models.backbone import Backbone, Preset, new_backbone

Ints = npt.NDArray[np.int64]

ROWS = [[5 + n % 7, *range(20 + n, 22 + n + n % 3), 9, 1] for n in range(12)]
MADE_OF: dict[str, Any] = {"command": "test", "options": {"lr": 0.01}, "inputs": {}}
OPTIONS = TrainingOptions(epochs=3, batch_size=3, accumulate=2, lr=1e-2, ema=0.8, dropout=0.1)
SHAPE = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=400)
OFTEN = 1e-9  # minutes: a checkpoint after every step


class Killed(Exception):  # noqa: N818
    """Stands for a SIGKILL: nothing of the loop's may act on it."""


def fresh(small: Backbone) -> Backbone:
    return new_backbone(SHAPE, small.tokenizer, seed=1)


def train(
    backbone: Backbone, manager: CheckpointManager | None, at_batch: Callable[[int], None] = lambda batch: None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, calling `at_batch` before each batch with its number and after the last of an epoch with -epoch."""
    batches = epochs = 0
    records: list[dict[str, Any]] = []

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        nonlocal batches
        at_batch(batches)
        batches += 1
        rows = [ROWS[i] for i in batch]
        return pair_loss(backbone.model, rows, rows)

    def measure() -> dict[str, float]:
        nonlocal epochs
        epochs += 1
        at_batch(-epochs)
        with torch.no_grad():
            return {"score": -pair_loss(backbone.model, ROWS, ROWS)[0].item() % 0.37}  # not the last is the best

    names = [f"user U{n}" for n in range(len(ROWS))]
    work = TrainingTask(
        "test",
        np.array([len(row) for row in ROWS]),
        loss_of,
        names=lambda batch: [names[i] for i in batch],
        measure=measure,
        best_by="score",
    )
    best = run_epochs(backbone.model, work, OPTIONS, TrainingContext(manager=manager), records.append)
    return [plain(record) for record in records], plain(best)


def plain(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("seconds", "instances_per_second")}


def weights(backbone: Backbone) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in backbone.model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def manager(folder: Path, minutes: float = OFTEN) -> CheckpointManager:
    return CheckpointManager(folder, MADE_OF, minutes)


def killed_at(small: Backbone, folder: Path, number: int) -> None:
    def at_batch(batch: int) -> None:
        if batch == number:
            raise Killed

    with pytest.raises(Killed):
        train(fresh(small), manager(folder), at_batch)


@pytest.mark.parametrize("moment", [1, 2, 5, -1, 4, 11, -3])
def test_killed_and_taken_up_it_ends_as_if_nothing_had_been(small: Backbone, tmp_path: Path, moment: int) -> None:
    whole = fresh(small)
    expected = train(whole, None)
    killed_at(small, tmp_path, moment)
    again = fresh(small)
    assert train(again, manager(tmp_path)) == expected
    assert same(weights(again), weights(whole))
    assert len(list(tmp_path.iterdir())) <= 2, "the newest checkpoint and the one before"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("moment", [0, 7, -2])
def test_a_signal_writes_a_checkpoint_and_ends_the_training(
    small: Backbone, tmp_path: Path, number: signal.Signals, moment: int
) -> None:
    whole = fresh(small)
    expected = train(whole, None)

    def at_batch(batch: int) -> None:
        if batch == moment:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(StoppedError, match=f"test stopped by {number.name} after step") as stop:
        train(fresh(small), manager(tmp_path, minutes=0), at_batch)
    assert stop.value.exit_code == 128 + number
    assert signal.getsignal(number) == handler
    assert len(list(tmp_path.iterdir())) == 1

    batches: list[int] = []
    again = fresh(small)
    assert train(again, manager(tmp_path, minutes=0), batches.append) == expected
    assert same(weights(again), weights(whole))
    # The step that was under way was finished, and is not taken again; what measuring was under way is.
    assert len([batch for batch in batches if batch >= 0]) == {0: 10, 7: 4, -2: 4}[moment]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "checkpoint.json"])
def test_a_flipped_byte_is_named_and_the_checkpoint_before_taken(
    small: Backbone, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = fresh(small)
    expected = train(whole, None)
    killed_at(small, tmp_path, 7)
    before, newest = sorted(tmp_path.iterdir())
    flip(newest / name, -200 if name == "checkpoint.json" else 900)
    again = fresh(small)
    assert train(again, manager(tmp_path)) == expected
    assert same(weights(again), weights(whole))
    said = capfd.readouterr().err
    assert f"checkpoint refused: {newest}: " in said
    assert "goes on in epoch 1, after step 2 of 6" in said if before.name.startswith("step-000000002") else True


@pytest.mark.parametrize("missing", ["checkpoint.json", "weights.safetensors"])
def test_half_written_checkpoints_are_refused_and_without_another_it_begins_anew(
    small: Backbone, tmp_path: Path, missing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = fresh(small)
    expected = train(whole, None)
    killed_at(small, tmp_path, 7)
    for place in tmp_path.iterdir():
        (place / missing).unlink()
    assert train(fresh(small), manager(tmp_path)) == expected
    said = capfd.readouterr().err
    assert said.count("checkpoint refused") == 2
    assert "is not whole" in said
    assert "the training begins anew" in said


@pytest.mark.parametrize("moment", [7, 2])
def test_a_training_that_begins_anew_keeps_its_own_checkpoints(
    small: Backbone, tmp_path: Path, moment: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether those that were refused are of later steps or of the same."""
    killed_at(small, tmp_path, 7)
    for place in tmp_path.iterdir():
        flip(place / "weights.safetensors", -200)
    killed_at(small, tmp_path, moment)
    assert "the training begins anew" in capfd.readouterr().err
    whole, again = fresh(small), fresh(small)
    assert train(again, manager(tmp_path)) == train(whole, None)
    assert same(weights(again), weights(whole))
    said = capfd.readouterr().err
    assert "refused" not in said
    assert "goes on in epoch 1, after step" in said or "goes on in epoch 2, after step" in said


def test_a_checkpoint_of_another_model_is_refused(
    small: Backbone, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    killed_at(small, tmp_path, 7)
    wider = new_backbone(Preset(24, 32, 1, 2, 8, 400), small.tokenizer, seed=1)
    train(wider, manager(tmp_path))
    assert re.search(r"is of another model: its \S+ is \[\d", capfd.readouterr().err)
    capfd.readouterr()
    train(new_backbone(Preset(24, 32, 1, 2, 8, 400), small.tokenizer, seed=1), manager(tmp_path))
    assert "refused" not in capfd.readouterr().err, "its own took the place of those of the same step"


def test_a_checkpoint_made_with_other_options_is_told_with_both_values(small: Backbone, tmp_path: Path) -> None:
    killed_at(small, tmp_path, 7)
    other = CheckpointManager(tmp_path, {**MADE_OF, "options": {"lr": 0.5}}, OFTEN)
    with pytest.raises(IdgrError, match=r"made with --lr 0.01, not 0.5; give the same .* --overwrite to begin anew"):
        train(fresh(small), other)


def test_a_loss_that_is_no_number_names_step_and_users_and_keeps_the_last_checkpoint(
    small: Backbone, tmp_path: Path
) -> None:
    backbone = fresh(small)

    def at_batch(batch: int) -> None:
        if batch == 6:
            with torch.no_grad():
                backbone.model.shared.weight.fill_(torch.nan)

    with pytest.raises(
        IdgrError, match=r"not a number any more \(epoch 2, step 4; user U\d+, .* and 2 more\)"
    ) as fault:
        train(backbone, manager(tmp_path), at_batch)
    newest = max(tmp_path.iterdir())
    assert str(fault.value).endswith(f"the checkpoint {newest} is kept")
    assert newest.name.startswith("step-000000003")
    whole, again = fresh(small), fresh(small)
    assert train(again, manager(tmp_path)) == train(whole, None)


def test_on_a_full_disk_the_old_checkpoint_survives_and_training_goes_on(
    small: Backbone, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = fresh(small)
    expected = train(whole, None)
    killed_at(small, tmp_path, 3)
    (old,) = tmp_path.iterdir()
    child = os.fork()
    if child == 0:
        # Files may not grow beyond this, which the kernel tells much as it tells a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        os._exit(train(fresh(small), manager(tmp_path)) != expected)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    said = capfd.readouterr().err
    assert "cannot be written (" in said
    assert f"the checkpoint {old} is kept; free its disk" in said
    assert list(tmp_path.iterdir()) == [old]
    assert train(fresh(small), manager(tmp_path)) == expected


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, small: Backbone) -> None:
    killed_at(small, tmp_path, 3)
    found = manager(tmp_path).read(dict(small.model.named_parameters()))
    assert found is not None
    before = sorted(tmp_path.rglob("*"))
    assert write_snapshot(tmp_path, found, MADE_OF) == before[0], "one that is there and whole is not written again"
    assert sorted(tmp_path.rglob("*")) == before
