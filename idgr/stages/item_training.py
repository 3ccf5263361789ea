"""What `train-sasrec` and `train-two-tower` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from idgr.formats.held_out import refuse_held_out
from idgr.options import COMMON, MODEL, TRAINING, Option, Role, option
from idgr.recommender.options import Patience, ValidUsers
from idgr.stages.options import refuse_stream, run_info
from idgr.stages.training import (
    Histories,
    SequenceTraining,
    forecast_training,
    numbered,
    run_training,
    say_if_unvalidated,
    say_what_is_kept,
)

if TYPE_CHECKING:
    import torch

    from idgr.engine.run import TrainingRun
    from idgr.item_models.training import TaskFactory
    from idgr.models.item_models import ItemModel

Width = Annotated[int, Option("Width of the item vectors.", panel=MODEL, at_least=1)]
MaxHistory = Annotated[int, Option("Newest history items that are read.", panel=MODEL, at_least=1)]


@dataclass(frozen=True, kw_only=True)
class ItemTraining(SequenceTraining):
    """Options of both."""

    items: str | None = option(
        "items.jsonl, the items it shall know; else those of TRAIN only.", None, COMMON, role=Role.INPUT
    )
    dropout: float = option("Dropout.", 0.5, TRAINING, at_least=0, below=1)
    valid_users: ValidUsers = 2000
    patience: Patience = 0


@dataclass(frozen=True)
class _Prepared:
    """What is trained, and on what."""

    keys: list[str]
    histories: Histories
    model: ItemModel


def run_item_training(
    command: str,
    options: ItemTraining,
    new_model: Callable[[int], ItemModel],
    make_task: TaskFactory,
    save: Callable[[Any, Sequence[str], Path], None],
) -> dict[str, Any] | None:
    """Train and save a model, or tell what that would take.

    Args:
        command: its name, such as train-sasrec.
        new_model: makes an untrained model of so many items.
        make_task: what the trainer needs to train it.
        save: writes the model and its items' keys into a folder.
    """
    from idgr.item_models.training import train_item_model
    from idgr.models.device import pick_device

    refuse_stream(options.output, "a model folder")
    run = run_info(command, options)
    refuse_held_out({"train": options.train, "valid": options.valid, "items": options.items})

    def prepare(device: torch.device) -> _Prepared:
        keys, histories = _read(options)
        return _Prepared(keys, histories, new_model(len(keys)).to(device))

    def train(prepared: _Prepared, running: TrainingRun) -> dict[str, Any]:
        histories = prepared.histories
        say_if_unvalidated(command, histories.valid)
        kept = train_item_model(
            prepared.model,
            make_task,
            histories.sequences,
            histories.valid,
            options,
            running.on_epoch,
            valid_users=options.valid_users,
            patience=options.patience,
            names=histories.names,
            context=running.context,
        )
        say_what_is_kept(command, kept, options.epochs)
        return kept

    def saved(prepared: _Prepared, folder: Path, kept: dict[str, Any]) -> dict[str, Any]:
        save(prepared.model, prepared.keys, folder)
        return {"kept": kept}

    if options.dry_run:
        return _forecast(prepare(pick_device(options.device)), options, make_task)
    return run_training(run, options, prepare, train, saved)


def _read(options: ItemTraining) -> tuple[list[str], Histories]:
    from idgr.formats.records import read_items, read_queries, read_sequences

    keys = None if options.items is None else [item.item_id for item in read_items(options.items)]
    rows = read_sequences(options.train, None if keys is None else set(keys))
    if keys is None:
        keys = list(dict.fromkeys(item for row in rows for item in row.items))
    number = {item: i for i, item in enumerate(keys)}
    queries = [] if options.valid is None else list(read_queries(options.valid, number, need_target=True))
    return keys, numbered(options.train, rows, queries, number)


def _forecast(prepared: _Prepared, options: ItemTraining, make_task: TaskFactory) -> dict[str, Any]:
    from idgr.recommender.training import draw_users

    histories = prepared.histories
    tried = draw_users(len(histories.valid), options.valid_users)
    task = make_task(prepared.model, histories.sequences, [histories.valid[user] for user in tried])
    return forecast_training(prepared.model, task, options, len(tried), len(tried))
