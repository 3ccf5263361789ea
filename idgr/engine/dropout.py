"""Dropout for training on a CPU: eight random bytes a draw in place of a random float per element.

PyTorch draws Bernoulli numbers one by one there, which costs a small T5 a quarter to a third of each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idgr.models.item_models import ItemModel
from idgr.models.text_ranker import TextRanker

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import LlamaForCausalLM

    from idgr.engine.task import TrainableModel

_BYTE = 256


class _ByteDropout(nn.Module):
    """Drops an element where a random byte is below `threshold`, and scales the others so that the mean stays."""

    def __init__(self, threshold: int) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or not self.threshold:
            return hidden
        dropped: Tensor = _Drop.apply(hidden, self.threshold)  # type: ignore[no-untyped-call]
        return dropped


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, threshold: int) -> Tensor:
        draws = torch.empty((hidden.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.uint8)[: hidden.numel()].view(hidden.shape) >= threshold
        factor = keep.to(hidden.dtype).mul_(_BYTE / (_BYTE - threshold))
        ctx.save_for_backward(factor)
        return hidden * factor

    @staticmethod
    def backward(ctx: Any, *accumulate_gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return accumulate_gradients[0] * factor, None


def _threshold(share: float) -> int:
    """How many of 256 values of a byte are dropped; never all, since nothing could make up for that."""
    return min(round(share * _BYTE), _BYTE - 1)


def drop(hidden: Tensor, share: float) -> Tensor:
    """A tensor with a share of its elements dropped, as in training; on a CPU the share is rounded to a 256th."""
    if hidden.device.type != "cpu":
        return F.dropout(hidden, share)
    threshold = _threshold(share)
    dropped: Tensor = _Drop.apply(hidden, threshold) if threshold else hidden  # type: ignore[no-untyped-call]
    return dropped


@contextmanager
def dropout_rate(model: TrainableModel, rate: float) -> Iterator[None]:
    """Train `model` with this dropout inside the block; afterwards it is as before.

    On a CPU the rate is rounded to a 256th, and attention weights, the larger part of all elements in long prompts,
    are not dropped. Elsewhere dropout is the model's own. A Llama drops, at the same places as a T5, what its
    embeddings, attention and feed-forward layers add to the hidden states.
    """
    quick = model.device.type == "cpu"
    undo: list[tuple[nn.Module, str, Any]] = []
    for parent in list(model.modules()):
        if isinstance(getattr(parent, "dropout", None), float):  # an attention layer: the rate for its weights
            undo.append((parent, "dropout", parent.dropout))
            parent.dropout = 0.0 if quick else rate
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                undo.append((parent, name, child))
                swap = _ByteDropout(_threshold(rate)) if quick else nn.Dropout(rate)
                setattr(parent, name, swap.train(child.training))
    drop = _ByteDropout(_threshold(rate)) if quick else nn.Dropout(rate)
    own = isinstance(model, ItemModel | TextRanker) or model.config.is_encoder_decoder
    hooks = [] if own else _drop_behind(_added_to_states(model), drop)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parent, name, value in undo:
            setattr(parent, name, value)


def _added_to_states(model: LlamaForCausalLM) -> list[nn.Module]:
    """The modules of a Llama whose outputs its hidden states are sums of."""
    layers = model.model.layers
    return [model.model.embed_tokens, *(part for layer in layers for part in (layer.self_attn, layer.mlp))]


def _drop_behind(modules: list[nn.Module], drop: nn.Module) -> list[RemovableHandle]:
    """Let the outputs of modules go through dropout while those modules are in training."""

    def hook(module: nn.Module, _: Any, output: Any) -> Any:
        drop.train(module.training)
        return (drop(output[0]), *output[1:]) if isinstance(output, tuple) else drop(output)

    return [module.register_forward_hook(hook) for module in modules]
