"""SASRec (Kang and McAuley 2018): a causal Transformer over items, and its folder on disk.

Its output at each place of a history scores all items by products with their embeddings.

Shape letters: B histories, L places, D width, I items.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idgr.errors import IdgrError
from idgr.formats.rec_folder import CONFIG, SASREC
from idgr.models.item_folder import (
    WEIGHTS,
    read_config,
    read_keys,
    read_weights,
    save_item_model,
    take_weights,
    wanted,
    without_weights,
)

_INNER = 4  # the width between the two layers of a feed-forward part, in widths
_SPREAD = 0.02  # of the weights at the start


@dataclass(frozen=True)
class SasrecConfig:
    """The shape of a SASRec.

    Attributes:
        n_items: the number of items, I.
        width: of the embeddings and of what passes between layers, D.
        layers, heads: of the Transformer; `heads` divides `width`.
        max_history: the newest items that it reads, at most.
        dropout_rate: of embeddings and of what each layer adds, in training.
    """

    n_items: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    max_history: int = 50
    dropout_rate: float = 0.5


class Sasrec(nn.Module):
    """The network: pre-norm layers, learnt places counted from the oldest item shown, a norm at the end.

    Attention weights are not dropped. The embedding after the last item's stands for no item: it fills up rows, and is
    what an empty history is read as; it stays 0.
    """

    def __init__(self, config: SasrecConfig) -> None:
        super().__init__()
        self.config = config
        self.items = self._new_items(config)
        self.places = nn.Embedding(config.max_history, config.width)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def _new_items(self, config: SasrecConfig) -> Any:
        """What gives items' vectors, [B, L, D], for their numbers, [B, L]."""
        return nn.Embedding(config.n_items + 1, config.width, padding_idx=config.n_items)

    @property
    def device(self) -> torch.device:
        return self.places.weight.device

    @property
    def no_item(self) -> int:
        """The number that stands for no item."""
        return self.config.n_items

    def item_vectors(self) -> Tensor:
        """[I, D]: what the output is multiplied with; the same as what is read."""
        vectors_ID: Tensor = self.items.weight[:-1]
        return vectors_ID

    def forward(self, items_BL: Tensor) -> Tensor:
        """The output at each place, [B, L, D], which depends on the items up to there alone.

        Args:
            items_BL: item numbers, oldest first, filled up at the end with `no_item`; L at most `max_history`.
        """
        hidden_BLD = self.items(items_BL) + self.places.weight[: items_BL.shape[1]]
        hidden_BLD = self.dropout(hidden_BLD)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD)
        output_BLD: Tensor = self.norm(hidden_BLD)
        return output_BLD

    def catalogue_scores(self, items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """The score of every item to come next after each history, [B, I]; histories as `pad_histories` gives them."""
        newest_BD = self(items_BL)[torch.arange(len(items_BL), device=self.device), lengths_B - 1]
        scores_BI: Tensor = newest_BD @ self.item_vectors().T
        return scores_BI


Config = TypeVar("Config", bound=SasrecConfig)
Network = TypeVar("Network", bound=Sasrec)


class _Layer(nn.Module):
    def __init__(self, config: SasrecConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, _INNER * width), nn.Linear(_INNER * width, width)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        n, length, width = hidden_BLD.shape
        split = self.qkv(self.norm1(hidden_BLD)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = _attend(query, key, value)
        hidden_BLD = hidden_BLD + self.dropout(self.out(found.transpose(1, 2).reshape(n, length, width)))
        inner = self.narrow(F.gelu(self.wide(self.norm2(hidden_BLD))))
        added: Tensor = hidden_BLD + self.dropout(inner)
        return added


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention; rows are filled up at the end, so the causal mask alone keeps the filling out."""
    if query.dtype is not torch.bfloat16 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    # On a CPU, plain products in bf16 take from a quarter to half the time of the fused kernel at these lengths.
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    found: Tensor = scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ value
    return found


def new_sasrec(config: SasrecConfig, seed: int) -> Sasrec:
    """A SASRec with random weights, drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Sasrec(config)
        draw_weights(model)
        model.items.weight[-1] = 0
    return model


def draw_weights(model: nn.Module) -> None:
    """Small normal weights; biases of 0, and norms as they are."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, _SPREAD)
        elif name.endswith("bias"):
            weight.zero_()


def save_sasrec(model: Sasrec, item_keys: Sequence[str], folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, `model.safetensors` and `items.json`, the keys in the model's order, into a folder."""
    save_item_model(model, SASREC, model.config, item_keys, folder)


def load_sasrec(folder: str | os.PathLike[str]) -> tuple[Sasrec, list[str]]:
    """What `save_sasrec` wrote: the model, on the CPU in evaluation mode, and its items' keys.

    Raises:
        IdgrError: a file is missing, damaged, or does not fit the others.
    """
    config = read_config(folder, SASREC, SasrecConfig)
    check_heads(config, folder)
    keys = read_keys(folder, SASREC, config.n_items)
    return load_network(Sasrec, config, folder, SASREC), keys


def check_heads(config: SasrecConfig, folder: str | os.PathLike[str]) -> None:
    """Raise `IdgrError` where a saved shape has heads that do not divide its width."""
    if config.width % config.heads:
        what = f"its {config.heads} heads do not divide its width of {config.width}"
        raise IdgrError(what, wanted(SASREC), where=Path(folder) / CONFIG)


def load_network(
    kind: Callable[[Config], Network], config: Config, folder: str | os.PathLike[str], model_type: str
) -> Network:
    """A network of this shape with the folder's weights, on the CPU in evaluation mode."""
    tensors = read_weights(folder, model_type)
    if f"layers.{config.layers - 1}.norm1.weight" not in tensors:
        what = f"has not the {config.layers} layers of {CONFIG}"
        raise IdgrError(what, wanted(model_type), where=Path(folder) / WEIGHTS)
    model = without_weights(kind, config, folder, model_type)
    take_weights(model, tensors, folder, model_type)
    return model.float().eval()
