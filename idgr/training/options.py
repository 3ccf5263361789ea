"""How to train: the options of the loop, checked, under their names on the command line.

Knows ranges of values; what is done with them, `idgr.training.loop` and `idgr.training.schedule` know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from idgr.errors import UsageError

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("fp32", "bf16", "auto")


@dataclass(frozen=True)
class LoopOptions:
    """How to train; the names are those on the command line.

    Attributes:
        epochs: passes over the instances.
        lr: the highest learning rate.
        batch_size: instances a batch at most, those of all processes together.
        max_tokens_per_batch: padded tokens a batch at most, as far as the instances' costs tell them; 0 for no bound.
            A single instance above it is a batch of its own.
        accumulate: batches whose gradients are summed into one step.
        schedule: what follows the warm-up: down to 0 in a line or a half cosine, or constant.
        warmup: the share of all steps in which the rate rises from 0.
        weight_decay: AdamW's, on matrices only.
        clip: the largest norm of a gradient.
        dropout: the share of activations dropped; None for the model's own.
        ema: how much of the weights' running mean a step leaves, from 0 (off) to below 1; the mean is what is
            validated and kept. It begins as min(ema, (1 + step) / (10 + step)), so that it soon forgets the start.
        precision: fp32; bf16 for products of matrices, with weights kept in fp32; auto is bf16 where the device
            multiplies it in hardware, else fp32.
        compile: whether encoder and decoder are compiled (`torch.compile`); rounding may differ.
        epoch_instances: how many instances, drawn afresh, make an epoch; 0 for all.
        seed: of order, draws and dropout.
    """

    epochs: int = 10
    lr: float = 1e-3
    batch_size: int = 64
    accumulate: int = 1
    schedule: str = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float | None = None
    precision: str = "fp32"
    epoch_instances: int = 0
    seed: int = 0
    max_tokens_per_batch: int = 0
    ema: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}", "give a number of at least 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"--{name} {getattr(self, name)}", "give a number above 0")
        for name in ("warmup", "dropout", "ema"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"--{name} {value}", "give a share from 0 to below 1")
        for name in ("weight_decay", "epoch_instances", "seed", "max_tokens_per_batch"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}", "give a number of at least 0")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UsageError(f"--{name} {getattr(self, name)}", f"choose {' or '.join(known)}")
