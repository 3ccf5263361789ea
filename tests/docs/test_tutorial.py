"""The tutorial's blocks run in their order, in a shell and in one Python, and leave what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .pages import run_page


def test_the_tutorial_runs(
    tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = run_page("tutorial.md", tmp_path, warm_path, monkeypatch)
    users = [json.loads(line)["user_id"] for line in Path("data/test.jsonl").read_text().splitlines()]
    recs = [json.loads(line) for line in Path("recs.jsonl").read_text().splitlines()]
    assert [row["user_id"] for row in recs] == users
    assert all(len(row["items"]) == 10 for row in recs)
    assert len(cells["best"]) == 5
    assert len(capsys.readouterr().out.splitlines()) == 6
