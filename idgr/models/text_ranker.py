"""A ranker of texts, which learns on some catalogues how likely it is that an item follows a history whose text is so
and so like it, and ranks items of any other; and its folder on disk.

A perceptron of one hidden layer scores each candidate by its features (`idgr.item_models.text_features`), brought to
mean 0 and spread 1 over those of the training; the loss is the cross-entropy over a history's candidates (ListNet's
with one relevant item, Cao et al. 2007). Nothing here knows an item, a word or a catalogue.

Shape letters: B histories, C candidates, F features.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from idgr.formats.rec_folder import TEXT_RANKER
from idgr.models.item_folder import read_config, read_weights, save_network, take_weights, without_weights

_TINY = 1e-3


@dataclass(frozen=True)
class TextRankerConfig:
    """The shape of a ranker of texts.

    Attributes:
        features: of a candidate, F.
        width: of the hidden layer.
        candidates: so many items are ranked after a history; the others follow by their likeness alone.
        dropout_rate: of the hidden layer, in training.
    """

    features: int
    width: int = 32
    candidates: int = 300
    dropout_rate: float = 0.1


class TextRanker(nn.Module):
    """The network."""

    mean_F: Tensor
    spread_F: Tensor

    def __init__(self, config: TextRankerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean_F", torch.zeros(config.features))
        self.register_buffer("spread_F", torch.ones(config.features))
        self.hidden = nn.Linear(config.features, config.width)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.out = nn.Linear(config.width, 1)

    @property
    def device(self) -> torch.device:
        return self.out.weight.device

    def take_scale(self, mean_F: Tensor, spread_F: Tensor) -> None:
        """Know the mean and the standard deviation of features; one that never varied says nothing from now on."""
        self.mean_F.copy_(mean_F)
        self.spread_F.copy_(torch.where(spread_F > _TINY, spread_F, 1 / _TINY))

    def forward(self, features_BCF: Tensor) -> Tensor:
        """[B, C] the candidates' scores."""
        hidden = nn.functional.gelu(self.hidden((features_BCF - self.mean_F) / self.spread_F))
        scores_BC: Tensor = self.out(self.dropout(hidden)).squeeze(-1)
        return scores_BC


def new_text_ranker(config: TextRankerConfig, seed: int) -> TextRanker:
    """One with random weights, drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TextRanker(config)


def save_text_ranker(model: TextRanker, folder: str | os.PathLike[str]) -> None:
    """Write `config.json` and `model.safetensors` into a folder."""
    save_network(model, TEXT_RANKER, asdict(model.config), folder)


def load_text_ranker(folder: str | os.PathLike[str]) -> TextRanker:
    """What `save_text_ranker` wrote, on the CPU in evaluation mode.

    Raises:
        IdgrError: a file is missing, damaged, or does not fit the others.
    """
    config = read_config(folder, TEXT_RANKER, TextRankerConfig)
    tensors = read_weights(folder, TEXT_RANKER)
    model = without_weights(TextRanker, config, folder, TEXT_RANKER)
    take_weights(model, tensors, folder, TEXT_RANKER)
    return model.eval()
