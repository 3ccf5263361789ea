"""idgr on a GPU, as far as it can be shown without one: see docs/gpu.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.build import NoStandInError, library

_START = "from tests.cuda import stand_in; stand_in.load(); import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"


def test_everything_on_the_stand_in() -> None:
    """In a process of its own, which PyTorch believes to have a GPU."""
    try:
        library()
    except NoStandInError as why:
        pytest.skip(f"no stand-in for a GPU: {why}")
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    tried = str(Path(__file__).with_name("on_device.py"))
    command = [sys.executable, "-c", _START, tried, "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(NoStandInError, match="no C\\+\\+ compiler"):
        library()
