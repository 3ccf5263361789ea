"""How to train, and how a training runs. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from idgr.options import RUN, TRAINING, Option, Role, StageOptions
from idgr.options import Device as Device
from idgr.options import Seed as Seed

Precision = Literal["fp32", "bf16", "auto"]
Overwrite = Annotated[
    bool, Option("Begin anew where the output or a checkpoint was made otherwise.", role=Role.RUN, panel=RUN)
]
DryRun = Annotated[
    bool,
    Option("Take a few steps, print what the training would take, and write nothing.", role=Role.RUN, panel=RUN),
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(StageOptions):
    """How to train.

    Attributes:
        batch_size: those of all processes together.
        max_tokens_per_batch: as far as the instances' costs tell them. A single instance above it is a batch of its
            own.
        ema: the mean is what is validated and kept. It begins as min(ema, (1 + step) / (10 + step)), so that it soon
            forgets the start.
        precision: bf16 is for products of matrices, with weights kept in fp32; auto is bf16 where the device
            multiplies it in hardware, else fp32.
        compile: rounding may differ.
    """

    epochs: Annotated[int, Option("Passes over the training instances.", panel=TRAINING, at_least=1)] = 10
    lr: Annotated[float, Option("Highest learning rate.", panel=TRAINING, above=0)] = 1e-3
    batch_size: Annotated[int, Option("Instances a batch.", panel=TRAINING, at_least=1)] = 64
    max_tokens_per_batch: Annotated[
        int, Option("Padded tokens a batch at most, about; 0 for no bound.", panel=TRAINING, at_least=0)
    ] = 0
    accumulate: Annotated[int, Option("Batches a step.", panel=TRAINING, at_least=1)] = 1
    schedule: Annotated[
        Literal["linear", "cosine", "constant"], Option("Learning rate after the warm-up.", panel=TRAINING)
    ] = "linear"
    warmup: Annotated[
        float, Option("Share of the steps in which the rate rises.", panel=TRAINING, at_least=0, below=1)
    ] = 0.05
    weight_decay: Annotated[float, Option("AdamW's weight decay.", panel=TRAINING, at_least=0)] = 0.01
    clip: Annotated[float, Option("Largest norm of a gradient.", panel=TRAINING, above=0)] = 1.0
    dropout: Annotated[
        float | None, Option("Dropout; the model's own if not given.", panel=TRAINING, at_least=0, below=1)
    ] = None
    epoch_instances: Annotated[
        int, Option("Instances drawn for each epoch; 0 for all.", panel=TRAINING, at_least=0)
    ] = 0
    precision: Annotated[
        Precision,
        Option("fp32, bf16 (products of matrices only), or auto: what is quicker here.", panel=TRAINING),
    ] = "fp32"
    ema: Annotated[
        float,
        Option(
            "Share of the weights' running mean, which is kept, that a step leaves; 0 for off.",
            panel=TRAINING,
            at_least=0,
            below=1,
        ),
    ] = 0.0
    compile: Annotated[bool, Option("Compile the model with torch.compile.", panel=TRAINING)] = False
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class TrainingRunOptions(StageOptions):
    """How a training runs, which does not shape its result."""

    device: Device = "auto"
    checkpoint_minutes: Annotated[
        float,
        Option(
            "Time between checkpoints; 0 for only at Ctrl-C, SIGTERM or SIGUSR1.",
            role=Role.RUN,
            panel=RUN,
            at_least=0,
        ),
    ] = 10.0
    track: Annotated[
        Literal["tensorboard", "trackio", "wandb"] | None,
        Option("Show the training there, beside log.jsonl; needs the extra `track` of idgr.", role=Role.RUN, panel=RUN),
    ] = None
    overwrite: Overwrite = False
