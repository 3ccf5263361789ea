"""The vectors of a catalogue's texts, for a SASRec that knows items by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from idgr.errors import IdgrError
from idgr.formats.inputs import hash_input
from idgr.formats.records import read_items

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from idgr.models.text_sasrec import TextSasrec, TextSource


def read_catalogue_texts(items: str, encoder: str) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The keys of the items of `items.jsonl`, and the vectors of their texts; of no text, that of the key.

    Raises:
        IdgrError: the file or the encoder's folder is not what it should be.
    """
    from idgr.ids.schemes.text_vectors import text_vectors

    found = read_items(items)
    return [item.item_id for item in found], text_vectors(
        [item.text or item.item_id.lower() for item in found], encoder
    )


def text_source(encoder: str) -> TextSource:
    """The encoder as a trained model's folder tells of it. Raises `IdgrError` where there is no such folder."""
    from idgr.models.text_sasrec import TextSource

    if not Path(encoder).is_dir():
        raise IdgrError("there is no such folder", "give --text-vectors a local model folder", where=encoder)
    return TextSource(str(Path(encoder).resolve()), str(hash_input(encoder)["sha256"]))


def load_for_catalogue(rec: str, items: str, encoder: str | None) -> tuple[TextSasrec, list[str]]:
    """A saved SASRec of texts that knows the items of `items.jsonl`, and their keys.

    Args:
        encoder: the folder of the model that made its vectors, where that has moved.

    Raises:
        IdgrError: a folder is damaged, or the encoder is not the one that it was trained with.
    """
    from idgr.models.text_sasrec import load_text_sasrec

    model, source = load_text_sasrec(rec)
    folder = encoder or source.path
    if not Path(folder).is_dir():
        what = f"its texts were read by a model in {folder}, which is not there"
        raise IdgrError(what, "tell where that is with --text-vectors", where=rec)
    if hash_input(folder)["sha256"] != source.sha256:
        what = f"was not trained with the vectors of {folder}, or that has changed"
        raise IdgrError(what, "give --text-vectors the folder that it was trained with", where=rec)
    keys, vectors_IT = read_catalogue_texts(items, folder)
    if vectors_IT.shape[1] != model.config.text_width:
        what = f"reads vectors of {model.config.text_width} numbers, not {vectors_IT.shape[1]}"
        raise IdgrError(what, "give a folder that `idgr train-sasrec` wrote", where=rec)
    model.take_catalogue(vectors_IT)
    return model, keys
