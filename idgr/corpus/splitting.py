"""What is learnt from and what is held out: leave-one-out, or by date.

Both splits cut each user's history at places; what a place holds out, and anything after it, never enters training.
Legend: E events, U users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from idgr.corpus.ordering import Histories
from idgr.corpus.times import Int64s
from idgr.formats.records import Query, Sequence

NONE = -1


@dataclass(frozen=True)
class Split:
    """Every user's history, and where it is cut.

    Attributes:
        histories: all events.
        train_end: [U] so many of the user's oldest events are for training.
        valid_at: [U] the place of the validation target in the user's history; all before it is its history. -1: none.
        test_at: [U] the same of the test target.
    """

    histories: Histories
    train_end: Int64s
    valid_at: Int64s
    test_at: Int64s

    def train(self) -> Iterator[Sequence]:
        """The lines of `train.jsonl`."""
        for user, items in self._users():
            if end := int(self.train_end[user]):
                yield Sequence(self.histories.users[user], items[:end])

    def valid(self) -> Iterator[Query]:
        """The lines of `valid.jsonl`."""
        return self._queries(self.valid_at)

    def test(self) -> Iterator[Query]:
        """The lines of `test.jsonl`."""
        return self._queries(self.test_at)

    def _queries(self, places: Int64s) -> Iterator[Query]:
        for user, items in self._users():
            if (place := int(places[user])) != NONE:
                yield Query(self.histories.users[user], items[:place], items[place])

    def _users(self) -> Iterator[tuple[int, list[str]]]:
        h = self.histories
        for user in range(len(h.users)):
            yield user, [h.items[item] for item in h.item[h.start[user] : h.start[user + 1]].tolist()]


def leave_one_out(histories: Histories) -> Split:
    """The last item of each user for test, the one before for validation, the others for training.

    A user with fewer than three items has nothing held out: all are for training.
    """
    lengths = np.diff(histories.start)
    long = lengths >= 3
    return Split(
        histories,
        train_end=np.where(long, lengths - 2, lengths),
        valid_at=np.where(long, lengths - 2, NONE),
        test_at=np.where(long, lengths - 1, NONE),
    )


def by_date(histories: Histories, valid_from: int, test_from: int) -> Split:
    """What happened before `valid_from` for training; the first event of each later span is its target.

    The validation target is a user's first event at or after `valid_from` and before `test_from`, the test target the
    first one at or after `test_from`. The history of a target is all that the user did before it, so the history of a
    test target holds what happened in the validation span. A user without a history before the target has no target
    there; later events of a span are not used.

    Args:
        valid_from: microseconds since 1970.
        test_from: the same, later.
    """
    lengths = np.diff(histories.start)
    users = histories.user
    before_valid = np.bincount(users[histories.time < valid_from], minlength=len(lengths))
    before_test = np.bincount(users[histories.time < test_from], minlength=len(lengths))
    return Split(
        histories,
        train_end=before_valid,
        valid_at=np.where((before_valid > 0) & (before_valid < before_test), before_valid, NONE),
        test_at=np.where((before_test > 0) & (before_test < lengths), before_test, NONE),
    )
