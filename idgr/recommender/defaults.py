"""The settings of a recommender's training that depend on the architecture: what did best here, or the paper's.

What did best is told in recipes/standard/LOG.md, for small models from random weights. The paper's are those of
IDGenRec and, where it is silent, of its published code; it trains a T5.
"""

from __future__ import annotations

from typing import Any

from idgr.errors import UsageError

_BOTH = {"objective": "trie", "batch_size": 64}
T5 = {**_BOTH, "max_history": 20, "epochs": 10, "lr": 1e-3, "weight_decay": 0.01, "dropout": None}
CAUSAL = {**_BOTH, "max_history": 50, "epochs": 8, "lr": 2e-3, "weight_decay": 0.05, "dropout": 0.2}
PAPER = T5 | {"objective": "full"}
_SEQUENCES = {"batch_size": 16}  # about as many instances as 64 prefixes


def defaults(arch: str, *, paper: bool, causal_encoder: bool = False) -> dict[str, Any]:
    """Fields of `train-rec`'s options where nothing is given; a dropout of None is the model's own.

    Args:
        causal_encoder: whether a T5 reads sequences, each once for all its prefixes.

    Raises:
        UsageError: the paper's settings are asked for with another architecture than its own.
    """
    if paper and arch != "t5":
        raise UsageError(f"--paper given with --arch {arch}", "leave one of them out: the paper trains a T5")
    settled = PAPER if paper else T5 if arch == "t5" else CAUSAL
    return settled | _SEQUENCES if causal_encoder else settled
