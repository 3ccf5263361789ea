"""Runs a page's blocks in their order, `sh` in a shell and `python` in one Python, in a folder of its own."""

from __future__ import annotations

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


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Language and text of the `sh` and `python` blocks of a page of docs/."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"^```(sh|python)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run_page(page: str, folder: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """Run a page of docs/ with `folder` as the current one: the variables of its Python, and what its commands log."""
    blocks = blocks_of(page)
    assert blocks
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    env = os.environ | {"PATH": warm_path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    cells: dict[str, Any] = {}
    told = ""
    for language, block in blocks:
        if language == "python":
            exec(compile(block, page, "exec"), cells)  # noqa: S102 - our own page
            continue
        done = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", block], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told += done.stderr
    return cells, told
