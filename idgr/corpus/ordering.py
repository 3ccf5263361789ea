"""Events put in order of time: each user's sequence, oldest first.

Legend: E events, U users, I items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from idgr.corpus.events import Bools, Events
from idgr.corpus.times import Int32s, Int64s

BLOCK = 1 << 20  # events that are looked at once where several numbers of each are needed, so that memory holds few
_GROUPED = 0.8  # of the events that could have an event of the same item before them


@dataclass(frozen=True)
class Histories:
    """Every user's items, oldest first, one user after the other.

    Attributes:
        users: [U] keys, in order of first appearance in the events.
        items: [I] keys.
        start: [U + 1] the events of user u are start[u] to start[u + 1] - 1.
        item: [E] codes of the items.
        time: [E] microseconds since 1970, or the place in the sequence where the events have no time.
    """

    users: list[str]
    items: list[str]
    start: Int64s
    item: Int32s
    time: Int64s

    def __len__(self) -> int:
        return len(self.item)

    @property
    def user(self) -> Int32s:
        """[E] the user of each event."""
        return np.repeat(np.arange(len(self.users), dtype=np.int32), np.diff(self.start))

    def blocks(self) -> Iterator[slice]:
        """The users in runs that have `BLOCK` events together, or one user who has more."""
        begin = 0
        while begin < len(self.users):
            end = int(np.searchsorted(self.start, self.start[begin] + BLOCK, side="right")) - 1
            yield slice(begin, end := max(end, begin + 1))
            begin = end

    def events_of(self, users: slice) -> slice:
        """Where the events of a run of users stand."""
        return slice(int(self.start[users.start]), int(self.start[users.stop]))


def is_grouped_by_item(events: Events) -> bool:
    """Whether the events of an item stand together in the file, as in Amazon's dumps, but for a few.

    The order of the lines then tells nothing of the order in time; it is an order of items, the same for every user.
    Few events of an item stand apart where two such dumps were joined. Neighbours of one user are not counted there:
    who takes an item again and again does so in an order of time.
    """
    if events.sequences or len(events) <= len(events.items):
        return False
    neighbours = events.item[1:] == events.item[:-1]
    if len(events) - int(np.count_nonzero(neighbours)) == len(events.items):
        return True
    others = int(np.count_nonzero(neighbours & (events.user[1:] != events.user[:-1])))
    own = int(np.count_nonzero(neighbours)) - others
    return others > _GROUPED * (len(events) - own - len(events.items))


def drop_repeats(events: Events, repeats: str) -> Events:
    """Leave out what a user took again.

    Args:
        repeats: "keep" leaves out only exact duplicates, which have the user, item and time of an earlier event;
            "first" leaves out every event of a user on an item but the oldest. Without times nothing is a duplicate.
    """
    if repeats == "keep" and not events.timed:
        return events
    order = np.lexsort((events.time, events.item, events.user))  # stable: of equal times the earlier line is first
    kept = np.ones(len(events), dtype=bool)
    for begin in range(1, len(events), BLOCK):
        one, other = order[begin - 1 : begin - 1 + BLOCK], order[begin : begin + BLOCK]
        one = one[: len(other)]
        again = (events.user[one] == events.user[other]) & (events.item[one] == events.item[other])
        if repeats == "keep":
            again &= events.time[one] == events.time[other]
        kept[other[again]] = False
    return events if kept.all() else events.keep(kept)


def histories(events: Events, *, shuffle_ties: bool = False, seed: int = 0) -> Histories:
    """Order each user's events by time, and number anew the users and items that have events.

    Args:
        shuffle_ties: put a user's events of equal time in a seeded random order instead of that of the file.
    """
    users, user = _compact(events.user, events.users)
    items, item = _compact(events.item, events.items)
    if shuffle_ties:
        ties = np.random.default_rng([seed, 0]).permutation(len(events)).astype(np.int32)
        order = np.lexsort((ties, events.time, user))
    else:
        order = np.lexsort((events.time, user))  # stable: ties keep the order of the file
    start = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    return Histories(users, items, start, item[order], events.time[order])


def tied_share(histories: Histories) -> float:
    """The share of events that have the time of the same user's event before them."""
    if len(histories) < 2:
        return 0.0
    user = histories.user
    tied = (user[1:] == user[:-1]) & (histories.time[1:] == histories.time[:-1])
    return int(tied.sum()) / len(histories)


def sample_users(histories: Histories, n_users: int, seed: int) -> Histories:
    """A seeded random choice of `n_users` users, in their old order, with the items that they have."""
    if n_users >= len(histories.users):
        return histories
    chosen = np.sort(np.random.default_rng([seed, 1]).choice(len(histories.users), n_users, replace=False))
    lengths = np.diff(histories.start)
    mask: Bools = np.repeat(np.isin(np.arange(len(lengths)), chosen), lengths)
    items, item = _compact(histories.item[mask], histories.items)
    start = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
    return Histories([histories.users[u] for u in chosen], items, start, item, histories.time[mask])


def _compact(codes: Int32s, keys: list[str]) -> tuple[list[str], Int32s]:
    """The keys in use and the codes among these; both keep their order."""
    used = np.bincount(codes, minlength=len(keys)) > 0
    new = np.cumsum(used, dtype=np.int32) - 1
    return [keys[code] for code in np.flatnonzero(used)], new[codes].astype(np.int32)
