"""`idgr train-two-tower`: train a two-tower with DIN attention, as a source of item vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idgr.options import MODEL, TRAINING, option
from idgr.stages.item_training import ItemTraining, MaxHistory, Width, run_item_training

if TYPE_CHECKING:
    from idgr.models.two_tower import TwoTower


@dataclass(frozen=True, kw_only=True)
class Options(ItemTraining):
    """Train a two-tower with DIN attention against the batch's other targets, as a source of item vectors.

    Example: idgr train-two-tower data/beauty/train.jsonl --items data/beauty/items.jsonl
    --valid data/beauty/valid.jsonl -o tower/
    """

    width: Width = 64
    units: int = option("Units of the attention.", 8, MODEL, at_least=1)
    max_history: MaxHistory = 20
    dropout: float = 0.3
    epochs: int = 20
    batch_size: int = option("Prefixes a batch at most.", 256, TRAINING, at_least=1)
    max_tokens_per_batch: int = 2048


def run(options: Options) -> dict[str, Any] | None:
    """Train a two-tower, or with `dry_run` tell what that would take.

    Returns:
        The record of the epoch that was kept, or the forecast; None where the output was finished before.
    """
    from idgr.item_models.two_tower import two_tower_task
    from idgr.models.two_tower import TwoTowerConfig, new_two_tower, save_two_tower

    def new_model(n_items: int) -> TwoTower:
        shape = (options.width, options.units, options.max_history, options.dropout)
        return new_two_tower(TwoTowerConfig(n_items, *shape), options.seed)

    return run_item_training("train-two-tower", options, new_model, two_tower_task, save_two_tower)
