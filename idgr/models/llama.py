"""A Llama's forward pass over its own weights, in pieces that a search can put together.

A history is one token sequence: every item's ID stands behind an EOS, or has a line of its own. Tokens have places,
which the rotary embedding turns into distances. Where the model's configuration tells `item_slots`, as that of a preset
does, an item begins every so many places, whatever the length of its ID, so that a distance tells both how many items
lie between two tokens and how far apart they stand in their IDs; else places are counted through.

Legend: B sequences, S tokens, N tokens of all sequences, D width, H heads, E width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.errors import IdgrError, UsageError
from idgr.models.separator import NEWLINE

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Ints = npt.NDArray[np.int64]


class Linear(NamedTuple):
    """The weight [out, in] of a linear layer, or of several that read the same input, and its bias if it has one."""

    weight: Tensor
    bias: Tensor | None


class Layer(NamedTuple):
    """The weights of a layer, those that read the same input joined."""

    norm_D: Tensor
    query_key_value: Linear
    out: Linear
    inner_norm_D: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class Llama:
    """A Llama's weights in one precision on one device.

    Attributes:
        frequency_E: [E / 2] the rotary embedding's, in float32; `scaling` multiplies its cosines and sines.
        activation: of the feed-forward layers.
        n_shared: how many heads of queries share a head of keys and values.
        item_slots: see the module; 0 where places are counted through.
    """

    embedding_VD: Tensor
    head_VD: Tensor
    layers: list[Layer]
    norm_D: Tensor
    frequency_E: Tensor
    scaling: float
    activation: Callable[[Tensor], Tensor]
    n_heads: int
    n_shared: int
    epsilon: float
    item_slots: int

    @property
    def device(self) -> torch.device:
        return self.embedding_VD.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding_VD.dtype


def read_weights(model: LlamaForCausalLM, dtype: torch.dtype) -> Llama:
    """The weights of `model` in `dtype`, with low-rank updates that are at work in it."""
    config = model.config

    def weight(module: Any) -> Tensor:
        return whole_weight(module).to(dtype)

    def linear(*modules: Any) -> Linear:
        biases = [module.bias.detach().to(dtype) for module in modules if module.bias is not None]
        return Linear(_joined(list(map(weight, modules))), _joined(biases) if biases else None)

    layers = [
        Layer(
            weight(layer.input_layernorm),
            linear(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
            linear(layer.self_attn.o_proj),
            weight(layer.post_attention_layernorm),
            linear(layer.mlp.gate_proj, layer.mlp.up_proj),
            linear(layer.mlp.down_proj),
        )
        for layer in model.model.layers
    ]
    # Made anew: a model that was brought to another precision has rounded its own.
    rotary = type(model.model.rotary_emb)(config)
    return Llama(
        embedding_VD=weight(model.model.embed_tokens),
        head_VD=weight(model.lm_head),
        layers=layers,
        norm_D=weight(model.model.norm),
        frequency_E=rotary.inv_freq.detach().float().to(model.device),
        scaling=rotary.attention_scaling,
        activation=model.model.layers[0].mlp.act_fn,
        n_heads=config.num_attention_heads,
        n_shared=config.num_attention_heads // config.num_key_value_heads,
        epsilon=config.rms_norm_eps,
        item_slots=item_slots(model),
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def whole_weight(module: Any) -> Tensor:
    """A layer's weight, with the low-rank updates that peft may have put around it: W + B A times their scale."""
    weight: Tensor = module.weight.detach()
    if not hasattr(module, "get_delta_weight") or module.merged or module.disable_adapters:
        return weight
    for name in module.active_adapters:
        weight = weight + module.get_delta_weight(name).detach().to(weight.dtype)
    return weight


def item_slots(model: LlamaForCausalLM) -> int:
    """How many places apart items begin; 0 where places are counted through."""
    return int(getattr(model.config, "item_slots", 0))


def pad_token(model: LlamaForCausalLM) -> int:
    """A token to fill up rows with, which nothing looks at: that for padding, or any where there is none."""
    token = model.config.pad_token_id
    return 0 if token is None else int(token)


