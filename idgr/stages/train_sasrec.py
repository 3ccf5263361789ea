"""`idgr train-sasrec`: train a SASRec on item sequences, as a rival that knows no textual IDs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idgr.errors import UsageError
from idgr.options import MODEL, TRAINING, option
from idgr.stages.item_training import ItemTraining, MaxHistory, Width, run_item_training

if TYPE_CHECKING:
    from idgr.models.sasrec import Sasrec


@dataclass(frozen=True, kw_only=True)
class Options(ItemTraining):
    """Train a SASRec with the full cross-entropy over all items.

    Example: idgr train-sasrec data/beauty/train.jsonl --items data/beauty/items.jsonl
    --valid data/beauty/valid.jsonl -o sasrec/
    """

    width: Width = 64
    layers: int = option("Layers of the Transformer.", 2, MODEL, at_least=1)
    heads: int = option("Attention heads; they divide the width.", 2, MODEL, at_least=1)
    max_history: MaxHistory = 50
    epochs: int = 60
    batch_size: int = option("Sequences a batch at most.", 1024, TRAINING, at_least=1)
    max_tokens_per_batch: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise UsageError(
                f"--heads {self.heads} does not divide --width {self.width}", "give a number of heads that does"
            )


def run(options: Options) -> dict[str, Any] | None:
    """Train a SASRec, or with `dry_run` tell what that would take.

    Returns:
        The record of the epoch that was kept, or the forecast; None where the output was finished before.
    """
    from idgr.item_models.sasrec import sasrec_task
    from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec

    def new_model(n_items: int) -> Sasrec:
        shape = (options.width, options.layers, options.heads, options.max_history, options.dropout)
        return new_sasrec(SasrecConfig(n_items, *shape), options.seed)

    return run_item_training("train-sasrec", options, new_model, sasrec_task, save_sasrec)
