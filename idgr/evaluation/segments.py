"""Users by what is asked about them: how long the history is, how popular the target, what training knew of it.

Shape letters: B users.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# The lowest value of each segment after the first, which holds 0 alone.
HISTORY_LENGTHS = (1, 5, 10, 20)
TARGET_COUNTS = (1, 5, 10, 20, 50, 100)

TRANSITIONS = ("memorised", "generalised", "new")
HARDLY_KNOWN = 3  # times that a target stands in training, at most, which is new where it is not memorised


def transitions(
    last_items: Sequence[str | None],
    targets: Sequence[str],
    target_counts: Sequence[int],
    train: Iterable[Sequence[str]],
) -> list[str]:
    """What a right answer takes: to remember a step that training has shown, or to see one that it has not.

    A target is `memorised` where some training sequence has it right after the history's last item; `generalised` where
    none has, but it stands in training more than `HARDLY_KNOWN` times; `new` otherwise. The idea is that of Ding et al.
    (2026, "How Well Does Generative Recommendation Generalize?", arXiv 2603.19809), who tell memorised from generalised
    steps; the boundaries here are not theirs.

    Args:
        last_items: [B], the newest item of each history, None where that is empty.
        targets, target_counts: [B], and how often they stand in the training sequences.
        train: the training sequences, each oldest first.

    Returns:
        [B], one of `TRANSITIONS` each.
    """
    asked = set(zip(last_items, targets, strict=True))
    shown = {pair for sequence in train for pair in pairwise(sequence) if pair in asked}
    memorised, generalised, new = TRANSITIONS
    return [
        memorised if (last, target) in shown else generalised if count > HARDLY_KNOWN else new
        for last, target, count in zip(last_items, targets, target_counts, strict=True)
    ]


def segments(
    history_lengths: Sequence[int], target_counts: Sequence[int], transition: Sequence[str] | None = None
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Ways to divide the users, each user in one segment of each.

    Args:
        history_lengths: [B], items in the history.
        target_counts: [B], how often the target stands in the training sequences.
        transition: [B], as `transitions` tells them; None to leave that division out.

    Returns:
        By division (`history_length`, `target_popularity`, `new_items`, `transition`) and by segment, [B]: who belongs
        to it. Segments without users are left out.
    """
    counts = np.asarray(target_counts, dtype=np.int64)
    new = {"new": counts == 0, "seen": counts > 0}
    divisions = {
        "history_length": _intervals(np.asarray(history_lengths, dtype=np.int64), HISTORY_LENGTHS),
        "target_popularity": _intervals(counts, TARGET_COUNTS),
        "new_items": {name: members for name, members in new.items() if members.any()},
    }
    if transition is not None:
        told = np.asarray(transition)
        divisions["transition"] = {name: told == name for name in TRANSITIONS if (told == name).any()}
    return divisions


def _intervals(values: NDArray[np.int64], edges: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    names = ["0", *(f"{low}-{high - 1}" for low, high in pairwise(edges)), f"{edges[-1]}+"]
    place = np.searchsorted(np.asarray(edges), values, side="right")
    return {name: place == i for i, name in enumerate(names) if (place == i).any()}
