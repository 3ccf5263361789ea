"""What the stages that train have in common: options, run once, taken up where it stopped, forecast, recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from idgr.engine.options import DryRun, TrainingOptions, TrainingRunOptions
from idgr.errors import IdgrError
from idgr.formats.held_out import refuse_targets_in_training
from idgr.formats.run_info import RunInfo
from idgr.options import Option, Role
from idgr.progress import log

if TYPE_CHECKING:
    import torch

    from idgr.engine.run import TrainingRun
    from idgr.engine.task import TrainableModel, TrainingTask
    from idgr.formats.records import Query, Sequence

P = TypeVar("P")

# Users who are ranked for in a dry run, to tell how long validation takes.
TRIED_USERS = 48

Train = Annotated[
    str,
    Option("Training sequences, train.jsonl of `idgr prep`.", role=Role.INPUT, positional=True, metavar="TRAIN"),
]
Valid = Annotated[str | None, Option("valid.jsonl; its HR and NDCG choose the epoch that is kept.", role=Role.INPUT)]
ModelFolder = Annotated[str, Option("Folder for the trained model.", flags=("--output", "-o"), role=Role.OUTPUT)]


@dataclass(frozen=True, kw_only=True)
class TrainingStage(TrainingOptions, TrainingRunOptions):
    """Options of every stage that trains."""

    output: ModelFolder


@dataclass(frozen=True, kw_only=True)
class SequenceTraining(TrainingStage):
    """Options of every stage that trains a model to recommend."""

    train: Train
    valid: Valid = None
    dry_run: DryRun = False


def run_training(
    run: RunInfo,
    options: TrainingStage,
    prepare: Callable[[torch.device], P],
    train: Callable[[P, TrainingRun], dict[str, Any]],
    save: Callable[[P, Path, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any] | None:
    """Train and save a model, unless that is done already.

    Args:
        prepare: reads the inputs and makes the model, on this process's device.
        train: trains it; returns the record of what was kept.
        save: writes it into a folder; returns the facts that `run.json` shall tell.

    Returns:
        The record of what was kept; None where nothing was to do, or in a process that does not write.
    """
    from idgr.engine.run import is_finished, training_run
    from idgr.models.device import uses_bf16

    output = options.output
    if is_finished(output, run, overwrite=options.overwrite):
        return None
    with training_run(
        output,
        run,
        options.device,
        overwrite=options.overwrite,
        checkpoint_minutes=options.checkpoint_minutes,
        track=options.track,
    ) as running:
        prepared = prepare(running.device)
        run.inputs_read()
        kept = train(prepared, running)
        if running.folder is None:
            return None
        run.facts |= save(prepared, running.folder, kept) | {"bf16": uses_bf16(options.precision, running.device)}
        run.write(output, running.folder)
    return kept


def forecast_training(
    model: TrainableModel,
    task: TrainingTask,
    options: TrainingOptions,
    n_tried: int,
    n_users: int,
) -> dict[str, Any]:
    """What a training would take, validation with it.

    Args:
        n_tried: how many users the task validates on.
        n_users: how many there will be.
    """
    from time import monotonic

    from idgr.engine.forecast import forecast
    from idgr.engine.memory import peak_mib

    found = forecast(model, task, options)
    seconds = 0.0
    if task.measure is not None:
        started = monotonic()
        task.measure()
        seconds = (monotonic() - started) * n_users / n_tried
    found["validation_seconds"] = round(seconds, 3)
    found["total_seconds"] = round(options.epochs * (found["seconds_per_epoch"] + seconds), 3)
    found["peak_mib"] = round(peak_mib())
    return found


def forecast_task(model: TrainableModel, task: TrainingTask, options: TrainingOptions, *_: object) -> dict[str, Any]:
    """What a training that validates on no users would take, in the place of `run_epochs`."""
    return forecast_training(model, task, options, 1, 1)


@dataclass(frozen=True)
class Histories:
    """Training sequences and validation users, items as numbers.

    Attributes:
        names: the user of each training sequence.
        sequences: oldest first.
        valid: (history, target) of each validation user.
    """

    names: list[str]
    sequences: list[list[int]]
    valid: list[tuple[list[int], int]]


def numbered(train: str, rows: list[Sequence], queries: list[Query], number: dict[str, int]) -> Histories:
    """Records as numbers.

    Raises:
        IdgrError: no training sequence has a target, or one goes on to what is held out.
    """
    if max(len(row.items) for row in rows) < 2:
        raise IdgrError("no sequence has two items", "give longer training sequences", where=train)
    refuse_targets_in_training(train, rows, queries)
    return Histories(
        [row.user_id for row in rows],
        [[number[item] for item in row.items] for row in rows],
        [([number[item] for item in query.history], number[str(query.target)]) for query in queries],
    )


def say_what_is_kept(command: str, kept: dict[str, Any], epochs: int) -> None:
    log(f"{command}: kept epoch {kept['epoch']} of {epochs}")


def say_if_unvalidated(command: str, valid: object) -> None:
    if not valid:
        log(f"{command}: no --valid, so the last epoch is kept, not the best")
