"""Cross-entropy over all items of a catalogue, with its gradient, some rows at a time.

The scores of all rows never lie in memory together: each chunk's are made into its loss and gradients at once.

Shape letters: N rows, I items, D width, C rows of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Scores of so many rows at a time: few enough to stay near the processor, and that products pay.
_CHUNK = 256


def catalogue_loss(hidden_ND: Tensor, items_ID: Tensor, targets_N: Tensor) -> Tensor:
    """The summed cross-entropy of scores hidden · itemsᵀ against targets, as `F.cross_entropy` has it.

    Under autocast the products are made in its type, and with bf16 a probability is good to about 0.4 %; sums over
    items and rows are in fp32. A gradient of higher order cannot be had.
    """
    kind = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else items_ID.dtype
    wanted = torch.is_grad_enabled() and (hidden_ND.requires_grad or items_ID.requires_grad)
    loss: Tensor = _CatalogueLoss.apply(hidden_ND, items_ID, targets_N, dtype, wanted)  # type: ignore[no-untyped-call]
    return loss


class _CatalogueLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, items_ID: Tensor, targets_N: Tensor, dtype: torch.dtype, wanted: bool
    ) -> Tensor:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            loss, *gradients = _loss_and_gradients(hidden_ND, items_ID, targets_N, dtype, wanted)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_ND, items_ID = ctx.saved_tensors
        return hidden_ND * outer[0].to(hidden_ND.dtype), items_ID * outer[0], None, None, None


def _loss_and_gradients(
    hidden_ND: Tensor, items_ID: Tensor, targets_N: Tensor, dtype: torch.dtype, wanted: bool
) -> tuple[Tensor, ...]:
    """The summed loss and, if wanted, its gradients by both factors of the scores."""
    low_ID = items_ID.to(dtype)
    loss = torch.zeros((), dtype=items_ID.dtype, device=hidden_ND.device)
    grad_ND = torch.empty_like(hidden_ND, dtype=items_ID.dtype)
    grad_ID = torch.zeros_like(items_ID)
    for begin in range(0, len(hidden_ND), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        low_CD, targets_C = hidden_ND[part].to(dtype), targets_N[part]
        share_CI = torch.softmax(low_CD @ low_ID.T, dim=1)
        # The probability of a target may be too small for the type, yet its logarithm must be a number.
        hit_C = share_CI.gather(1, targets_C[:, None])[:, 0].to(loss.dtype)
        loss -= hit_C.clamp_min(torch.finfo(loss.dtype).tiny).log().sum()
        if wanted:
            grad_ND[part] = share_CI @ low_ID
            grad_ID += share_CI.T @ low_CD
    if not wanted:
        return (loss,)
    # What the targets take away, apart and in full precision: a probability less 1 would be rounded in bf16.
    grad_ND -= items_ID[targets_N]
    grad_ID.index_add_(0, targets_N, hidden_ND.to(grad_ID.dtype), alpha=-1)
    return loss, grad_ND.to(hidden_ND.dtype), grad_ID
