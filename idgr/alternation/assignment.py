"""Which items get another ID: those that gain most by it, some at a time, no ID twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from idgr.ids.spelling import fold

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reassigned:
    """An item that gets the candidate of a number, and by how many nats an epoch costs less by the estimate."""

    item: int
    candidate: int
    gain: float


def reassign(
    keys: Sequence[str],
    current: Sequence[str],
    candidates: Sequence[Sequence[str]],
    gains: Sequence[Floats],
    *,
    switching_cost: float,
    most: int,
) -> list[Reassigned]:
    """The items whose best free candidate gains more than `switching_cost`, best gains first, at most `most`.

    An ID that an item has, or had before this, is not free: in the epoch after it, both of an item's names are in use.
    Equal gains go by the items' keys, then by the order of the candidates.

    Args:
        keys, current: the items' keys and IDs.
        candidates: other IDs for each item, with the gain of each.
    """
    offers = [
        (-float(gain), keys[item], place, item)
        for item, mine in enumerate(gains)
        for place, gain in enumerate(mine)
        if gain > switching_cost
    ]
    chosen = _take(sorted(offers), current, candidates, most)
    return [Reassigned(item, place, float(gains[item][place])) for item, place in chosen]


def reassign_at_random(
    keys: Sequence[str],
    current: Sequence[str],
    candidates: Sequence[Sequence[str]],
    gains: Sequence[Floats],
    *,
    n: int,
    seed: int,
) -> list[Reassigned]:
    """A control: as many items as `n`, drawn with their candidates from all that are free."""

    def drawn(key: str, place: int) -> bytes:
        return hashlib.sha256(f"{seed} {place} {key}".encode()).digest()

    offers = [
        (drawn(keys[item], place), keys[item], place, item)
        for item, mine in enumerate(candidates)
        for place in range(len(mine))
    ]
    chosen = _take(sorted(offers), current, candidates, n)
    return [Reassigned(item, place, float(gains[item][place])) for item, place in chosen]


def _take(
    offers: Sequence[tuple[object, str, int, int]],
    current: Sequence[str],
    candidates: Sequence[Sequence[str]],
    most: int,
) -> list[tuple[int, int]]:
    """Items with the numbers of their candidates, in the order of the offers."""
    used = set(map(fold, current))
    found: dict[int, int] = {}
    for _, _, place, item in offers:
        if len(found) >= most:
            break
        name = fold(candidates[item][place])
        if item not in found and name not in used:
            used.add(name)
            found[item] = place
    return list(found.items())
