"""Figures of `stats.json`, and the detection of sequences sorted by key."""

from __future__ import annotations

import random

import pytest

from idgr.corpus.events import EventBuilder
from idgr.corpus.ordering import Histories, histories
from idgr.corpus.splitting import leave_one_out
from idgr.corpus.statistics import ascending_share, describe, is_sorted_by_key


def whole_of(sequences: list[list[str]]) -> Histories:
    builder = EventBuilder("x")
    for user, items in enumerate(sequences):
        builder.add([f"u{user}"] * len(items), items, list(range(len(items))), [1] * len(items))
    return histories(builder.events(scale=False, timed=False, sequences=True))


def refused(sequences: list[list[str]]) -> bool:
    return is_sorted_by_key(*ascending_share(whole_of(sequences)))


def test_the_figures_of_a_small_set() -> None:
    stats = describe(leave_one_out(whole_of([["a", "b", "c"], ["a", "c", "b", "d", "a"], ["b", "e"]])))
    assert stats == {
        "users": 3,
        "items": 5,
        "interactions": 10,
        "density": pytest.approx(10 / 15),
        "sequence_length": {"min": 2, "mean": pytest.approx(10 / 3), "median": 3.0, "max": 5},
        "mean_item_frequency": 2.0,
        "train": {"users": 3, "interactions": 6},  # a; a c b; b e
        "valid": {"users": 2, "unseen": 0.5, "in_history": 0},  # b, d
        "test": {"users": 2, "unseen": 0.0, "in_history": 1},  # c, a
    }


def random_sequences(keys: list[str], n_users: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.sample(keys, rng.randint(4, 9)) for _ in range(n_users)]


def test_random_order_passes_and_sorted_order_does_not() -> None:
    for keys in ([f"B{n * 7919 % 10_000:05d}" for n in range(80)], [str(n) for n in range(80)]):
        sequences = random_sequences(keys, 60, seed=1)
        share, users = ascending_share(whole_of(sequences))
        assert share < 0.1
        assert users == 60
        assert refused([sorted(items) for items in sequences])
        assert refused([sorted(items, key=int) if keys[0].isdigit() else sorted(items) for items in sequences])


def test_half_sorted_users_are_below_the_line_and_most_are_above() -> None:
    sequences = random_sequences([f"k{n:03d}" for n in range(100)], 100, seed=2)
    assert not refused([sorted(items) if n < 45 else items for n, items in enumerate(sequences)])
    assert refused([sorted(items) if n < 60 else items for n, items in enumerate(sequences)])


@pytest.mark.parametrize("width", [0, 4])
def test_keys_numbered_by_first_appearance_pass(width: int) -> None:
    # Few users and many items: nearly every item is new, so new numbers ascend within nearly every user.
    for n_keys in (60, 300, 3_000):
        sequences = random_sequences([str(n) for n in range(n_keys)], 60, seed=3)
        number: dict[str, str] = {}
        renamed = [[number.setdefault(key, f"o{len(number):0{width}d}") for key in items] for items in sequences]
        assert not refused(renamed), n_keys


def test_sorted_order_is_found_through_repeats_and_in_short_catalogues() -> None:
    rng = random.Random(4)
    keys = [f"k{n}" for n in range(8)]
    assert refused([sorted(rng.choices(keys, k=12)) for _ in range(40)])


def test_a_handful_of_users_says_nothing() -> None:
    assert not refused([["a", "b", "c", "d"]] * 5)
    assert not refused([["a", "b", "c"]] * 50)


def test_huge_numbers_as_keys_are_no_trouble() -> None:
    assert ascending_share(whole_of([["9" * 5_000, "1", "2", "3"]]))[1] == 1