def keep_layers(model: LlamaForCausalLM, n: int) -> None:
    """Leave out all layers of a model behind its first n, in its configuration too.

    Deep layers of language models can often be left out at little cost, once the rest has learnt a little more (Gromov
    et al. 2024, "The Unreasonable Ineffectiveness of the Deeper Layers").

    Raises:
        UsageError: it has fewer.
    """
    has = len(model.model.layers)
    if n > has:
        raise UsageError(f"--layers {n}, but the model has {has}", f"give at most {has}")
    model.model.layers = model.model.layers[:n]
    model.config.num_hidden_layers = n
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:n]


def fit_item_slots(model: LlamaForCausalLM, ids: Sequence[Sequence[int]], *, new: bool, separator: str = "eos") -> None:
    """See that IDs, as token lists without EOS, have room in the places of an item; a new model is given the room.

    Behind newlines, as in any text, places are counted through.

    Raises:
        IdgrError: a model that is not new has less, or has places for items, and the separator is a newline.
    """
    if separator == NEWLINE:
        if item_slots(model):
            what = f"the model begins an item every {item_slots(model)} places, behind EOS"
            raise IdgrError(what, "take --separator eos, or another model", where=model.name_or_path or None)
        return
    longest = max(map(len, ids)) + 1
    if new:
        model.config.item_slots = longest
    elif 0 < item_slots(model) < longest:
        raise IdgrError(
            f"the longest ID has {longest} tokens with EOS, but the model has {item_slots(model)} places for an item",
            "give shorter IDs, or train a new model on these",
        )


def position_ids(tokens_BS: Ints, eos: int, slots: int) -> Ints:
    """[B, S] the place of each token of sequences in which every item stands behind an EOS.

    What stands behind an EOS and is longer than an item, such as a text, takes the places of as many items as it needs.

    Args:
        slots: how many places apart items begin; 0 to count places through.
    """
    along_BS = np.arange(tokens_BS.shape[1])[None].repeat(len(tokens_BS), axis=0)
    if not slots:
        return along_BS
    begin_BS = np.maximum.accumulate(np.where(tokens_BS == eos, along_BS, 0), axis=1)
    within_BS = (along_BS - begin_BS) % slots
    item_BS = (within_BS == 0).cumsum(1) - 1
    found: Ints = item_BS * slots + within_BS
    return found


def next_position(prompt: Ints, eos: int, slots: int) -> int:
    """The place of the EOS that would follow a sequence, behind which the next item would stand."""
    return int((prompt == eos).sum()) * slots if slots else len(prompt)


def rotary_embedding(llama: Llama, place: Tensor) -> tuple[Tensor, Tensor]:
    """The cosines and sines, [..., E], by which the rotary embedding turns a head at each place [...]."""
    angle = place[..., None].float() * llama.frequency_E
    angle = torch.cat([angle, angle], dim=-1)
    return (angle.cos() * llama.scaling).to(llama.dtype), (angle.sin() * llama.scaling).to(llama.dtype)


def apply_rotary(heads: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Heads [..., E] turned to their places."""
    half = heads.shape[-1] // 2
    cosine, sine = rotary
    return heads * cosine + torch.cat([-heads[..., half:], heads[..., :half]], dim=-1) * sine


def grouped_heads(llama: Llama, layer: Layer, hidden_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, H, E], keys and values of hidden states, before they are turned.

    Keys and values are there once for the queries that share them: [N, H / `n_shared`, E].
    """
    width = layer.out.weight.shape[1] // llama.n_heads
    joined = F.linear(norm(llama, hidden_ND, layer.norm_D), *layer.query_key_value)
    few = llama.n_heads // llama.n_shared
    heads = joined.view(len(hidden_ND), llama.n_heads + 2 * few, width)
    query, key, value = heads.split([llama.n_heads, few, few], dim=1)  # type: ignore[no-untyped-call]
    return query, key, value


def feed_forward(llama: Llama, layer: Layer, hidden: Tensor) -> Tensor:
    """What a feed-forward layer adds to its input, [..., D] each."""
    gate, up = F.linear(norm(llama, hidden, layer.inner_norm_D), *layer.gate_up).chunk(2, dim=-1)
    return F.linear(llama.activation(gate) * up, *layer.down)


def norm(llama: Llama, hidden: Tensor, weight_D: Tensor) -> Tensor:
    return F.rms_norm(hidden, (hidden.shape[-1],), weight_D, llama.epsilon)
