"""Order in time, ties, repeats, and samples of users."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.events import Events, from_rows
from idgr.corpus.ordering import Histories, drop_repeats, histories, is_grouped_by_item, sample_users, tied_share

triples = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=40)


def events_of(rows: list[tuple[object, object, int]]) -> Events:
    return from_rows("x", [{"user_id": str(u), "item_id": str(i), "timestamp": t} for u, i, t in rows])


def as_dict(whole: Histories) -> dict[str, list[str]]:
    return {
        user: [whole.items[item] for item in whole.item[whole.start[u] : whole.start[u + 1]]]
        for u, user in enumerate(whole.users)
    }


@settings(derandomize=True, deadline=None)
@given(triples)
def test_each_user_has_their_items_by_time_and_ties_in_the_order_of_the_file(rows: list[tuple[int, int, int]]) -> None:
    expected: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for place, (user, item, time) in enumerate(rows):
        expected[str(user)].append((time, place, str(item)))
    whole = histories(events_of(list(rows)))
    assert as_dict(whole) == {user: [item for *_, item in sorted(took)] for user, took in expected.items()}
    assert whole.users == list(expected)
    assert whole.items == list(dict.fromkeys(str(item) for _, item, _ in rows))
    tied = sum(a[0] == b[0] for took in expected.values() for a, b in zip(sorted(took), sorted(took)[1:], strict=False))
    assert tied_share(whole) == pytest.approx(tied / len(rows))


@settings(derandomize=True, deadline=None)
@given(triples)
def test_exact_duplicates_go_and_other_repeats_stay(rows: list[tuple[int, int, int]]) -> None:
    kept = drop_repeats(events_of(list(rows)), "keep")
    expected = [place for place, row in enumerate(rows) if row not in rows[:place]]
    assert (kept.line - 1).tolist() == expected


@settings(derandomize=True, deadline=None)
@given(triples)
def test_only_the_oldest_of_repeats_stays_if_wanted(rows: list[tuple[int, int, int]]) -> None:
    oldest: dict[tuple[int, int], tuple[int, int]] = {}
    for place, (user, item, time) in enumerate(rows):
        oldest[user, item] = min(oldest.get((user, item), (time, place)), (time, place))
    kept = drop_repeats(events_of(list(rows)), "first")
    assert (kept.line - 1).tolist() == sorted(place for _, place in oldest.values())


def test_shuffled_ties_stay_in_order_of_time_and_repeat_with_the_seed() -> None:
    rng = random.Random(0)
    rows = [(n % 5, n, rng.randrange(4)) for n in range(200)]
    plain = histories(events_of(list(rows)))
    shuffled = [histories(events_of(list(rows)), shuffle_ties=True, seed=seed) for seed in (1, 1, 2)]
    assert as_dict(shuffled[0]) == as_dict(shuffled[1])
    assert as_dict(shuffled[0]) not in (as_dict(shuffled[2]), as_dict(plain))
    assert np.array_equal(shuffled[0].time, plain.time)
    assert {user: sorted(items) for user, items in as_dict(shuffled[0]).items()} == {
        user: sorted(items) for user, items in as_dict(plain).items()
    }


def test_a_dump_grouped_by_item_is_recognised() -> None:
    by_item = [(user, item, 0) for item in "cab" for user in "uvw"]
    by_user = [(user, item, 0) for user in "uvw" for item in "cab"]
    assert is_grouped_by_item(events_of(list(by_item)))
    assert not is_grouped_by_item(events_of(list(by_user)))
    assert not is_grouped_by_item(events_of([("u", item, 0) for item in "abc"]))  # each item once tells nothing


def test_a_few_events_that_stand_apart_hide_no_grouping_by_item() -> None:
    rng = random.Random(0)

    def category(keys: range) -> list[tuple[object, object, int]]:
        return [(f"u{user}", item, 0) for item in keys for user in rng.sample(range(200), 8)]

    joined = [*category(range(40)), *category(range(35, 90)), ("u1", 3, 0)]  # five items in both, and a stray line
    assert is_grouped_by_item(events_of(joined))
    rng.shuffle(joined)
    assert not is_grouped_by_item(events_of(joined))


def test_who_takes_one_item_again_and_again_does_not_group_the_file() -> None:
    rows = [(user, (user + run) % 5, run * 10 + again) for user in range(9) for run in range(4) for again in range(10)]
    assert not is_grouped_by_item(events_of(list(rows)))


def test_a_sample_of_users_keeps_whole_histories_in_order() -> None:
    whole = histories(events_of([(n % 9, n % 13, n) for n in range(100)]))
    part = sample_users(whole, 4, seed=3)
    assert len(part.users) == 4
    assert as_dict(part) == {user: as_dict(whole)[user] for user in whole.users if user in part.users}
    assert sorted(part.items) == sorted({item for items in as_dict(part).values() for item in items})
    assert as_dict(sample_users(whole, 4, seed=3)) == as_dict(part)
    assert len({tuple(sample_users(whole, 4, seed=seed).users) for seed in range(10)}) > 1
    assert sample_users(whole, 9, seed=0) is whole
