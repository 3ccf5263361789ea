"""`idgr train-two-tower`: train a two-tower with DIN attention on item sequences, for its item vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from idgr.cli.item_training import (
    Dropout,
    Epochs,
    Items,
    MaxHistory,
    Output,
    Train,
    Valid,
    ValidUsers,
    Width,
    check_item_training,
    run_item_training,
)
from idgr.cli.training_options import (
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
from idgr.formats.limits import MOST_INT


def train_two_tower(
    train: Train,
    output: Output,
    items: Items = None,
    valid: Valid = None,
    width: Width = 64,
    units: Annotated[int, typer.Option("--units", max=MOST_INT, help="Units of the attention.")] = 8,
    max_history: MaxHistory = 20,
    dropout: Dropout = 0.3,
    epochs: Epochs = 20,
    lr: Lr = 1e-3,
    batch_size: Annotated[int, typer.Option("--batch-size", max=MOST_INT, help="Prefixes a batch at most.")] = 256,
    max_tokens_per_batch: MaxTokensPerBatch = 2048,
    accumulate: Accumulate = 1,
    schedule: Schedule = "linear",
    warmup: Warmup = 0.05,
    weight_decay: WeightDecay = 0.01,
    clip: Clip = 1.0,
    epoch_instances: Annotated[
        int, typer.Option("--epoch-instances", max=MOST_INT, help="Prefixes drawn for each epoch; 0 for all.")
    ] = 0,
    valid_users: ValidUsers = 2000,
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
    """Train a two-tower with DIN attention against the batch's other targets, as a source of item vectors.

    Example: idgr train-two-tower data/beauty/train.jsonl --items data/beauty/items.jsonl
    --valid data/beauty/valid.jsonl -o tower/
    """
    given = dict(locals())
    check_item_training(given, ("width", "units", "max_history"))

    from idgr.models.two_tower import TwoTower, TwoTowerConfig, new_two_tower, save_two_tower
    from idgr.training.two_tower import two_tower_work

    def new_model(n_items: int) -> TwoTower:
        return new_two_tower(TwoTowerConfig(n_items, width, units, max_history, dropout), seed)

    run_item_training("train-two-tower", given, new_model, two_tower_work, save_two_tower)
