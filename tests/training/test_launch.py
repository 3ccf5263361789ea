"""`idgr.engine.launch`: every process hears a signal, the exit code is the command's; shell scripts stand for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from idgr.engine import launch as module
from idgr.engine.launch import launch

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the words of a command run by bash, in place of idgr; the file that they may write to."""
    python = tmp_path / "python"
    python.write_text(f'#!/usr/bin/env bash\nshift 2\nsaid={tmp_path}/said\neval "$*"\n')
    python.chmod(0o755)
    monkeypatch.setattr(module, "sys", SimpleNamespace(executable=str(python)))
    return tmp_path / "said"


def test_each_process_is_told_which_it_is(said: Path) -> None:
    tell = 'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $((MASTER_PORT > 0))" >> $said'
    assert launch(3, [tell]) == 0
    assert sorted(said.read_text().splitlines()) == [f"{n} {n} 3 127.0.0.1 1" for n in range(3)]


@pytest.mark.parametrize(("name", "code"), [("USR1", 138), ("TERM", 143)])
def test_all_processes_hear_a_signal_and_end_as_they_will(said: Path, name: str, code: int) -> None:
    """The second process sends it once both are ready for it."""
    ready = "for i in {1..200}; do [[ $(wc -l < $said) == 2 ]] && break; sleep 0.05; done"
    ask = f"trap 'echo $RANK >> $said.heard; exit {code}' {name}; echo ready >> $said; {ready}"
    assert (
        launch(2, [f"{ask}; ((RANK)) && kill -{name} $PPID; for i in {{1..200}}; do sleep 0.05; done"], grace=60)
        == code
    )
    assert sorted(said.with_name("said.heard").read_text().split()) == ["0", "1"]


def test_a_fault_of_one_ends_the_others_after_a_while(said: Path) -> None:
    started = time.monotonic()
    assert launch(2, ["((RANK)) && exit 3; exec sleep 60"], grace=0.3) == 3
    assert time.monotonic() - started < 20


def test_a_process_that_is_killed_counts_as_a_shell_counts_it(said: Path) -> None:
    assert launch(1, ["kill -KILL $$"]) == 137


@pytest.mark.parametrize("words", [[], ["2"], ["two", "train-rec"], ["0", "train-rec"], ["99999", "train-rec"]])
def test_it_tells_how_it_is_called(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "idgr.engine.launch", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("idgr: error: no number of processes and command given")
