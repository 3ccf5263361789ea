"""Where tensors live and how the model computes there while it is trained: random numbers, attention, compiling.

What the context managers here change of a model or of the program, they put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from idgr.models.compiling import bucketed_widths, compile_options
from idgr.models.item_models import ItemModel
from idgr.models.text_ranker import TextRanker

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from idgr.engine.task import TrainableModel


@contextmanager
def forked_rng(device: torch.device) -> Iterator[None]:
    """Leave the random numbers of the rest of the program as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def eager_attention(model: TrainableModel) -> Iterator[None]:
    """On a CPU, a T5's attention by plain products: in bf16 a quarter quicker than with PyTorch's fused kernel."""
    if isinstance(model, ItemModel | TextRanker) or model.device.type != "cpu":
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def checkpoint_activations(model: LlamaForCausalLM) -> None:
    """From now on, hold of each layer its input alone in training, and run it again for its gradient."""
    before = "gradient_checkpointing_enable"  # what older versions of transformers call it
    enable = getattr(model, "activation_checkpointing_enable", None) or getattr(model, before)
    enable({"use_reentrant": False})


@contextmanager
def compiled(model: TrainableModel, wanted: bool, *, graphs: bool = True) -> Iterator[None]:
    """The model's stacks through `torch.compile` inside the block, where that is wanted.

    Each is compiled once for batches of any size. Rows of tokens are filled up to buckets, so that there are few sizes.

    Args:
        graphs: whether a GPU records a CUDA graph for each size; for a model of items, whose sizes are many, it never
            does.
    """
    if not wanted:
        yield
        return
    # The names of a T5's two stacks and of a Llama's one; a model of items has none and is compiled whole.
    inner: list[nn.Module] = [getattr(model, name) for name in ("encoder", "decoder", "model") if hasattr(model, name)]
    stacks = inner or [model]
    for stack in stacks:
        stack.compile(dynamic=True, **compile_options(model.device, graphs=graphs and bool(inner)))
    try:
        with bucketed_widths():
            yield
    finally:
        for stack in stacks:
            stack._compiled_call_impl = None
