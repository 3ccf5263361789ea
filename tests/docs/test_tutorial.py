"""The tutorial's blocks run in their order, in a shell and in one Python, and leave what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .pages import run_page


def test_the_tutorial_runs(
    tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, told = run_page("tutorial.md", tmp_path, warm_path, monkeypatch)
    users = [json.loads(line)["user_id"] for line in Path("data/test.jsonl").read_text().splitlines()]
    for name in ("first.jsonl", "recs.jsonl"):
        recs = [json.loads(line) for line in Path(name).read_text().splitlines()]
        assert [row["user_id"] for row in recs] == users
        assert all(len(row["items"]) == 10 for row in recs)
    assert "events.csv: users from customer, items from sku, times from when" in told
    assert len(cells["best"]) == 5
    assert len(capsys.readouterr().out.splitlines()) == 6
