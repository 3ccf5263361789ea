"""Checks of who took what in which order, on plain sequences of any origin.

Legend: U users, E events.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idgr.corpus.ordering import Histories
from idgr.corpus.statistics import MAX_ASCENDING, MIN_DISTINCT, MIN_USERS, ascending_share, is_sorted_by_key
from idgr.evaluation.audit.checks import FAIL, PASS, Check, skipped

SORTED = "sequences are not sorted by item key"


def not_sorted_by_key(sequences: Sequence[Sequence[str]], subject: object) -> Check:
    """Whether the items of a user stand in order of their keys, which no order of time does (see `ascending_share`).

    Args:
        sequences: [U] each user's items, in the order of the file.
    """
    share, n_users = ascending_share(_histories(sequences))
    if n_users < MIN_USERS:
        few = f"{n_users} users have {MIN_DISTINCT} distinct items or more; {MIN_USERS} are needed to tell"
        return skipped(SORTED, subject, few)
    told = f"{share:.1%} of {n_users:,} users have their items in ascending order of item key"
    if is_sorted_by_key(share, n_users):
        why = f"{told}, where chance gives less than 5%: a user's last item is not the newest"
        return Check(SORTED, str(subject), FAIL, why)
    return Check(SORTED, str(subject), PASS, f"{told}; above {MAX_ASCENDING:.0%} they would be sorted")


def _histories(sequences: Sequence[Sequence[str]]) -> Histories:
    codes: dict[str, int] = {}
    item = np.array([codes.setdefault(key, len(codes)) for row in sequences for key in row], dtype=np.int32)
    start = np.concatenate([[0], np.cumsum([len(row) for row in sequences])]).astype(np.int64)
    users = [str(number) for number in range(len(sequences))]
    return Histories(users, list(codes), start, item, np.arange(len(item), dtype=np.int64))
