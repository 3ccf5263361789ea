"""What each record demands of a JSON object, and what it says where that is not met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from idgr.errors import IdgrError
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import (
    Item,
    ItemId,
    Query,
    Recommendation,
    Sequence,
    ids_fingerprint,
    read_ids,
    read_items,
    read_queries,
    read_recommendations,
    read_sequences,
)


@pytest.mark.parametrize(
    "record",
    [
        Item("B1", "title: a"),
        Sequence("u", ["B1", "B2", "B1"]),
        Query("u", ["B1"], "B2"),
        Query("u", []),
        ItemId("B1", "red shoe"),
        ItemId("B1", "red shoe", 0.1, 10, 1),
        Recommendation("u", ["B1", "B2"], [-1.0, -2.5]),
    ],
)
def test_a_row_is_read_as_it_was_written(record: Any) -> None:
    assert type(record).parse(record.row() | {"unknown": {"key": 1}}) == record


def test_integer_keys_become_strings() -> None:
    assert Sequence.parse({"user_id": 7, "items": [1, "b", 2]}) == Sequence("7", ["1", "b", "2"])


def test_scores_may_be_left_out() -> None:
    assert Recommendation.parse({"user_id": "u", "items": ["a", "b"]}).scores == [0.0, -1.0]


@pytest.mark.parametrize(
    ("kind", "row", "what"),
    [
        (Item, {"item_id": "a"}, 'no "text"'),
        (Item, {"text": "a"}, 'no "item_id"'),
        (Item, {"item_id": "", "text": "a"}, '"item_id" is not'),
        (Item, {"item_id": True, "text": "a"}, '"item_id" is not'),
        (Item, {"item_id": 1.5, "text": "a"}, '"item_id" is not'),
        (Item, {"item_id": None, "text": "a"}, '"item_id" is not'),
        (Sequence, {"user_id": "u"}, '"items" is not a list'),
        (Sequence, {"user_id": "u", "items": "ab"}, '"items" is not a list'),
        (Sequence, {"user_id": "u", "items": []}, '"items" is empty'),
        (Sequence, {"user_id": "u", "items": ["a", ["b"]]}, '"items" is not a non-empty string'),
        (Query, {"user_id": "u", "history": None, "target": "a"}, '"history" is not a list'),
        (Query, {"user_id": "u", "history": [], "target": ["a"]}, '"target" is not'),
        (ItemId, {"item_id": "a", "id": "  "}, 'no "id" text'),
        (Recommendation, {"user_id": "u", "items": ["a", "a"]}, "recommended twice"),
        (Recommendation, {"user_id": "u", "items": ["a"], "scores": []}, "as long as"),
        (Recommendation, {"user_id": "u", "items": ["a"], "scores": ["1"]}, "not a number"),
        (Recommendation, {"user_id": "u", "items": ["a"], "scores": [True]}, "not a number"),
    ],
)
def test_what_is_wrong_is_told(kind: Any, row: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        kind.parse(row)


def test_doubles_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    cases: list[tuple[Any, list[dict[str, Any]], str]] = [
        (read_items, [Item("a", "x").row(), Item("a", "y").row()], "duplicate item_id 'a'"),
        (read_ids, [ItemId("a", "x").row(), ItemId("b", "x").row()], "duplicate id 'x'"),
        (read_ids, [ItemId("a", "x").row(), ItemId("a", "y").row()], "duplicate item_id 'a'"),
        (read_sequences, [Sequence("u", ["a"]).row()] * 2, "duplicate user_id 'u'"),
        (read_recommendations, [Recommendation("u", [], []).row()] * 2, "duplicate user_id 'u'"),
    ]
    for read, rows, what in cases:
        write_jsonl(path, rows)
        with pytest.raises(IdgrError, match=what) as caught:
            list(read(path))
        assert caught.value.line == 2


def test_unknown_items_and_missing_targets_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [Query("u", ["a"], "b").row(), Query("v", ["z"], "b").row()])
    assert len(list(read_queries(path))) == 2
    with pytest.raises(IdgrError, match=r"x.jsonl:2: unknown item 'z'"):
        list(read_queries(path, {"a", "b"}))
    with pytest.raises(IdgrError, match=r"x.jsonl:1: unknown item 'b'"):
        list(read_queries(path, {"a"}))
    write_jsonl(path, [Query("u", ["a"], "b").row(), Query("v", ["a"]).row()])
    with pytest.raises(IdgrError, match=r'x.jsonl:2: no "target"'):
        list(read_queries(path, need_target=True))
    write_jsonl(path, [Sequence("u", ["a", "z"]).row()])
    with pytest.raises(IdgrError, match=r"x.jsonl:1: unknown item 'z'"):
        read_sequences(path, {"a"})


def test_an_empty_file_is_refused_unless_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.touch()
    with pytest.raises(IdgrError, match="is empty"):
        list(read_queries(path))
    assert list(read_queries(path, allow_empty=True)) == []


def test_the_fingerprint_tells_ids_apart_but_not_their_order() -> None:
    ids = [ItemId("a", "red"), ItemId("b", "blue")]
    assert ids_fingerprint(ids) == ids_fingerprint(ids[::-1])
    assert ids_fingerprint(ids) == ids_fingerprint([ItemId("a", "red", 0.1, 10, 1), ids[1]])
    others = [
        [ItemId("a", "blue"), ItemId("b", "red")],
        [ItemId("a", "red")],
        [ItemId("a r", "ed"), ItemId("b", "blue")],
    ]
    assert len({ids_fingerprint(other) for other in [ids, *others]}) == 4
