"""The models that know items as numbers, SASRec and the two-tower, where it does not matter which of them one is.

Shape letters: B histories, L places, D width, I items.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from idgr.errors import IdgrError
from idgr.formats.rec_folder import TEXT_SASREC, TWO_TOWER, item_model_type
from idgr.models.device import to_device
from idgr.models.sasrec import Sasrec, load_sasrec
from idgr.models.two_tower import TwoTower, load_two_tower

ItemModel: TypeAlias = Sasrec | TwoTower


def pad_histories(model: ItemModel, histories: Sequence[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Histories as [B, L] and their lengths, [B]: the newest items that the model reads; an empty one is `no_item`."""
    rows = [history[-model.config.max_history :] if len(history) else [model.no_item] for history in histories]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    items_BL = np.full((len(rows), int(lengths.max())), model.no_item, dtype=np.int64)
    items_BL[np.arange(items_BL.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return to_device(items_BL, model.device), to_device(lengths, model.device)


def load_item_model(folder: str | os.PathLike[str]) -> tuple[ItemModel, list[str]]:
    """A saved model, on the CPU in evaluation mode, and its items' keys.

    Raises:
        IdgrError: the folder is not one of `save_sasrec` or `save_two_tower`, or damaged.
    """
    kind = item_model_type(folder)
    if kind == TEXT_SASREC:
        todo = "give a SASRec that was trained without --text-vectors"
        raise IdgrError("is a SASRec of texts, which keeps no items", todo, where=folder)
    if kind == TWO_TOWER:
        return load_two_tower(folder)
    return load_sasrec(folder)


def read_item_vectors(folder: str | os.PathLike[str]) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The keys of the items that a saved model was trained on, and their vectors, [I, D], in the same order.

    Raises:
        IdgrError: as for `load_item_model`.
    """
    model, keys = load_item_model(folder)
    vectors: npt.NDArray[np.float32] = model.item_vectors().detach().numpy()
    return keys, vectors
