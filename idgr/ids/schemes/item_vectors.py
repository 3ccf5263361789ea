"""A vector for each item of a saved SASRec or two-tower, from how items are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idgr.errors import IdgrError
from idgr.ids.schemes.text_vectors import Floats32, of_length_one


def item_vectors(items: Sequence[str], folder: str) -> Floats32:
    """[N, D] the vector of each item, of length 1: of such vectors the length tells popularity before all else.

    The arguments and errors are those of `trained_vectors`.
    """
    return of_length_one(trained_vectors(items, folder))


def trained_vectors(items: Sequence[str], folder: str) -> Floats32:
    """[N, D] the vector of each item as the model has it.

    Args:
        items: item keys.
        folder: what `idgr train-sasrec` or `idgr train-two-tower` wrote.

    Raises:
        IdgrError: the folder is not one, or does not know an item.
    """
    from idgr.models.item_models import read_item_vectors

    keys, vectors_ID = read_item_vectors(folder)
    place = {key: number for number, key in enumerate(keys)}
    unknown = [item for item in items if item not in place]
    if unknown:
        raise IdgrError(
            f"does not know {len(unknown):,} of {len(items):,} items, the first of them {unknown[0]!r}",
            "train it with --items and the items.jsonl that you give here",
            where=folder,
        )
    found: Floats32 = vectors_ID[np.array([place[item] for item in items])]
    return found
