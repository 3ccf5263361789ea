"""The order in which items first occur in the training sequences, which no held-out event has a part in.

Items that training never shows come last. Their order must not come from the file of items: where that was written in
the order of whole sequences, it tells which of two unseen items was bought by an earlier user, that is, held-out
events. Nor from their keys, which are numbers of that kind in some data. So it is that of a hash of key and seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence


def training_order(items: Sequence[str], sequences: Iterable[Sequence[str]], seed: int) -> tuple[list[str], int]:
    """The items by first occurrence in the training sequences, users in file order; then the unseen ones.

    Args:
        items: the keys of all items; their order plays no part.
        sequences: training sequences, oldest first. Keys that are not in `items` are passed over.

    Returns:
        The keys in order, and how many of them training shows.
    """
    known = set(items)
    seen = dict.fromkeys(item for sequence in sequences for item in sequence if item in known)
    unseen = sorted(known - seen.keys(), key=lambda item: (_hash(item, seed), item))
    return [*seen, *unseen], len(seen)


def _hash(item: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {item}".encode("utf-8", "surrogatepass")).digest()
