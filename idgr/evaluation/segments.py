"""Users by what is asked about them: how long the history is, how popular the target, whether training knew it.

Shape letters: B users.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# The lowest value of each segment after the first, which holds 0 alone.
HISTORY_LENGTHS = (1, 5, 10, 20)
TARGET_COUNTS = (1, 5, 10, 20, 50, 100)


def segments(history_lengths: Sequence[int], target_counts: Sequence[int]) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Three ways to divide the users, each user in one segment of each.

    Args:
        history_lengths: [B], items in the history.
        target_counts: [B], how often the target stands in the training sequences.

    Returns:
        By division (`history_length`, `target_popularity`, `new_items`) and by segment, [B]: who belongs to it.
        Segments without users are left out.
    """
    counts = np.asarray(target_counts, dtype=np.int64)
    new = {"new": counts == 0, "seen": counts > 0}
    return {
        "history_length": _intervals(np.asarray(history_lengths, dtype=np.int64), HISTORY_LENGTHS),
        "target_popularity": _intervals(counts, TARGET_COUNTS),
        "new_items": {name: members for name, members in new.items() if members.any()},
    }


def _intervals(values: NDArray[np.int64], edges: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    names = ["0", *(f"{low}-{high - 1}" for low, high in pairwise(edges)), f"{edges[-1]}+"]
    place = np.searchsorted(np.asarray(edges), values, side="right")
    return {name: place == i for i, name in enumerate(names) if (place == i).any()}
