"""A two-tower of items and users, the user's with DIN's attention (Zhou et al. 2018), and its folder on disk.

The item tower is an embedding, which the user tower reads too. For each candidate the user tower weighs the items of
the history by an attention unit and sums them; the weights do not sum to 1, as in DIN (section 4.3), so that more
items of the candidate's kind speak louder. An item's score is the product of its vector with the user's for it:

    user(h, c) = everyone + Σ a(h_l, c) · V h_l          score(h, c) = user(h, c) · c
    a(h_l, c)  = v · relu(P h'_l + Q c + R (h'_l ⊙ c) + b) + b'      h'_l = h_l + place_l

DIN knows no order; here the unit also reads how far back an item lies. Items are known by number alone, without texts,
and as keys only in the folder; training and ranking are not known here.

Shape letters: B histories, L places, C candidates, D width, H units of the attention, N = B·L, I items.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from idgr.formats.rec_folder import TWO_TOWER
from idgr.models.item_folder import read_config, read_keys, read_weights, save_item_model, take_weights, without_weights

_SPREAD = 0.1  # of the item vectors at the start
# Where the whole catalogue is scored, so many pairs of a history's place and a candidate at a time.
_PAIRS = 2**17


@dataclass(frozen=True)
class TwoTowerConfig:
    """The shape of a two-tower.

    Attributes:
        n_items: the number of items, I.
        width: of the item vectors and the user vectors, D.
        units: of the attention, H.
        max_history: the newest items that it reads, at most.
        dropout_rate: of the history's item vectors, in training.
    """

    n_items: int
    width: int = 64
    units: int = 8
    max_history: int = 20
    dropout_rate: float = 0.3


class TwoTower(nn.Module):
    """The network. The embedding after the last item's stands for no item: it fills up rows, is 0 and stays so, and
    what an attention unit makes of it is multiplied with 0."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        width, units = config.width, config.units
        self.items = nn.Embedding(config.n_items + 1, width, padding_idx=config.n_items)
        self.places = nn.Embedding(config.max_history, width)
        self.everyone = nn.Parameter(torch.empty(width))
        self.values = nn.Linear(width, width, bias=False)
        self.by_history = nn.Linear(width, units)
        self.by_candidate = nn.Parameter(torch.empty(units, width))
        self.by_product = nn.Parameter(torch.empty(units, width))
        self.weigh = nn.Linear(units, 1)
        self.dropout = nn.Dropout(config.dropout_rate)

    @property
    def device(self) -> torch.device:
        return self.items.weight.device

    @property
    def no_item(self) -> int:
        """The number that stands for no item."""
        return self.config.n_items

    def item_vectors(self) -> Tensor:
        """[I, D]: what user vectors are multiplied with; the same as what is read."""
        return self.items.weight[:-1]

    def forward(self, items_BL: Tensor, lengths_B: Tensor, candidates_CD: Tensor) -> Tensor:
        """The score of each candidate after each history, [B, C].

        Args:
            items_BL, lengths_B: histories as `pad_histories` gives them.
            candidates_CD: the candidates' item vectors.
        """
        history_BLD = self.dropout(self.items(items_BL))
        # Counted from the newest item, 0; what fills up counts as newest, and says nothing.
        back_BL = (lengths_B[:, None] - 1 - torch.arange(items_BL.shape[1], device=self.device)).clamp_min(0)
        return self._score(history_BLD, history_BLD + self.places(back_BL), candidates_CD)

    def _score(self, history_BLD: Tensor, placed_BLD: Tensor, candidates_CD: Tensor) -> Tensor:
        # R (h' ⊙ c) + Q c is linear in c, so for all pairs it is one product of matrices.
        pair_BLHD = placed_BLD[:, :, None] * self.by_product + self.by_candidate
        hidden_BLHC = (pair_BLHD @ candidates_CD.T).add_(self.by_history(placed_BLD)[..., None]).relu_()
        # With a matrix for each place, since one for all would be multiplied with a transposed copy of all that.
        v_N1H = self.weigh.weight.expand(placed_BLD.shape[0] * placed_BLD.shape[1], -1, -1)
        weights_BLC = (v_N1H @ hidden_BLHC.flatten(0, 1)).view(*placed_BLD.shape[:2], -1) + self.weigh.bias
        # Σ a · (V h · c) = (Σ a · V h) · c, without a user vector for each pair of history and candidate.
        related_BLC = self.values(history_BLD) @ candidates_CD.T
        scores_BC: Tensor = (weights_BLC * related_BLC).sum(1) + candidates_CD @ self.everyone
        return scores_BC

    def catalogue_scores(self, items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """The score of every item to come next after each history, [B, I]; some candidates at a time."""
        vectors_ID = self.item_vectors()
        some = max(1, _PAIRS // items_BL.numel())
        parts = [self(items_BL, lengths_B, part_CD) for part_CD in torch.split(vectors_ID, some)]
        return torch.cat(parts, dim=1)


def new_two_tower(config: TwoTowerConfig, seed: int) -> TwoTower:
    """A two-tower with random item vectors, drawn from `seed` alone; at the start all of a history counts alike."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = TwoTower(config)
        model.items.weight.normal_(0, _SPREAD)
        model.items.weight[-1] = 0
        model.places.weight.normal_(0, _SPREAD)
        for weight in (model.by_history.weight, model.by_candidate, model.by_product):
            weight.normal_(0, config.width**-0.5)
        model.weigh.weight.normal_(0, _SPREAD)
        model.values.weight.copy_(torch.eye(config.width))
        model.everyone.zero_()
        model.by_history.bias.zero_()
        model.weigh.bias.fill_(1)
    return model


def save_two_tower(model: TwoTower, item_keys: Sequence[str], folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, `model.safetensors` and `items.json`, the keys in the model's order, into a folder."""
    save_item_model(model, TWO_TOWER, model.config, item_keys, folder)


def load_two_tower(folder: str | os.PathLike[str]) -> tuple[TwoTower, list[str]]:
    """What `save_two_tower` wrote: the model, on the CPU in evaluation mode, and its items' keys.

    Raises:
        IdgrError: a file is missing, damaged, or does not fit the others.
    """
    config = read_config(folder, TWO_TOWER, TwoTowerConfig)
    keys = read_keys(folder, TWO_TOWER, config.n_items)
    model = without_weights(TwoTower, config, folder, TWO_TOWER)
    take_weights(model, read_weights(folder, TWO_TOWER), folder, TWO_TOWER)
    return model.float().eval(), keys
