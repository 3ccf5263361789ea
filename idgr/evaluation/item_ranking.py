"""A SASRec or a two-tower asked for the best items after each history, by its scores of the whole catalogue.

Knows items as numbers; keys, files and the command line it does not know.

Shape letters: B histories, I items.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.models.item_models import ItemModel, pad_histories

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemRanking:
    """The best items after a history, best first, and the logarithms of their probabilities among all items."""

    items: list[int]
    scores: list[float]


def rank_items(
    model: ItemModel,
    histories: Sequence[Sequence[int]],
    k: int,
    *,
    excluded: Sequence[Collection[int]] | None = None,
    allowed: Tensor | None = None,
    batch_size: int = 256,
) -> list[ItemRanking]:
    """The k best items after each history, fewer where there are no more.

    Args:
        model: on its device, in evaluation mode.
        histories: item numbers, oldest first; an empty one is told nothing.
        excluded: for each history, what may not be returned.
        allowed: [I], bool, on the model's device: which items may be returned; None for all.
        batch_size: histories at a time; those of similar length go together.
    """
    rows = [np.asarray(history, dtype=np.int64) for history in histories]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found: dict[int, ItemRanking] = {}
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            scores_BI = _log_probabilities(model, [rows[row] for row in batch])
            if excluded is not None:
                _leave_out(scores_BI, [excluded[row] for row in batch])
            if allowed is not None:
                scores_BI[:, ~allowed] = -torch.inf
            best = scores_BI.topk(min(k, scores_BI.shape[1]), dim=1)
            for row, items, scores in zip(batch, best.indices.tolist(), best.values.tolist(), strict=True):
                n = sum(score > -torch.inf for score in scores)
                found[row] = ItemRanking(items[:n], scores[:n])
    return [found[row] for row in range(len(rows))]


def _log_probabilities(model: ItemModel, histories: Sequence[Ints]) -> Tensor:
    """[B, I], fp32: the logarithm of each item's probability to come next."""
    scores_BI = model.catalogue_scores(*pad_histories(model, histories))
    return torch.log_softmax(scores_BI.float(), dim=1)


def _leave_out(scores_BI: Tensor, excluded: Sequence[Collection[int]]) -> None:
    rows = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
    items = np.fromiter((item for row in excluded for item in row), dtype=np.int64, count=len(rows))
    scores_BI[torch.from_numpy(rows).to(scores_BI.device), torch.from_numpy(items).to(scores_BI.device)] = -torch.inf
