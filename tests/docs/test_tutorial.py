"""The tutorial's blocks run in their order, in a shell and in one Python, and leave what the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash") or "/bin/bash"


def test_the_tutorial_runs(
    tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/tutorial.md").read_text()
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} == {"sh", "python"}
    monkeypatch.chdir(tmp_path)
    env = os.environ | {"PATH": warm_path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    cells: dict[str, Any] = {}
    told = ""
    for language, block in blocks:
        if language == "python":
            exec(compile(block, "tutorial.md", "exec"), cells)  # noqa: S102 - our own page
            continue
        done = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", block], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told += done.stderr
    users = [json.loads(line)["user_id"] for line in Path("data/test.jsonl").read_text().splitlines()]
    for name in ("first.jsonl", "recs.jsonl"):
        recs = [json.loads(line) for line in Path(name).read_text().splitlines()]
        assert [row["user_id"] for row in recs] == users
        assert all(len(row["items"]) == 10 for row in recs)
    assert "events.csv: users from customer, items from sku, times from when" in told
    assert len(cells["best"]) == 5
    assert len(capsys.readouterr().out.splitlines()) == 6
