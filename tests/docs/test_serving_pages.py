"""The blocks of docs/serving.md and docs/growing.md run, and leave what the pages say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from .pages import run_page


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_an_exported_recommender_ranks_as_it_did(
    tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "constraint", raising=False)
    cells, _ = run_page("serving.md", tmp_path, warm_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "constraint")
    lists, wanted = cells["lists"], read("recs.jsonl")[:20]
    assert [[item for item, _ in row] for row in lists] == [row["items"] for row in wanted]
    for row, ours in zip(lists, wanted, strict=True):
        assert [score for _, score in row] == pytest.approx(ours["scores"], abs=1e-4)


def test_a_catalogue_grows(tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page("growing.md", tmp_path, warm_path, monkeypatch)
    old, new = read("ids.jsonl"), read("later/ids.jsonl")
    assert new[: len(old)] == old
    assert [row["item_id"] for row in new[len(old) :]] == ["N0", "N1"]
    for path in ("later/recs.jsonl", "later/recs-2.jsonl"):
        assert [row["user_id"] for row in read(path)] == [row["user_id"] for row in read("data/test.jsonl")]
        assert all(len(row["items"]) == 10 for row in read(path))
    told = json.loads(Path("later/rec/run.json").read_text())["earlier"]
    assert [one["ids"] for one in told] == [{"same": 60, "changed": 0, "new": 2, "gone": 0}]
