"""One writer at a time: a second is refused and told who writes; a killed one blocks no one, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from idgr.errors import IdgrError
from idgr.formats.jsonl import replace_file, replace_folder
from idgr.formats.lock import hold, lock_path

# Holds what its argument names, says so, and waits to be told to go on.
HOLDER = """
import sys
from pathlib import Path
from idgr.formats.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def start_holder(output: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    holder.communicate("go on\n")
    assert holder.returncode == 0


def test_a_second_process_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "out")
    with pytest.raises(IdgrError, match=f"is being written by process {holder.pid} .*; wait until"):
        replace_folder(tmp_path / "out").__enter__()
    with pytest.raises(IdgrError, match=f"is being written by process {holder.pid} "):
        replace_file(tmp_path / "out").__enter__()
    with replace_file(tmp_path / "other") as stream:
        stream.write(b"a lock is for one output only")
    end(holder)
    with replace_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with (
        replace_file(tmp_path / "x") as stream,
        pytest.raises(IdgrError, match=f"being written by process {os.getpid()}"),
        replace_file(tmp_path / "x"),
    ):
        stream.write(b"")
    with replace_file(tmp_path / "x") as stream:
        stream.write(b"the lock was given up")


def test_a_killed_holder_blocks_no_one(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "out")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert lock_path(tmp_path / "out").exists(), "a killed process cannot tidy up"
    with hold(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_many_takers_and_never_two_holders(tmp_path: Path) -> None:
    """Processes that take and give up the lock as fast as they can, each adding to a number without other care."""
    script = """
import sys
from pathlib import Path
from idgr.errors import IdgrError
from idgr.formats.lock import hold
folder, taken = Path(sys.argv[1]), 0
while taken < 40:
    try:
        with hold(folder / "out"):
            (folder / "n").write_text(str(int((folder / "n").read_text()) + 1))
            taken += 1
    except IdgrError:
        pass
"""
    (tmp_path / "n").write_text("0")
    takers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [taker.wait() for taker in takers] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "120"
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    lock_path(tmp_path / "x").symlink_to(tmp_path / "precious")
    with pytest.raises(IdgrError, match="cannot be written"):
        replace_file(tmp_path / "x").__enter__()
    assert (tmp_path / "precious").read_text() == "keep"
