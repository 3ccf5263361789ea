"""k-core against a naive one."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.events import from_rows
from idgr.corpus.filtering import in_window, k_core, of_items


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=80), st.integers(1, 5))
def test_k_core_is_the_naive_one(pairs: list[tuple[int, int]], k: int) -> None:
    alive = list(range(len(pairs)))
    while True:
        users = Counter(pairs[place][0] for place in alive)
        items = Counter(pairs[place][1] for place in alive)
        bad = [place for place in alive if users[pairs[place][0]] < k or items[pairs[place][1]] < k]
        if not bad:
            break
        alive.remove(bad[0])  # one at a time: the result must not depend on the order
    columns = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    assert np.flatnonzero(k_core(columns[:, 0], columns[:, 1], k)[0]).tolist() == alive


def test_k_core_needs_as_many_passes_as_it_takes() -> None:
    # A chain u0 i0 u1 i1 … u499: u0 has one event, so it goes, so i0 has one, so it goes, and so on.
    user = np.repeat(np.arange(500), 2)[1:].astype(np.int32)
    item = np.repeat(np.arange(500), 2)[:-1].astype(np.int32)
    assert not k_core(user, item, 2)[0].any()
    item[-1] = 0  # closed to a ring of i0 u1 … i0, nothing is left to begin with but u0
    assert k_core(user, item, 2)[0].tolist() == [False] + [True] * 998


def test_a_window_is_closed_below_and_open_above() -> None:
    time = np.array([1, 2, 3, 4])
    assert in_window(time, 2, 4).tolist() == [False, True, True, False]
    assert in_window(time, None, None).all()


def test_events_of_items() -> None:
    events = from_rows("x", [{"user_id": "u", "item_id": item, "timestamp": 0} for item in "abca"])
    assert of_items(events, {"a", "z"}).tolist() == [True, False, False, True]
