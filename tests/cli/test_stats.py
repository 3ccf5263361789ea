"""`idgr stats`: figures of data sets, from `stats.json` or from their files, and their density groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl


def make(folder: Path, n_items: int) -> Path:
    """Two users and `n_items` items, the last of which only the second user's test target names."""
    items = [f"i{n}" for n in range(n_items)]
    write_jsonl(folder / "items.jsonl", ({"item_id": item, "text": "x"} for item in [*items, "unused"]))
    write_jsonl(folder / "train.jsonl", [{"user_id": "u", "items": items[:-2]}, {"user_id": "v", "items": items[:1]}])
    write_jsonl(
        folder / "valid.jsonl",
        [{"user_id": "u", "history": items[:-2], "target": items[-2]}, {"user_id": "v", "history": items[:1]}],
    )
    write_jsonl(folder / "test.jsonl", [{"user_id": "v", "history": items[:1], "target": items[-1]}])
    return folder


def rows(capsys: pytest.CaptureFixture[str], *folders: Path) -> tuple[list[dict[str, Any]], str]:
    capsys.readouterr()
    assert run(["stats", *map(str, folders)]) == 0
    shown = capsys.readouterr()
    return [json.loads(line) for line in shown.out.splitlines()], shown.err


def test_counts_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, shown = rows(capsys, make(tmp_path / "data", 5))
    assert found == [
        {
            "data": str(tmp_path / "data"),
            "users": 2,
            "items": 5,
            "interactions": 6,  # four of u, two of v
            "density": 0.6,
            "mean_length": 3.0,
            "max_length": 4,
            "source": "files",
            "group": None,
        }
    ]
    assert "60.0000%" in shown
    assert "group" not in shown


def test_what_prep_recorded_is_what_the_files_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prep", "demo", "--items", "40", "--users", "60", "-o", str(tmp_path / "demo")]) == 0
    ((recorded,), _) = rows(capsys, tmp_path / "demo")
    (tmp_path / "demo/stats.json").unlink()
    ((counted,), _) = rows(capsys, tmp_path / "demo")
    assert (recorded.pop("source"), counted.pop("source")) == ("stats.json", "files")
    assert recorded == counted


def test_groups_are_thirds_of_the_sets_by_density(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make(tmp_path / f"d{n}", n) for n in (5, 30, 10, 3, 20)]
    found, shown = rows(capsys, *folders)
    names = [(Path(row["data"]).name, row["group"]) for row in found]
    assert names == [("d30", "sparse"), ("d20", "sparse"), ("d10", "medium"), ("d5", "medium"), ("d3", "dense")]
    assert [row["density"] for row in found] == sorted(row["density"] for row in found)
    assert "medium" in shown
    assert all(row["group"] is None for row in rows(capsys, *folders[:2])[0])


def test_writes_a_file_with_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = make(tmp_path / "data", 5), tmp_path / "out" / "stats.jsonl"
    assert run(["stats", str(folder), "-o", str(output)]) == 0
    assert capsys.readouterr().out == ""
    assert {path.name for path in output.parent.iterdir()} == {"stats.jsonl", "stats.jsonl.run.json"}


def test_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fault(code: int, *words: str) -> str:
        assert run(["stats", *words]) == code
        shown = capsys.readouterr()
        assert (shown.out, shown.err.count("\n")) == ("", 1)
        return shown.err

    folder = make(tmp_path / "data", 5)
    assert "standard input" in fault(2, str(folder), "-")
    assert "no such folder" in fault(1, str(tmp_path / "none"))
    assert "neither stats.json nor train.jsonl" in fault(1, str(tmp_path))
    (folder / "stats.json").write_text("[]")
    assert "stats.json: is not a JSON object" in fault(1, str(folder))
    (folder / "stats.json").write_text('{"users": 2, "items": 5, "interactions": 6, "sequence_length": {}}')
    assert "stats.json: does not tell max_length" in fault(1, str(folder))
    (folder / "stats.json").unlink()
    with (folder / "test.jsonl").open("a") as stream:
        stream.write('{"user_id": "v"}\n')
    assert 'test.jsonl:2: "history"' in fault(1, str(folder))
