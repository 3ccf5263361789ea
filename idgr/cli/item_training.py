"""What `train-sasrec` and `train-two-tower` share: options, reading, the stage, and the forecast of a dry run.

Knows options by their names on the command line; which model is trained, and how, the two commands say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idgr.cli.held_out import refuse_held_out, refuse_targets_in_training
from idgr.cli.training_options import UNSHAPING, loop_options
from idgr.errors import IdgrError, UsageError
from idgr.formats.limits import MOST_INT

if TYPE_CHECKING:
    import torch

    from idgr.models.item_models import ItemModel
    from idgr.training.item_training import WorkOf
    from idgr.training.options import LoopOptions

Train = Annotated[str, typer.Argument(help="Training sequences, train.jsonl of `idgr prep`.", metavar="TRAIN")]
Output = Annotated[str, typer.Option("--output", "-o", help="Folder for the trained model.")]
Items = Annotated[
    str | None, typer.Option("--items", help="items.jsonl, the items it shall know; else those of TRAIN only.")
]
Valid = Annotated[
    str | None, typer.Option("--valid", help="valid.jsonl; its HR and NDCG choose the epoch that is kept.")
]
Width = Annotated[int, typer.Option("--width", max=MOST_INT, help="Width of the item vectors.")]
MaxHistory = Annotated[int, typer.Option("--max-history", max=MOST_INT, help="Newest history items that are read.")]
Dropout = Annotated[float, typer.Option("--dropout", help="Dropout.")]
Epochs = Annotated[int, typer.Option("--epochs", max=MOST_INT, help="Passes over the training sequences.")]
ValidUsers = Annotated[int, typer.Option("--valid-users", max=MOST_INT, help="Users to validate on; 0 for all.")]


def check_item_training(given: dict[str, Any], shape: Sequence[str]) -> None:
    """Raise `UsageError` for options that go together with no training; `shape` names those of at least 1."""
    if given["output"] == "-":
        raise UsageError("-o - cannot hold a model folder", "give the name of a folder to -o")
    if [given["train"], given["valid"], given["items"]].count("-") > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    for name in shape:
        if given[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]}", "give a number of at least 1")
    for name in ("valid_users", "patience"):
        if given[name] < 0:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]}", "give a number of at least 0")


def run_item_training(
    command: str,
    given: dict[str, Any],
    new_model: Callable[[int], ItemModel],
    work_of: WorkOf,
    save: Callable[[Any, Sequence[str], Path], None],
) -> None:
    """Train and save a model, or tell what that would take.

    Args:
        command: its name, such as train-sasrec.
        given: all options of the command, in its order.
        new_model: makes an untrained model of so many items.
        work_of: what the loop needs to train it.
        save: writes the model and its items' keys into a folder.
    """
    from idgr.formats.run_info import RunInfo
    from idgr.progress import log
    from idgr.training.device import pick_device, uses_bf16
    from idgr.training.item_training import train_item_model
    from idgr.training.stage import is_finished, open_stage

    loop = loop_options(given)
    paths = {name: given[name] for name in ("train", "valid", "items")}
    refuse_held_out(paths)
    shaping = {name: value for name, value in given.items() if name not in {*paths, *UNSHAPING}}
    run = RunInfo(command, shaping, {**paths}, given["seed"], outputs=[given["output"]])
    output, overwrite = given["output"], given["overwrite"]

    if given["dry_run"]:
        ready = _prepare(paths, new_model, pick_device(given["device"]))
        _print_forecast(ready, work_of, loop, given["valid_users"])
        return
    if is_finished(output, run, overwrite=overwrite):
        return
    with open_stage(
        output,
        run,
        given["device"],
        overwrite=overwrite,
        checkpoint_minutes=given["checkpoint_minutes"],
        track=given["track"],
    ) as stage:
        ready = _prepare(paths, new_model, stage.device)
        run.inputs_read()
        if not ready.valid:
            log(f"{command}: no --valid, so the last epoch is kept, not the best")
        best = train_item_model(
            ready.model,
            work_of,
            ready.sequences,
            ready.valid,
            loop,
            stage.tell,
            valid_users=given["valid_users"],
            patience=given["patience"],
            names=ready.names,
            host=stage.host,
        )
        if stage.folder is None:
            return
        log(f"{command}: kept epoch {best['epoch']} of {loop.epochs}")
        save(ready.model, ready.keys, stage.folder)
        run.facts |= {"kept": best, "bf16": uses_bf16(loop.precision, stage.device)}
        run.write(output, stage.folder)


@dataclass(frozen=True)
class _Prepared:
    """What is trained, and on what: item keys, the users' names, their sequences, (history, target) pairs."""

    keys: list[str]
    names: list[str]
    sequences: list[list[int]]
    valid: list[tuple[list[int], int]]
    model: ItemModel


def _prepare(paths: dict[str, Any], new_model: Callable[[int], ItemModel], where: torch.device) -> _Prepared:
    from idgr.formats.records import read_items, read_queries, read_sequences

    train, valid, items = paths["train"], paths["valid"], paths["items"]
    keys = None if items is None else [item.item_id for item in read_items(items)]
    rows = read_sequences(train, None if keys is None else set(keys))
    if keys is None:
        keys = list(dict.fromkeys(item for row in rows for item in row.items))
    number = {item: i for i, item in enumerate(keys)}
    sequences = [[number[item] for item in row.items] for row in rows]
    if max(map(len, sequences)) < 2:
        raise IdgrError("no sequence has two items", "give longer training sequences", where=train)
    queries = list(read_queries(valid, number, need_target=True)) if valid is not None else []
    refuse_targets_in_training(train, rows, queries)
    users = [([number[item] for item in query.history], number[str(query.target)]) for query in queries]
    return _Prepared(keys, [row.user_id for row in rows], sequences, users, new_model(len(keys)).to(where))


def _print_forecast(given: _Prepared, work_of: WorkOf, loop: LoopOptions, valid_users: int) -> None:
    """Print what the training would take, as JSON."""
    from time import monotonic

    import orjson

    from idgr.bench.processes import peak_mib
    from idgr.training.forecast import forecast
    from idgr.training.recommender import draw_users

    users = [given.valid[user] for user in draw_users(len(given.valid), valid_users)]
    work = work_of(given.model, given.sequences, users)
    found = forecast(given.model, work, loop)
    seconds = 0.0
    if work.measure is not None:
        started = monotonic()
        work.measure()
        seconds = monotonic() - started
    found["validation_seconds"] = round(seconds, 3)
    found["total_seconds"] = round(loop.epochs * (found["seconds_per_epoch"] + seconds), 3)
    found["peak_mib"] = round(peak_mib())
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
