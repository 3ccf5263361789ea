"""`idgr train-sasrec`: train a SASRec on item sequences, as a rival that knows no textual IDs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from idgr.cli.training_options import (
    UNSHAPING,
    Accumulate,
    CheckpointMinutes,
    Clip,
    Compile,
    Device,
    DryRun,
    Ema,
    Lr,
    MaxTokensPerBatch,
    Overwrite,
    Patience,
    Precision,
    Schedule,
    Seed,
    Track,
    Warmup,
    WeightDecay,
)
from idgr.errors import IdgrError, UsageError

if TYPE_CHECKING:
    import torch

    from idgr.models.sasrec import Sasrec
    from idgr.training.options import LoopOptions


def train_sasrec(
    train: Annotated[str, typer.Argument(help="Training sequences, train.jsonl of `idgr prep`.", metavar="TRAIN")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the trained model.")],
    items: Annotated[
        str | None, typer.Option("--items", help="items.jsonl, the items it shall know; else those of TRAIN only.")
    ] = None,
    valid: Annotated[
        str | None, typer.Option("--valid", help="valid.jsonl; its HR and NDCG choose the epoch that is kept.")
    ] = None,
    width: Annotated[int, typer.Option("--width", help="Width of the item vectors.")] = 64,
    layers: Annotated[int, typer.Option("--layers", help="Layers of the Transformer.")] = 2,
    heads: Annotated[int, typer.Option("--heads", help="Attention heads; they divide the width.")] = 2,
    max_history: Annotated[int, typer.Option("--max-history", help="Newest history items that are read.")] = 50,
    dropout: Annotated[float, typer.Option("--dropout", help="Dropout.")] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training sequences.")] = 60,
    lr: Lr = 1e-3,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences a batch at most.")] = 1024,
    max_tokens_per_batch: MaxTokensPerBatch = 1024,
    accumulate: Accumulate = 1,
    schedule: Schedule = "linear",
    warmup: Warmup = 0.05,
    weight_decay: WeightDecay = 0.01,
    clip: Clip = 1.0,
    epoch_instances: Annotated[
        int, typer.Option("--epoch-instances", help="Sequences drawn for each epoch; 0 for all.")
    ] = 0,
    valid_users: Annotated[int, typer.Option("--valid-users", help="Users to validate on; 0 for all.")] = 0,
    patience: Patience = 0,
    precision: Precision = "fp32",
    ema: Ema = 0.0,
    compile: Compile = False,
    device: Device = "auto",
    seed: Seed = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    track: Track = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a SASRec with the full cross-entropy over all items.

    Example: idgr train-sasrec data/beauty/train.jsonl --items data/beauty/items.jsonl --valid data/beauty/valid.jsonl
    -o sasrec/
    """
    given = dict(locals())
    if output == "-":
        raise UsageError("-o - cannot hold a model folder", "give the name of a folder to -o")
    if [train, valid, items].count("-") > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    for name in ("width", "layers", "heads", "max_history"):
        if given[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]}", "give a number of at least 1")
    if width % heads:
        raise UsageError(f"--heads {heads} does not divide --width {width}", "give a number of heads that does")
    for name in ("valid_users", "patience"):
        if given[name] < 0:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]}", "give a number of at least 0")

    from idgr.formats.records import read_items, read_queries, read_sequences
    from idgr.formats.run_info import RunInfo
    from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
    from idgr.progress import log
    from idgr.training.device import pick_device, uses_bf16
    from idgr.training.options import LoopOptions
    from idgr.training.sasrec import train_sasrec as train_model
    from idgr.training.stage import is_finished, open_stage

    loop = LoopOptions(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        accumulate=accumulate,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
        dropout=dropout,
        precision=precision,
        epoch_instances=epoch_instances,
        seed=seed,
        max_tokens_per_batch=max_tokens_per_batch,
        ema=ema,
        compile=compile,
    )
    paths = {"train": train, "valid": valid, "items": items}
    shaping = {name: value for name, value in given.items() if name not in {*paths, *UNSHAPING}}
    run = RunInfo("train-sasrec", shaping, {**paths}, seed)

    def prepare(where: torch.device) -> _Prepared:
        keys = None if items is None else [item.item_id for item in read_items(items)]
        rows = read_sequences(train, None if keys is None else set(keys))
        if keys is None:
            keys = list(dict.fromkeys(item for row in rows for item in row.items))
        number = {item: i for i, item in enumerate(keys)}
        sequences = [[number[item] for item in row.items] for row in rows]
        if max(map(len, sequences)) < 2:
            raise IdgrError("no sequence has two items", "give longer training sequences", where=train)
        queries = read_queries(valid, number, need_target=True) if valid is not None else ()
        users = [([number[item] for item in query.history], number[str(query.target)]) for query in queries]
        config = SasrecConfig(len(keys), width, layers, heads, max_history, dropout)
        return _Prepared(keys, [row.user_id for row in rows], sequences, users, new_sasrec(config, seed).to(where))

    if dry_run:
        _print_forecast(prepare(pick_device(device)), loop, valid_users)
        return
    if is_finished(output, run, overwrite=overwrite):
        return
    with open_stage(
        output, run, device, overwrite=overwrite, checkpoint_minutes=checkpoint_minutes, track=track
    ) as stage:
        ready = prepare(stage.device)
        if not ready.valid:
            log("train-sasrec: no --valid, so the last epoch is kept, not the best")
        best = train_model(
            ready.model,
            ready.sequences,
            ready.valid,
            loop,
            stage.tell,
            valid_users=valid_users,
            patience=patience,
            names=ready.names,
            host=stage.host,
        )
        if stage.folder is None:
            return
        log(f"train-sasrec: kept epoch {best['epoch']} of {loop.epochs}")
        save_sasrec(ready.model, ready.keys, stage.folder)
        run.facts |= {"kept": best, "bf16": uses_bf16(precision, stage.device)}
        run.write(output, stage.folder)


@dataclass(frozen=True)
class _Prepared:
    """What is trained, and on what: item keys, the users' names, their sequences, (history, target) pairs."""

    keys: list[str]
    names: list[str]
    sequences: list[list[int]]
    valid: list[tuple[list[int], int]]
    model: Sasrec


def _print_forecast(given: _Prepared, loop: LoopOptions, valid_users: int) -> None:
    """Print what the training would take, as JSON."""
    from time import monotonic

    import orjson

    from idgr.bench.processes import peak_mib
    from idgr.training.forecast import forecast
    from idgr.training.recommender import draw_users
    from idgr.training.sasrec import sasrec_work

    users = [given.valid[user] for user in draw_users(len(given.valid), valid_users, loop.seed)]
    work = sasrec_work(given.model, given.sequences, users)
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
