"""A SASRec that knows items by their texts alone, after UniSRec (Hou et al. 2022), and its folder on disk.

A language model's vectors of the texts stay as they are. They are whitened within their catalogue, so that catalogues
of different wording lie alike, and an adaptor, one linear layer, makes them what the Transformer reads and what its
output is compared with: the score of an item is the cosine of both by a temperature. Since no item has weights of its
own, the network ranks items of a catalogue that it was not trained on. UniSRec has a mixture of such adaptors, and
tasks of contrast before the training proper; here is one, trained by the cross-entropy over all items.

Shape letters: I items, T width of a text's vector, D width, B histories, L places.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idgr.errors import IdgrError
from idgr.formats.json_file import read_object
from idgr.formats.rec_folder import CONFIG, TEXT_SASREC
from idgr.models.item_folder import read_config, save_network, wanted
from idgr.models.sasrec import Sasrec, SasrecConfig, check_heads, draw_weights, load_network

Floats32 = npt.NDArray[np.float32]

_TEMPERATURE = 0.07  # UniSRec's
_TINY = 1e-30  # so that nothing is divided by 0
_LEAST_SPREAD = 0.01  # of a direction, in shares of the mean variance, that whitening counts at least


@dataclass(frozen=True)
class TextSasrecConfig(SasrecConfig):
    """The shape of a SASRec of texts.

    Attributes:
        n_items: how many items it was trained on; no weight depends on it.
        text_width: of the texts' vectors, T.
    """

    text_width: int = 384


@dataclass(frozen=True)
class TextSource:
    """The language model that made the vectors.

    Attributes:
        path: its folder, absolute.
        sha256: a hash of its files.
    """

    path: str
    sha256: str


class _TextItems(nn.Module):
    """The adaptor, and the whitened vectors of a catalogue, which are no weights and are not saved."""

    texts_IT: Tensor

    def __init__(self, config: TextSasrecConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout_rate)
        self.adaptor = nn.Linear(config.text_width, config.width)
        self.register_buffer("texts_IT", torch.zeros(0, config.text_width), persistent=False)

    def forward(self, items_BL: Tensor) -> Tensor:
        """[B, L, D]; of what stands for no item, 0."""
        known_BL1 = (items_BL < len(self.texts_IT)).unsqueeze(-1)
        read_BLT = self.texts_IT[items_BL.clamp(max=len(self.texts_IT) - 1)]
        vectors_BLD: Tensor = self.adaptor(self.dropout(read_BLT)) * known_BL1
        return vectors_BLD

    def all(self) -> Tensor:
        """[I, D]"""
        vectors_ID: Tensor = self.adaptor(self.dropout(self.texts_IT))
        return vectors_ID


class TextSasrec(Sasrec):
    """The network. It reads and ranks the items of the catalogue that `take_catalogue` gave it last."""

    config: TextSasrecConfig

    def __init__(self, config: TextSasrecConfig) -> None:
        super().__init__(config)

    def _new_items(self, config: SasrecConfig) -> _TextItems:
        assert isinstance(config, TextSasrecConfig)
        return _TextItems(config)

    def take_catalogue(self, vectors_IT: Floats32) -> None:
        """Know these items, by the vectors of their texts, not yet whitened."""
        self.items.texts_IT = torch.from_numpy(whitened(vectors_IT)).to(self.device)

    @property
    def no_item(self) -> int:
        return len(self.items.texts_IT)

    def item_vectors(self) -> Tensor:
        """[I, D], each of length 1."""
        return F.normalize(self.items.all(), dim=1)

    def forward(self, items_BL: Tensor) -> Tensor:
        """As a SASRec's, each of length 1 by the temperature."""
        return F.normalize(super().forward(items_BL), dim=2) / _TEMPERATURE


def whitened(vectors_IT: Floats32) -> Floats32:
    """[I, T] the vectors less their mean, spread alike in all directions: their covariance is about the identity.

    Of the matrices that do so, the symmetric one (ZCA): it turns the axes no more than it must, so that they mean the
    same in all catalogues. Directions in which the vectors hardly differ are not blown up.
    """
    centred_IT = vectors_IT.astype(np.float64) - vectors_IT.mean(axis=0, dtype=np.float64)
    values_T, axes_TT = np.linalg.eigh(centred_IT.T @ centred_IT / max(1, len(centred_IT)))
    least = _LEAST_SPREAD * max(float(values_T.mean()), _TINY)
    found: Floats32 = (centred_IT @ (axes_TT / np.sqrt(values_T.clip(0) + least)) @ axes_TT.T).astype(np.float32)
    return found


def new_text_sasrec(config: TextSasrecConfig, seed: int) -> TextSasrec:
    """One with random weights, drawn from `seed` alone, and no catalogue yet."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = TextSasrec(config)
        draw_weights(model)
    return model


def save_text_sasrec(model: TextSasrec, source: TextSource, folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, with what made the vectors, and `model.safetensors` into a folder; no items."""
    save_network(model, TEXT_SASREC, asdict(model.config) | {"text_vectors": asdict(source)}, folder)


def load_text_sasrec(folder: str | os.PathLike[str]) -> tuple[TextSasrec, TextSource]:
    """What `save_text_sasrec` wrote: the model, on the CPU in evaluation mode, with no catalogue yet.

    Raises:
        IdgrError: a file is missing, damaged, or does not fit the others.
    """
    config = read_config(folder, TEXT_SASREC, TextSasrecConfig)
    check_heads(config, folder)
    told = read_object(Path(folder) / CONFIG, wanted(TEXT_SASREC)).get("text_vectors")
    parts = [told.get(name) for name in ("path", "sha256")] if isinstance(told, dict) else []
    if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        what = "its text_vectors do not tell path and sha256"
        raise IdgrError(what, wanted(TEXT_SASREC), where=Path(folder) / CONFIG)
    return load_network(TextSasrec, config, folder, TEXT_SASREC), TextSource(*map(str, parts))
