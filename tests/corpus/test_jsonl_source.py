"""Events and sequences in JSON Lines, told apart by the first record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.corpus.ordering import histories
from idgr.corpus.sources.jsonl import read_events
from idgr.errors import IdgrError

Write = Callable[[str, Any], Path]


def test_events_need_not_be_in_order(write: Write) -> None:
    rows = [{"user_id": 1, "item_id": "b", "timestamp": 5}, {"user_id": 1, "item_id": "a", "timestamp": 4}]
    events = read_events(write("events.jsonl", rows))
    assert (events.timed, events.sequences) == (True, False)
    whole = histories(events)
    assert [whole.items[item] for item in whole.item] == ["a", "b"]


def test_sequences_keep_their_order_and_repeats(write: Write) -> None:
    rows = [{"user_id": "u", "items": ["b", "a", "b", "b"]}, {"user_id": "v", "items": [7]}]
    events = read_events(write("sequences.jsonl", rows))
    assert (events.timed, events.sequences, events.users, events.items) == (False, True, ["u", "v"], ["b", "a", "7"])
    assert events.item.tolist() == [0, 1, 0, 0, 2]
    assert events.line.tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    "times",
    [[30, 10, 20, 10], ["1970-01-01 00:00:30", "1970-01-01 00:00:10", "1970-01-01 00:00:20", "1970-01-01 00:00:10"]],
)
def test_sequences_with_times_are_put_in_order(write: Write, times: list[Any]) -> None:
    events = read_events(write("s.jsonl", [{"user_id": "u", "items": ["d", "a", "c", "b"], "times": times}]))
    whole = histories(events)
    assert [whole.items[item] for item in whole.item] == ["a", "b", "c", "d"]
    assert whole.time.tolist() == [10_000_000, 10_000_000, 20_000_000, 30_000_000]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"items": ["a"]}, 'no "user_id"'),
        ({"user_id": "u", "items": ["a"]}, "duplicate user_id 'u'"),
        ({"user_id": "v"}, '"items" is not a list'),
        ({"user_id": "v", "items": []}, '"items" is empty'),
        ({"user_id": "v", "items": "a"}, '"items" is not a list'),
        ({"user_id": "v", "items": ["a", None]}, '"items" is not a non-empty string'),
        ({"user_id": "v", "items": ["a"], "times": [1]}, 'some sequences have "times"'),
    ],
)
def test_a_faulty_sequence_is_named(write: Write, row: dict[str, Any], what: str) -> None:
    path = write("s.jsonl", [{"user_id": "u", "items": ["a"]}, row])
    with pytest.raises(IdgrError, match=what) as caught:
        read_events(path)
    assert (caught.value.where, caught.value.line) == (str(path), 2)


@pytest.mark.parametrize(
    ("times", "what"),
    [
        ([1], "as long as"),
        (3, "as long as"),
        ([1, None], "is not a number"),
        ([1, "2019-01-01"], "is not a number"),
        ([1, True], "is not a number"),
    ],
)
def test_faulty_times_are_named(write: Write, times: Any, what: str) -> None:
    rows = [{"user_id": "u", "items": ["a"], "times": [1]}, {"user_id": "v", "items": ["a", "b"], "times": times}]
    with pytest.raises(IdgrError, match=what) as caught:
        read_events(write("s.jsonl", rows))
    assert caught.value.line == 2


def test_what_is_neither_is_told_both_forms(write: Write) -> None:
    with pytest.raises(IdgrError, match=r's.jsonl:1: neither "item_id" \(an event\) nor "items" \(a sequence\)'):
        read_events(write("s.jsonl", [{"user_id": "u", "history": ["a"]}]))


def test_sequences_have_no_ratings(write: Write) -> None:
    with pytest.raises(IdgrError, match="sequences have no ratings; leave --min-rating out"):
        read_events(write("s.jsonl", [{"user_id": "u", "items": ["a"]}]), min_rating=3)
