"""The cross-entropy of targets over all items of a catalogue, with its gradient, some targets at a time.

The scores of all targets never lie in memory together: each part's are made into its loss and gradients at once.

Legend: N targets, C targets of a part, D width, I items, F weights of near items, E numbers added to scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from idgr.models.device import to_device
from idgr.recommender.near_items import NearScores

# So many scores are made at a time: on a processor few enough to stay near it, and that products pay.
_MOST_SCORES = {"cpu": 1 << 21}
_MOST_ELSEWHERE = 1 << 24


def item_loss(
    query_ND: Tensor,
    vectors_ID: Tensor,
    targets_N: Tensor,
    near: NearScores | None = None,
    near_weight_F: Tensor | None = None,
) -> Tensor:
    """The summed cross-entropy of the scores query · vectorsᵀ against targets, in nats, as `F.cross_entropy` has it.

    Under autocast the products are made in its type, and with bf16 a probability is good to about 0.4 %; softmax, sums
    over items and sums over targets are in float32. A gradient of higher order cannot be had.

    Args:
        near, near_weight_F: what is added to the scores, and the weights by which.
    """
    kind = query_ND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else vectors_ID.dtype
    factors = (query_ND, vectors_ID, near_weight_F)
    wanted = torch.is_grad_enabled() and any(factor is not None and factor.requires_grad for factor in factors)
    loss: Tensor = _ItemLoss.apply(  # type: ignore[no-untyped-call]
        query_ND, vectors_ID, targets_N, near, near_weight_F, dtype, wanted
    )
    return loss


def add_near(scores_CI: Tensor, near: NearScores, weight_F: Tensor, begin: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Add to scores in place what near items get.

    Args:
        begin: the row of `near` that is the first of these.

    Returns:
        What was added: the cell of the scores, the feature and the value of each number, [E] each.
    """
    part = slice(*np.searchsorted(near.row, [begin, begin + len(scores_CI)]).tolist())
    cell = (near.row[part] - begin) * scores_CI.shape[1] + near.item[part]
    cell_E, feature_E, value_E = (
        to_device(array, scores_CI.device) for array in (cell, near.feature[part], near.value[part])
    )
    scores_CI.view(-1).index_add_(0, cell_E, weight_F[feature_E] * value_E)
    return cell_E, feature_E, value_E


class _ItemLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_ND: Tensor,
        vectors_ID: Tensor,
        targets_N: Tensor,
        near: NearScores | None,
        weight_F: Tensor | None,
        dtype: torch.dtype,
        wanted: bool,
    ) -> Tensor:
        with torch.autocast(query_ND.device.type, enabled=False):
            loss, *gradients = _loss_and_gradients(query_ND, vectors_ID, targets_N, near, weight_F, dtype, wanted)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        query_ND, vectors_ID, weight_F = ctx.saved_tensors
        scaled_F = None if weight_F is None else weight_F * outer[0]
        return query_ND * outer[0].to(query_ND.dtype), vectors_ID * outer[0], None, None, scaled_F, None, None


def _loss_and_gradients(
    query_ND: Tensor,
    vectors_ID: Tensor,
    targets_N: Tensor,
    near: NearScores | None,
    weight_F: Tensor | None,
    dtype: torch.dtype,
    wanted: bool,
) -> tuple[Tensor, *tuple[Tensor | None, ...]]:
    """The summed loss and, if wanted, its gradients by query, vectors and weights of near items."""
    low_ID = vectors_ID.to(dtype)
    most = _MOST_SCORES.get(query_ND.device.type, _MOST_ELSEWHERE)
    size = min(max(1, most // max(1, len(low_ID))), max(1, len(query_ND)))
    room_CI = low_ID.new_empty(size, len(low_ID))
    loss = torch.zeros((), dtype=torch.float32, device=query_ND.device)
    grad_ND = torch.empty_like(query_ND, dtype=torch.float32)
    grad_ID = torch.zeros_like(vectors_ID, dtype=torch.float32)
    grad_F = None if weight_F is None else torch.zeros_like(weight_F)
    for begin in range(0, len(query_ND), size):
        part = slice(begin, begin + size)
        low_CD, target_C1 = query_ND[part].to(dtype), targets_N[part, None]
        scores_CI = torch.mm(low_CD, low_ID.T, out=room_CI[: len(low_CD)]).float()
        if near is not None and weight_F is not None:
            cell_E, feature_E, value_E = add_near(scores_CI, near, weight_F, begin)
        highest_C1 = scores_CI.amax(1, keepdim=True)
        loss += (highest_C1 - scores_CI.gather(1, target_C1)).sum()
        scores_CI.sub_(highest_C1).exp_()
        sum_C1 = scores_CI.sum(1, keepdim=True)
        loss += sum_C1.log().sum()
        if not wanted:
            continue
        # A softmax is this by its sum, which divides the narrow side of each product.
        share_CI = scores_CI.to(dtype)
        grad_ND[part] = (share_CI @ low_ID) / sum_C1
        grad_ID += share_CI.T @ (low_CD / sum_C1).to(dtype)
        if grad_F is not None:
            row_E = cell_E // len(low_ID)
            hit_E = cell_E - row_E * len(low_ID) == target_C1[row_E, 0]
            slope_E = scores_CI.view(-1)[cell_E] / sum_C1[row_E, 0] - hit_E.float()
            grad_F.index_add_(0, feature_E, (slope_E * value_E).to(grad_F.dtype))
    if not wanted:
        return (loss,)
    # What the targets take away, apart and in full precision: a probability less 1 would be rounded in bf16.
    grad_ND -= vectors_ID[targets_N]
    grad_ID.index_add_(0, targets_N, query_ND.float(), alpha=-1)
    return loss, grad_ND.to(query_ND.dtype), grad_ID.to(vectors_ID.dtype), grad_F
