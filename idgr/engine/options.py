"""How to train, and how a training runs. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from idgr.options import RUN, TRAINING, Device, Option, Role, Seed, StageOptions, option

Precision = Annotated[
    Literal["fp32", "bf16", "auto"],
    Option("fp32, bf16 (products of matrices only), or auto: what is quicker here.", panel=TRAINING),
]
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

    epochs: int = option("Passes over the training instances.", 10, TRAINING, at_least=1)
    lr: float = option("Highest learning rate.", 0.001, TRAINING, above=0)
    batch_size: int = option("Instances a batch.", 64, TRAINING, at_least=1)
    max_tokens_per_batch: int = option("Padded tokens a batch at most, about; 0 for no bound.", 0, TRAINING, at_least=0)
    accumulate: int = option("Batches a step.", 1, TRAINING, at_least=1)
    schedule: Literal["linear", "cosine", "constant"] = option("Learning rate after the warm-up.", "linear", TRAINING)
    warmup: float = option("Share of the steps in which the rate rises.", 0.05, TRAINING, at_least=0, below=1)
    weight_decay: float = option("AdamW's weight decay.", 0.01, TRAINING, at_least=0)
    clip: float = option("Largest norm of a gradient.", 1.0, TRAINING, above=0)
    dropout: float | None = option("Dropout; the model's own if not given.", None, TRAINING, at_least=0, below=1)
    epoch_instances: int = option("Instances drawn for each epoch; 0 for all.", 0, TRAINING, at_least=0)
    precision: Precision = "fp32"
    ema: float = option(
        "Decay of an exponential moving average of the weights, which is validated and kept; 0 for off.",
        0.0,
        TRAINING,
        at_least=0,
        below=1,
    )
    compile: bool = option("Compile the model with torch.compile.", False, TRAINING)
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class TrainingRunOptions(StageOptions):
    """How a training runs, which does not shape its result."""

    device: Device = "auto"
    checkpoint_minutes: float = option(
        "Time between checkpoints; 0 for only at Ctrl-C, SIGTERM or SIGUSR1.", 10.0, RUN, role=Role.RUN, at_least=0
    )
    track: Literal["tensorboard", "trackio", "wandb"] | None = option(
        "Show the training there, beside log.jsonl; needs the extra `track` of idgr.", None, RUN, role=Role.RUN
    )
    overwrite: Overwrite = False
