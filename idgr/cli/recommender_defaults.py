"""The settings of a recommender's training where the command line gives none: what did best here, or the paper's.

What did best is told in recipes/standard/LOG.md, for small models from random weights. The paper's are those of
IDGenRec and, where it is silent, of its published code; it trains a T5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from idgr.errors import UsageError

Paper = Annotated[
    bool,
    typer.Option("--paper", help="Take the paper's settings where you give none, not those that did best here."),
]


@dataclass(frozen=True)
class Defaults:
    """Options of `train-rec` by their names; a dropout of None is the model's own."""

    objective: str
    max_history: int
    epochs: int
    lr: float
    weight_decay: float
    dropout: float | None
    reorder: float


T5 = Defaults("trie", max_history=20, epochs=10, lr=1e-3, weight_decay=0.01, dropout=None, reorder=0.0)
CAUSAL = Defaults("trie", max_history=50, epochs=8, lr=2e-3, weight_decay=0.05, dropout=0.2, reorder=0.0)
PAPER = Defaults("full", max_history=20, epochs=10, lr=1e-3, weight_decay=0.01, dropout=None, reorder=0.0)


def defaults(arch: str, *, paper: bool) -> Defaults:
    """What holds where nothing is given.

    Raises:
        UsageError: the paper's settings are asked for with another architecture than its own.
    """
    if paper and arch != "t5":
        raise UsageError(f"--paper given with --arch {arch}", "leave one of them out: the paper trains a T5")
    return PAPER if paper else T5 if arch == "t5" else CAUSAL
