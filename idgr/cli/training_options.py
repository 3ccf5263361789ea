"""The options that the training commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idgr.options import MOST_INT

if TYPE_CHECKING:
    from idgr.engine.options import TrainingOptions

# What does not shape the result, so that a stage may go on, or be finished, with other values of these.
UNSHAPING = ("output", "device", "checkpoint_minutes", "track", "overwrite", "dry_run")

Accumulate = Annotated[int, typer.Option("--accumulate", max=MOST_INT, help="Batches a step.")]
Schedule = Annotated[
    str, typer.Option("--schedule", help="Learning rate after the warm-up: linear, cosine or constant.")
]
Warmup = Annotated[float, typer.Option("--warmup", help="Share of the steps in which the rate rises.")]
WeightDecay = Annotated[float, typer.Option("--weight-decay", help="AdamW's weight decay.")]
Clip = Annotated[float, typer.Option("--clip", help="Largest norm of a gradient.")]
Patience = Annotated[
    int,
    typer.Option("--patience", max=MOST_INT, help="Stop after so many epochs without a better NDCG@10; 0 for never."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option("--seed", max=MOST_INT, help="Seed of all that is random.")]
Lr = Annotated[float, typer.Option("--lr", help="Highest learning rate.")]
Precision = Annotated[
    str, typer.Option("--precision", help="fp32, bf16 (products of matrices only), or auto: what is quicker here.")
]
MaxTokensPerBatch = Annotated[
    int,
    typer.Option("--max-tokens-per-batch", max=MOST_INT, help="Padded tokens a batch at most, about; 0 for no bound."),
]
Ema = Annotated[
    float, typer.Option("--ema", help="What a step leaves of the weights' running mean, which is kept; 0 for off.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        "--checkpoint-minutes",
        min=0,
        help="Time between checkpoints; 0 for only at Ctrl-C, SIGTERM or SIGUSR1.",
    ),
]
Track = Annotated[
    Literal["tensorboard", "trackio", "wandb"] | None,
    typer.Option("--track", help="Show the training there, beside log.jsonl; needs the extra `track` of idgr."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew where the output or a checkpoint was made otherwise.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Take a few steps, print what the training would take, and write nothing.")
]


def training_options(given: Mapping[str, Any]) -> TrainingOptions:
    """The options of the training loop among those that a command was given, under the same names.

    Raises:
        UsageError: a value is out of its range.
    """
    from dataclasses import fields

    from idgr.engine.options import TrainingOptions

    return TrainingOptions(**{field.name: given[field.name] for field in fields(TrainingOptions)})
