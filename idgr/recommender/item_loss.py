"""The cross-entropy of targets over all items of a catalogue, whose logits are never all there at once.

Legend: M targets, D width, I items, F weights of near items, E numbers added to logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from idgr.models.device import to_device
from idgr.recommender.near_items import NearScores

# So many logits are made at a time.
_MOST_LOGITS = 1 << 24


def item_loss(
    query_MD: Tensor,
    vectors_ID: Tensor,
    items_M: Tensor,
    near: NearScores | None = None,
    near_weight_F: Tensor | None = None,
) -> Tensor:
    """The summed cross-entropy of targets over all items, in nats, some targets' logits at a time.

    Under autocast the products are made in its type; the softmax is in float32.

    Args:
        near, near_weight_F: what is added to the logits, and the weights by which.
    """
    if torch.is_autocast_enabled(query_MD.device.type):
        dtype = torch.get_autocast_dtype(query_MD.device.type)
        query_MD, vectors_ID = query_MD.to(dtype), vectors_ID.to(dtype)
    loss: Tensor = _ItemLoss.apply(query_MD, vectors_ID, items_M, near, near_weight_F)  # type: ignore[no-untyped-call]
    return loss


def add_near(logits_MI: Tensor, near: NearScores, weight_F: Tensor, begin: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Add to logits in place what near items get.

    Args:
        begin: the row of `near` that is the first of these.

    Returns:
        What was added: the cell of the logits, the feature and the value of each number, [E] each.
    """
    part = slice(*np.searchsorted(near.row, [begin, begin + len(logits_MI)]).tolist())
    cell = (near.row[part] - begin) * logits_MI.shape[1] + near.item[part]
    cell_E, feature_E, value_E = (
        to_device(array, logits_MI.device) for array in (cell, near.feature[part], near.value[part])
    )
    logits_MI.view(-1).index_add_(0, cell_E, weight_F[feature_E] * value_E)
    return cell_E, feature_E, value_E


class _ItemLoss(torch.autograd.Function):
    """The gradient is made with the loss, while the logits are there, so that none are kept or made twice."""

    @staticmethod
    def forward(
        ctx: Any,
        query_MD: Tensor,
        vectors_ID: Tensor,
        items_M: Tensor,
        near: NearScores | None,
        near_weight_F: Tensor | None,
    ) -> Tensor:
        total = query_MD.new_zeros((), dtype=torch.float32)
        with_gradient = any(ctx.needs_input_grad)
        gradient_ID = torch.zeros_like(vectors_ID, dtype=torch.float32) if with_gradient else total
        gradient_F = None if near_weight_F is None else torch.zeros_like(near_weight_F)
        parts = [query_MD[:0]]
        size = max(1, _MOST_LOGITS // len(vectors_ID))
        for begin in range(0, len(query_MD), size):
            some_MD, chosen_M1 = query_MD[begin : begin + size], items_M[begin : begin + size, None]
            share_MI = (some_MD @ vectors_ID.T).float()
            if near is not None and near_weight_F is not None:
                cell_E, feature_E, value_E = add_near(share_MI, near, near_weight_F, begin)
            share_MI -= share_MI.amax(1, keepdim=True)
            total -= share_MI.gather(1, chosen_M1).sum()
            sum_M1 = share_MI.exp_().sum(1, keepdim=True)
            total += sum_M1.log().sum()
            if with_gradient:
                share_MI /= sum_M1
                share_MI.scatter_add_(1, chosen_M1, -torch.ones_like(sum_M1))
                if gradient_F is not None:
                    gradient_F.index_add_(0, feature_E, share_MI.view(-1)[cell_E] * value_E)
                slope_MI = share_MI.to(vectors_ID.dtype)
                parts.append(slope_MI @ vectors_ID)
                gradient_ID += slope_MI.T @ some_MD
        if with_gradient:
            ctx.save_for_backward(torch.cat(parts), gradient_ID.to(vectors_ID.dtype), gradient_F)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, Tensor | None]:
        query_MD, vectors_ID, weight_F = ctx.saved_tensors
        scaled_F = None if weight_F is None else weight_F * gradients[0]
        return query_MD * gradients[0], vectors_ID * gradients[0], None, None, scaled_F
