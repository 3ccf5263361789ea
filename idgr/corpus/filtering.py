"""Which events stay: k-core, dates, items.

Legend: E events.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from idgr.corpus.events import Bools, Events
from idgr.corpus.times import Int32s, Int64s


def k_core(user: Int32s, item: Int32s, k: int) -> tuple[Bools, int]:
    """Which events [E] remain when users and items with fewer than k events are left out until none has fewer; and in
    how many rounds.

    Events are counted, not distinct partners: a user who took one item five times has five. The result does not depend
    on the order of the passes, each of which costs time linear in the events that remain.
    """
    alive, rounds = np.arange(len(user)), 0
    while len(alive):
        users, items = user[alive], item[alive]
        enough = (np.bincount(users) >= k)[users] & (np.bincount(items) >= k)[items]
        if enough.all():
            break
        alive, rounds = alive[enough], rounds + 1
    kept = np.zeros(len(user), dtype=bool)
    kept[alive] = True
    return kept, rounds


def in_window(time: Int64s, begin: int | None, end: int | None) -> Bools:
    """Which times [E] lie at or after `begin` and before `end`."""
    inside = np.ones(len(time), dtype=bool)
    if begin is not None:
        inside &= time >= begin
    if end is not None:
        inside &= time < end
    return inside


def of_items(events: Events, wanted: Container[str]) -> Bools:
    """Which events [E] are of the items whose keys are in `wanted`."""
    good = np.fromiter((item in wanted for item in events.items), dtype=bool, count=len(events.items))
    return good[events.item]
