"""`idgr ids diff`: the changes, in order, beside the texts."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId
from idgr.ids.diff import Change, changed_share, id_changes

BEFORE = [ItemId("a", "red tent"), ItemId("b", "blue tent"), ItemId("c", "a [bold] stove"), ItemId("gone", "old")]
AFTER = [ItemId("c", "camp stove"), ItemId("a", "red tent"), ItemId("b", "tent in blue"), ItemId("new", "lamp")]


def test_changes_follow_the_later_file_then_name_what_is_gone() -> None:
    assert id_changes(BEFORE, AFTER) == [
        Change("c", "a [bold] stove", "camp stove"),
        Change("b", "blue tent", "tent in blue"),
        Change("new", None, "lamp"),
        Change("gone", "old", None),
    ]
    assert [change.of_both for change in id_changes(BEFORE, AFTER)] == [True, True, False, False]
    assert changed_share(BEFORE, AFTER) == pytest.approx(2 / 3)  # of a, b and c
    assert changed_share(BEFORE[3:], AFTER) == 0.0
    assert changed_share(BEFORE, BEFORE) == 0.0


def test_command_writes_rows_with_texts_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, ids in (("before", BEFORE), ("after", AFTER)):
        write_jsonl(tmp_path / f"{name}.jsonl", (record.row() for record in ids))
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": key, "text": f"title: {key}"} for key in "abc"))
    arguments = [
        str(tmp_path / "before.jsonl"),
        str(tmp_path / "after.jsonl"),
        "--items",
        str(tmp_path / "items.jsonl"),
    ]

    assert run(["ids", "diff", *arguments, "-o", str(tmp_path / "diff.jsonl")]) == 0
    rows = [orjson.loads(line) for line in (tmp_path / "diff.jsonl").read_bytes().splitlines()]
    assert rows[0] == {"item_id": "c", "before": "a [bold] stove", "after": "camp stove", "text": "title: c"}
    assert [row["item_id"] for row in rows] == ["c", "b", "new", "gone"]
    assert rows[2]["text"] is None
    shown = capsys.readouterr().err
    assert "a [bold] stove" in shown
    assert "4 of 4 differences" in shown
    told = f"2 changes, 66.7% of 3 items that both files have; 1 items only in {arguments[1]}, 1 only in {arguments[0]}"
    assert shown.endswith(f"ids diff: {told}\n")
