"""Events of equal time: whether they stand in order of item key, counted and judged."""

from __future__ import annotations

import random
from itertools import groupby, product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.events import from_rows
from idgr.corpus.ordering import Histories, histories
from idgr.corpus.ties import tail, tie_order

rows_of_events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=40, unique=True
)


def histories_of(rows: list[tuple[object, object, int]]) -> Histories:
    return histories(from_rows("x", [{"user_id": str(u), "item_id": str(i), "timestamp": t} for u, i, t in rows]))


def tied(n_users: int, groups: int, size: int, keys: list[str], order: str, share: float = 1.0) -> Histories:
    """Users with so many groups of equal time; in a share of them the items are in `order`."""
    rng = random.Random(0)
    rows: list[tuple[object, object, int]] = []
    for user in range(n_users):
        for group in range(groups):
            items = rng.sample(keys, size)
            if rng.random() < share and order != "none":
                items.sort(key=int if keys[0].isdigit() else str, reverse=order == "down")
            rows += [(f"u{user}", item, group) for item in items]
    return histories_of(rows)


@settings(derandomize=True, deadline=None)
@given(rows_of_events)
def test_the_groups_are_those_of_a_plain_count(rows: list[tuple[int, int, int]]) -> None:
    found = tie_order(histories_of(list(rows)))
    ordered = sorted(rows, key=lambda row: (row[0], row[2]))  # stable, as the file
    groups = [[item for _, item, _ in group] for _, group in groupby(ordered, key=lambda row: (row[0], row[2]))]
    groups = [group for group in groups if len(group) > 1]
    counts = []
    for order in (str, int):
        keys = [[order(item) for item in group] for group in groups]
        counts.append((sum(k == sorted(k) for k in keys), sum(k == sorted(k, reverse=True) for k in keys)))
    assert found.groups == len(groups)
    assert (found.ascending, found.descending) in counts
    assert max(found.ascending, found.descending) == max(max(count) for count in counts)
    assert 0 < found.p <= 1


@settings(derandomize=True, deadline=None)
@given(st.lists(st.sampled_from([1 / 2, 1 / 6, 1 / 24]), min_size=1, max_size=10), st.data())
def test_the_bound_is_above_the_probability_and_near_it(chances: list[float], data: st.DataObject) -> None:
    observed = data.draw(st.integers(0, len(chances)))
    exact = sum(
        prod(chance if hit else 1 - chance for chance, hit in zip(chances, hits, strict=True))
        for hits in product([True, False], repeat=len(chances))
        if sum(hits) >= observed
    )
    bound = tail([(1, chance) for chance in chances], observed)
    assert exact <= bound * (1 + 1e-9)
    assert bound <= 1
    if observed == len(chances):
        assert bound == pytest.approx(exact)


@pytest.mark.parametrize("order", ["up", "down"])
@pytest.mark.parametrize("keys", [[str(n) for n in range(200)], [f"B{n:04d}" for n in range(200)]])
@pytest.mark.parametrize(("users", "groups", "size"), [(60, 4, 3), (12, 1, 2), (3, 2, 4), (1, 1, 30)])
def test_order_of_key_is_found_in_few_groups(order: str, keys: list[str], users: int, groups: int, size: int) -> None:
    found = tie_order(tied(users, groups, size, keys, order))
    assert found.by_key
    assert (found.ascending if order == "up" else found.descending) == users * groups
    assert ("ascend" if order == "up" else "descend") in found.told()


@pytest.mark.parametrize("size", [2, 3, 7])
def test_order_of_no_key_is_not_taken_for_one(size: int) -> None:
    keys = [str(n) for n in range(500)]
    assert not tie_order(tied(300, 4, size, keys, "none")).by_key
    assert not tie_order(tied(3, 1, 2, keys, "up")).by_key, "three pairs ascend by chance"


def test_a_tenth_in_order_of_key_is_found_among_many() -> None:
    keys = [str(n) for n in range(500)]
    assert tie_order(tied(400, 4, 3, keys, "up", share=0.1)).by_key


def test_without_ties_there_is_nothing_to_tell() -> None:
    found = tie_order(histories_of([("u", "a", 1), ("u", "b", 2), ("v", "c", 2)]))
    assert (found.groups, found.by_key) == (0, False)
