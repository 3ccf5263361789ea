"""`idgr train-sasrec`: train a SASRec on item sequences, as a rival that knows no textual IDs."""

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
from idgr.errors import UsageError
from idgr.formats.limits import MOST_INT


def train_sasrec(
    train: Train,
    output: Output,
    items: Items = None,
    valid: Valid = None,
    width: Width = 64,
    layers: Annotated[int, typer.Option("--layers", max=MOST_INT, help="Layers of the Transformer.")] = 2,
    heads: Annotated[int, typer.Option("--heads", max=MOST_INT, help="Attention heads; they divide the width.")] = 2,
    max_history: MaxHistory = 50,
    dropout: Dropout = 0.5,
    epochs: Epochs = 60,
    lr: Lr = 1e-3,
    batch_size: Annotated[int, typer.Option("--batch-size", max=MOST_INT, help="Sequences a batch at most.")] = 1024,
    max_tokens_per_batch: MaxTokensPerBatch = 1024,
    accumulate: Accumulate = 1,
    schedule: Schedule = "linear",
    warmup: Warmup = 0.05,
    weight_decay: WeightDecay = 0.01,
    clip: Clip = 1.0,
    epoch_instances: Annotated[
        int, typer.Option("--epoch-instances", max=MOST_INT, help="Sequences drawn for each epoch; 0 for all.")
    ] = 0,
    valid_users: ValidUsers = 0,
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
    check_item_training(given, ("width", "layers", "heads", "max_history"))
    if width % heads:
        raise UsageError(f"--heads {heads} does not divide --width {width}", "give a number of heads that does")

    from idgr.models.sasrec import Sasrec, SasrecConfig, new_sasrec, save_sasrec
    from idgr.training.sasrec import sasrec_work

    def new_model(n_items: int) -> Sasrec:
        return new_sasrec(SasrecConfig(n_items, width, layers, heads, max_history, dropout), seed)

    run_item_training("train-sasrec", given, new_model, sasrec_work, save_sasrec)
