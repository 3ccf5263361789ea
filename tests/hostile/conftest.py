"""A shop in the current folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgr.formats.jsonl import write_jsonl


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with sequences, metadata and a training file."""
    monkeypatch.chdir(tmp_path)
    write_jsonl("s.jsonl", ({"user_id": f"u{n}", "items": ["a", "b", "c", "a"]} for n in range(5)))
    write_jsonl("m.jsonl", ({"item_id": item, "title": f"tea {item}"} for item in "abc"))
    write_jsonl("train.jsonl", [{"user_id": "u", "items": ["a", "b", "c"]}])
    return tmp_path
