"""The options that the training commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

# What does not shape the result, so that a stage may go on, or be finished, with other values of these.
UNSHAPING = ("output", "device", "checkpoint_minutes", "track", "overwrite", "dry_run")

MaxTokensPerBatch = Annotated[
    int, typer.Option("--max-tokens-per-batch", help="Padded tokens a batch at most, about; 0 for no bound.")
]
Ema = Annotated[
    float, typer.Option("--ema", help="What a step leaves of the weights' running mean, which is kept; 0 for off.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")]
CheckpointMinutes = Annotated[
    float,
    typer.Option("--checkpoint-minutes", min=0, help="Time between checkpoints; 0 for only at SIGTERM or SIGUSR1."),
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
