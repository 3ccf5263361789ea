"""The blocks of growing.md and serving.md run in their order, and leave what the pages say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash") or "/bin/bash"


def run_blocks(page: str, warm_path: str) -> tuple[dict[str, Any], str]:
    """Run the page's blocks of sh and python in the current folder; what the Python has, and what went to stderr."""
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    env = os.environ | {"PATH": warm_path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    cells: dict[str, Any] = {}
    told = ""
    for language, block in blocks:
        if language == "python":
            exec(compile(block, page, "exec"), cells)  # noqa: S102 - our own page
            continue
        words = [BASH, "-euo", "pipefail", "-c", block]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told += done.stderr
    return cells, told


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_the_page_on_growing(tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, told = run_blocks("growing.md", warm_path)
    n = len(rows("later/items.jsonl"))
    assert f"gen-ids: {n - 4} items keep their IDs, 4 are new; 1 of ids.jsonl dropped" in told
    assert f"recommend: 4 of the {n} items of later/ids.jsonl are new to rec/; 1 that it was trained on are not" in told
    assert f"train-rec: goes on from rec/; IDs: {n - 4} same, 0 changed, 4 new, 1 gone" in told
    names = [{row["item_id"]: row["id"] for row in rows(path)} for path in ("ids.jsonl", "later/ids.jsonl")]
    assert names[0].items() - names[1].items() == {("D00", names[0]["D00"])}


def test_the_page_on_serving(tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "constraint", raising=False)
    cells, _ = run_blocks("serving.md", warm_path)
    monkeypatch.delitem(sys.modules, "constraint", raising=False)
    wanted = rows("recs.jsonl")[: len(cells["lists"])]
    assert len(wanted) == 20
    for found, row in zip(cells["lists"], wanted, strict=True):
        assert [item for item, _ in found] == row["items"]
        assert [score for _, score in found] == pytest.approx(row["scores"], abs=1e-4)
