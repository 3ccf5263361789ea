"""A SASRec or a two-tower asked for the best items after each history, by its scores of the whole catalogue.

Shape letters: B histories, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.errors import IdgrError
from idgr.models.device import to_device
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
    advance: Callable[[int], object] | None = None,
    where: str | None = None,
) -> list[ItemRanking]:
    """The k best items after each history, fewer where there are no more.

    Args:
        model: on its device, in evaluation mode.
        histories: item numbers, oldest first; an empty one is told nothing.
        excluded: for each history, what may not be returned.
        allowed: [I], bool, on the model's device: which items may be returned; None for all.
        batch_size: histories at a time; those of similar length go together.
        advance: told the number of histories of each batch that is done.
        where: the model's folder, for messages.

    Raises:
        IdgrError: the model's scores are not finite numbers.
        torch.OutOfMemoryError: the device has not the memory for a single history.
    """
    rows = [np.asarray(history, dtype=np.int64) for history in histories]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found: dict[int, ItemRanking] = {}
    begin = 0
    while begin < len(order):
        batch = order[begin : begin + batch_size]
        left_out = None if excluded is None else [excluded[row] for row in batch]
        rankings = _if_there_is_room(model, [rows[row] for row in batch], k, left_out, allowed, where)
        if rankings is None:
            torch.cuda.empty_cache()  # what the batch held has no names any more
            batch_size = len(batch) // 2
            continue
        found.update(zip(batch, rankings, strict=True))
        begin += len(batch)
        if advance is not None:
            advance(len(batch))
    return [found[row] for row in range(len(rows))]


def _if_there_is_room(
    model: ItemModel,
    histories: Sequence[Ints],
    k: int,
    excluded: Sequence[Collection[int]] | None,
    allowed: Tensor | None,
    where: str | None,
) -> list[ItemRanking] | None:
    """The rankings of a batch; None where the device has not the memory for several histories."""
    try:
        return _rank(model, histories, k, excluded, allowed, where)
    except torch.OutOfMemoryError:
        if len(histories) == 1:
            raise
        return None


@torch.inference_mode()
def _rank(
    model: ItemModel,
    histories: Sequence[Ints],
    k: int,
    excluded: Sequence[Collection[int]] | None,
    allowed: Tensor | None,
    where: str | None,
) -> list[ItemRanking]:
    scores_BI = _log_probabilities(model, histories)
    finite = scores_BI.isfinite().all()
    if excluded is not None:
        _leave_out(scores_BI, excluded)
    if allowed is not None:
        scores_BI[:, ~allowed] = -torch.inf
    best = scores_BI.topk(min(k, scores_BI.shape[1]), dim=1)
    if not finite:
        raise IdgrError("the model's scores are not numbers", "train it again, with a lower learning rate", where=where)
    rankings = []
    for items, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        n = sum(score > -torch.inf for score in scores)
        rankings.append(ItemRanking(items[:n], scores[:n]))
    return rankings


def _log_probabilities(model: ItemModel, histories: Sequence[Ints]) -> Tensor:
    """[B, I], fp32: the logarithm of each item's probability to come next."""
    scores_BI = model.catalogue_scores(*pad_histories(model, histories))
    return torch.log_softmax(scores_BI.float(), dim=1)


def _leave_out(scores_BI: Tensor, excluded: Sequence[Collection[int]]) -> None:
    rows = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
    items = np.fromiter((item for row in excluded for item in row), dtype=np.int64, count=len(rows))
    scores_BI[to_device(rows, scores_BI.device), to_device(items, scores_BI.device)] = -torch.inf
