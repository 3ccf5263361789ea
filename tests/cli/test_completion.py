"""Completion of a shell: what it offers, by which script, and that it imports nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_front_door import HEAVY

ROOT = Path(__file__).parents[2]
# What is typed, and what is offered.
TYPED = {
    "idgr pu": ["push", "pull"],
    "idgr prep mo": ["movielens"],
    "idgr train-rec --item-head-d": ["--item-head-dropout"],
    "idgr bench decode --bea": ["--beams"],
    "idgr --show": ["--show-completion"],
    "idgr nothing-of-ours --x": [],
}
_SCRIPT = """
import os, sys
from idgr.cli.main import run
for typed in {typed!r}:
    os.environ |= {{"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_IDGR_COMPLETE": "complete_bash"}}
    try:
        run([])
    except SystemExit as stop:
        assert not stop.code, typed
    print("---")
assert not sorted(name for name in {heavy!r} if name in sys.modules)
"""


def test_commands_and_options_are_completed_and_nothing_heavy_is_imported() -> None:
    script = _SCRIPT.format(typed=[*TYPED], heavy=HEAVY)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    offered = [part.split() for part in done.stdout.split("---\n")[:-1]]
    assert dict(zip(TYPED, offered, strict=True)) == TYPED


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_shown_and_installed_for_a_shell(shell: str, tmp_path: Path) -> None:
    given = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}

    def idgr(option: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "idgr", option, shell]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | given, check=False)

    shown = idgr("--show-completion")
    assert shown.returncode == 0, shown.stderr
    assert f"_IDGR_COMPLETE=complete_{shell}" in shown.stdout
    installed = idgr("--install-completion")
    assert installed.returncode == 0, installed.stderr
    assert f"{shell} completion installed in {tmp_path}" in installed.stdout
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(f"_IDGR_COMPLETE=complete_{shell}" in text for text in texts)
