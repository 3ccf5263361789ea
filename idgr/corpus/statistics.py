"""What `stats.json` says of a prepared data set, and whether its sequences are in order of item key.

Legend: E events, U users, I items.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from idgr.corpus.ordering import BLOCK, Histories
from idgr.corpus.splitting import NONE, Split
from idgr.corpus.times import Int32s, Int64s

# A user with d distinct items has them in ascending order by chance in 1 of d! cases, so 1 of 24 at the most. Of the
# four data sets that idgr is measured on, at most 14 % of such users do (Beauty, where many events of a day are tied
# and the published order falls back on the key), and all do where a file is sorted by item.
MIN_DISTINCT = 4
MAX_ASCENDING = 0.5
MIN_USERS = 10


def describe(split: Split) -> dict[str, Any]:
    """The columns of the paper's Table 3, sequence lengths, and what of the held-out items training has not seen.

    `density` is interactions / (users × items); `mean_item_frequency` interactions / items; `unseen` the share of
    targets that occur nowhere in training; `in_history` the number of targets that stand in their own history.
    """
    h = split.histories
    lengths = np.diff(h.start)
    seen = np.zeros(len(h.items), dtype=bool)
    for users in h.blocks():
        events = h.events_of(users)
        train_end = np.repeat(h.start[users] + split.train_end[users], lengths[users])
        seen[h.item[events][np.arange(events.start, events.stop) < train_end]] = True
    return {
        "users": len(h.users),
        "items": len(h.items),
        "interactions": len(h),
        "density": len(h) / (len(h.users) * len(h.items)),
        "sequence_length": {
            "min": int(lengths.min()),
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "mean_item_frequency": len(h) / len(h.items),
        "train": {"users": int((split.train_end > 0).sum()), "interactions": int(split.train_end.sum())},
        "valid": _targets(h, split.valid_at, seen),
        "test": _targets(h, split.test_at, seen),
    }


def _targets(h: Histories, places: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    held_out = places != NONE
    targets = h.item[h.start[:-1][held_out] + places[held_out]]
    unseen = float(1 - seen[targets].mean()) if len(targets) else None
    return {"users": len(targets), "unseen": unseen, "in_history": _repeats(h, places)}


def _repeats(h: Histories, places: npt.NDArray[np.int64]) -> int:
    """How many targets the user had before, which a ranking that leaves the history out never hits."""
    lengths, found = np.diff(h.start), 0
    for users in h.blocks():
        events, held_out = h.events_of(users), places[users] != NONE
        at = np.where(held_out, h.start[users] + places[users], 0)  # users without a target have no place before it
        before = np.arange(events.start, events.stop) < np.repeat(at, lengths[users])
        same = before & (h.item[events] == np.repeat(h.item[at], lengths[users]))
        user = np.repeat(np.arange(len(at)), lengths[users])
        found += int((np.bincount(user[same], minlength=1) > 0).sum())
    return found


def ascending_share(histories: Histories) -> tuple[float, int]:
    """The share of users whose items stand in ascending order of item key, and of how many users it is the share.

    Counted are users with at least `MIN_DISTINCT` distinct items; where an item is repeated its first place counts.
    The order of keys is that of their characters or, where all are one prefix and a number, that of the numbers, if
    that gives the greater share. Where keys were numbered in order of first appearance (`i0`, `i1`, …) new items ascend
    by construction; an item's first occurrence in the data is then left out.
    """
    ranks = key_ranks(histories.items)
    return max((_ascending(histories, rank) for rank in ranks), key=lambda share_of: share_of[0])


def is_sorted_by_key(share: float, n_users: int) -> bool:
    """Whether a share given by `ascending_share` says that sequences are sorted by key instead of by time."""
    return n_users >= MIN_USERS and share > MAX_ASCENDING


def key_ranks(items: list[str]) -> list[npt.NDArray[np.int64]]:
    """[I] the place of each item in each order of keys that makes sense for them."""
    orders = [sorted(range(len(items)), key=items.__getitem__)]
    parts = [re.fullmatch(r"(\D*)(\d+)", item, re.ASCII) for item in items]
    numbers = [int(part[2]) for part in parts if part is not None and len(part[2]) <= 4000]
    if len(numbers) == len(items) and len({part[1] for part in parts if part is not None}) == 1:
        orders.append(sorted(range(len(items)), key=numbers.__getitem__))
    ranks = []
    for order in orders:
        rank = np.empty(len(items), dtype=np.int64)
        rank[order] = np.arange(len(items))
        ranks.append(rank)
    return ranks


def _ascending(h: Histories, rank: npt.NDArray[np.int64]) -> tuple[float, int]:
    user, item = _first_takes(h)
    births = _births(item, len(h.items))
    new_user = user[births[1:]] != user[births[:-1]]
    # Between users, a first occurrence ascends every time if keys are numbered by appearance, else half of the time.
    between = (rank[item[births[1:]]] > rank[item[births[:-1]]])[new_user]
    if len(between) and between.mean() > 0.9:
        old = np.ones(len(item), dtype=bool)
        old[births] = False
        user, item = user[old], item[old]

    distinct = np.bincount(user, minlength=len(h.users))
    ascending = np.ones(len(h.users), dtype=bool)
    for begin in range(1, len(user), BLOCK):
        now, before = slice(begin, begin + BLOCK), slice(begin - 1, min(begin - 1 + BLOCK, len(user) - 1))
        down = (user[now] == user[before]) & (rank[item[now]] < rank[item[before]])
        ascending[user[now][down]] = False
    counted = distinct >= MIN_DISTINCT
    return (float(ascending[counted].mean()), int(counted.sum())) if counted.any() else (0.0, 0)


def _first_takes(h: Histories) -> tuple[Int32s, Int32s]:
    """Users and items of the events that are a user's first on an item, in the order of the histories."""
    lengths = np.diff(h.start)
    users, items = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for some in h.blocks():
        user = np.repeat(np.arange(some.start, some.stop), lengths[some])
        item = h.item[h.events_of(some)]
        _, firsts = np.unique(user * len(h.items) + item, return_index=True)
        firsts.sort()
        users.append(user[firsts].astype(np.int32))
        items.append(item[firsts])
    return np.concatenate(users), np.concatenate(items)


def _births(item: Int32s, n_items: int) -> Int64s:
    """The places where an item stands for the first time, in their order."""
    first = np.full(n_items, NONE, dtype=np.int64)
    for begin in range((len(item) - 1) // BLOCK * BLOCK, -1, -BLOCK):
        place = np.arange(begin, min(begin + BLOCK, len(item)))
        first[item[place[::-1]]] = place[::-1]  # of an item's places the last one that is written counts
    return np.sort(first[first != NONE])
