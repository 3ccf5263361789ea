"""Several data sets as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl

Write = Callable[[str, Any], Path]
Load = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def folders(write: Write, tmp_path: Path) -> list[Path]:
    """Two prepared sets that share keys: one split leave-one-out, one by date."""
    meta = write("meta.jsonl", [{"item_id": item, "title": item} for item in "abcdef"])
    sequences = write("s.jsonl", [{"user_id": "u", "items": list("cabd")}, {"user_id": "short", "items": ["a"]}])
    events = [{"user_id": user, "item_id": item, "timestamp": t} for user in "uv" for t, item in enumerate("fabcd")]
    events.append({"user_id": "late", "item_id": "a", "timestamp": 2})
    events.append({"user_id": "late", "item_id": "b", "timestamp": 4})
    dates = ("--split", "temporal", "--valid-from", "1970-01-01T00:00:02", "--test-from", "1970-01-01T00:00:04")
    for name, source, options in (("one", sequences, ()), ("two", write("e.jsonl", events), (*dates, "--k-core", "0"))):
        assert run(["prep", "jsonl", str(source), "--meta", str(meta), "-o", str(tmp_path / name), *options]) == 0
    return [tmp_path / "one", tmp_path / "two"]


def prefixed(name: str, row: dict[str, Any]) -> dict[str, Any]:
    def put(value: Any) -> Any:
        return [f"{name}/{item}" for item in value] if isinstance(value, list) else f"{name}/{value}"

    return {key: value if key == "text" else put(value) for key, value in row.items()}


def test_each_file_is_the_sets_files_with_prefixed_keys(folders: list[Path], tmp_path: Path, load: Load) -> None:
    output = tmp_path / "fused"
    assert run(["prep", "fuse", *map(str, folders), "-o", str(output)]) == 0
    for file in ("items.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl"):
        expected = [prefixed(folder.name, row) for folder in folders for row in load(folder / file)]
        assert load(output / file) == expected
    # The late user of the second set has no training sequence, but a test target.
    assert {"user_id": "two/late", "history": ["two/a"], "target": "two/b"} in load(output / "test.jsonl")
    stats = json.loads((output / "stats.json").read_text())
    assert (stats["users"], stats["items"], stats["catalogue"], stats["fused"]) == (5, 9, 9, ["one", "two"])
    assert stats["train"]["interactions"] == sum(
        json.loads((folder / "stats.json").read_text())["train"]["interactions"] for folder in folders
    )


def test_a_drawn_choice_of_users_keeps_their_rows_and_items(folders: list[Path], tmp_path: Path, load: Load) -> None:
    """Of the first set's two users one is kept, of the second's three one; what is kept is as it was."""
    files = ("items.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl")
    command = ["prep", "fuse", *map(str, folders), "-o"]
    assert run([*command, str(tmp_path / "whole")]) == 0
    whole = {file: load(tmp_path / "whole" / file) for file in files}
    drawn = set()
    for seed in range(8):
        output = tmp_path / f"seed-{seed}"
        assert run([*command, str(output), "--max-users", "1", "--seed", str(seed)]) == 0
        rows = {file: load(output / file) for file in files}
        users = {row["user_id"] for file in files[1:] for row in rows[file]}
        assert sorted(user.split("/")[0] for user in users) == ["one", "two"]
        for file in files[1:]:
            assert rows[file] == [row for row in whole[file] if row["user_id"] in users]
        had = set()
        for file in files[1:]:
            for row in rows[file]:
                had.update(row.get("items", []), row.get("history", []), [row["target"]] if "target" in row else [])
        assert rows["items.jsonl"] == [row for row in whole["items.jsonl"] if row["item_id"] in had]
        again = tmp_path / f"again-{seed}"
        assert run([*command, str(again), "--max-users", "1", "--seed", str(seed)]) == 0
        assert [(again / file).read_bytes() for file in files] == [(output / file).read_bytes() for file in files]
        drawn.add(frozenset(users))
    assert len(drawn) > 1


def test_more_users_than_there_are_change_nothing(folders: list[Path], tmp_path: Path) -> None:
    for name, more in (("all", ()), ("bounded", ("--max-users", "3"))):
        assert run(["prep", "fuse", *map(str, folders), "-o", str(tmp_path / name), *more]) == 0
    for file in ("items.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl", "stats.json"):
        assert (tmp_path / "all" / file).read_bytes() == (tmp_path / "bounded" / file).read_bytes()


def test_folders_of_one_name_and_single_folders_are_refused(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prep", "fuse", str(folders[0]), str(folders[0]), "-o", str(tmp_path / "x")]) == 1
    assert "another data set is called 'one' too" in capsys.readouterr().err
    assert run(["prep", "fuse", str(folders[0]), "-o", str(tmp_path / "x")]) == 2
    assert run(["prep", "fuse", str(folders[0]), str(tmp_path), "-o", str(tmp_path / "x")]) == 1
    assert "items.jsonl: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_files_that_disagree_are_refused(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(folders[0] / "valid.jsonl", [{"user_id": "u", "history": ["a", "b"], "target": "c"}])
    assert run(["prep", "fuse", *map(str, folders), "-o", str(tmp_path / "x")]) == 1
    assert "the history of user 'u' does not go on from the files before it" in capsys.readouterr().err
