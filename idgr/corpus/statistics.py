"""What `stats.json` says of a prepared data set, and whether its sequences are in order of item key.

Legend: E events, U users, I items.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from idgr.corpus.ordering import Histories
from idgr.corpus.splitting import NONE, Split

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
    place = np.arange(len(h)) - np.repeat(h.start[:-1], lengths)
    seen = np.zeros(len(h.items), dtype=bool)
    seen[h.item[place < np.repeat(split.train_end, lengths)]] = True
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
    lengths = np.diff(h.start)
    at = np.where(places != NONE, h.start[:-1] + places, 0)  # users without a target have no place before it
    before = np.arange(len(h)) < np.repeat(np.where(places != NONE, at, 0), lengths)
    same = before & (h.item == np.repeat(h.item[at], lengths))
    return int((np.bincount(h.user[same], minlength=1) > 0).sum())


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
    user, item = h.user.astype(np.int64), h.item
    _, firsts = np.unique(user * len(h.items) + item, return_index=True)
    firsts.sort()
    user, item = user[firsts], item[firsts]

    _, births = np.unique(item, return_index=True)
    births.sort()
    new_user = user[births[1:]] != user[births[:-1]]
    # Between users, a first occurrence ascends every time if keys are numbered by appearance, else half of the time.
    between = (rank[item[births[1:]]] > rank[item[births[:-1]]])[new_user]
    if len(between) and between.mean() > 0.9:
        old = np.ones(len(item), dtype=bool)
        old[births] = False
        user, item = user[old], item[old]

    distinct = np.bincount(user, minlength=len(h.users))
    down = (user[1:] == user[:-1]) & (rank[item[1:]] < rank[item[:-1]])
    ascending = np.bincount(user[1:][down], minlength=len(h.users)) == 0
    counted = distinct >= MIN_DISTINCT
    return (float(ascending[counted].mean()), int(counted.sum())) if counted.any() else (0.0, 0)
