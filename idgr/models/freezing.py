"""Layers of a model that stay as they are while the others learn.

PyTorch keeps of a forward pass only what the gradient of a weight that learns asks for, so below the lowest of these
nothing is kept, and the backward pass ends there, unless something that learns is put into the model's input.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from idgr.errors import UsageError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration


def freeze_layers(model: LlamaForCausalLM | T5ForConditionalGeneration, n: int) -> None:
    """Freeze the embeddings of a model and its first n layers; those of a T5 are its encoder's.

    A head that is the embeddings stays as it is with them.

    Raises:
        UsageError: the model has fewer layers.
    """
    inner: Any = model
    layers = inner.encoder.block if model.config.is_encoder_decoder else inner.model.layers
    if n > len(layers):
        whose = "the model's encoder" if model.config.is_encoder_decoder else "the model"
        raise UsageError(f"--freeze {n}, but {whose} has {len(layers)}", f"give at most {len(layers)}")
    for module in (model.get_input_embeddings(), *layers[:n]):
        module.requires_grad_(False)


def split_layers(model: LlamaForCausalLM, n: int) -> tuple[Any, Any]:
    """The embeddings and first n layers of a model, and its other layers with the last norm, as models of their own.

    Both have the model's modules and configuration, not copies. The first one's states are what the second one reads
    as `inputs_embeds`.
    """
    parts = []
    for layers, norm in ((model.model.layers[:n], nn.Identity()), (model.model.layers[n:], model.model.norm)):
        part = copy.copy(model.model)
        part._modules = {**model.model._modules, "layers": layers, "norm": norm}
        parts.append(part)
    return parts[0], parts[1]
