"""The recipe for Ray Data, on a Ray of two workers on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from idgr.formats.parts import MANIFEST
from idgr.formats.run_info import RunInfo
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec

ROOT = Path(__file__).parents[2]
NAMES = ["a.parquet", "b.parquet", "c.parquet"]


@pytest.mark.timeout(600)  # Ray starts a dozen processes, which takes minutes on a busy core
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed; it comes with idgr[ray]")
def test_two_workers_write_the_bytes_of_one_process(tmp_path: Path) -> None:
    rec, users = tmp_path / "rec", tmp_path / "users"
    rec.mkdir()
    users.mkdir()
    keys = [f"i{n}" for n in range(30)]
    save_sasrec(new_sasrec(SasrecConfig(30, 8, 1, 1, 10), 0), keys, rec)
    RunInfo("train-sasrec", {}, {}, 0).write(rec)
    for number, name in enumerate(NAMES):
        rows = [{"user_id": f"u{number}{n}", "history": keys[n + number : n + number + 3]} for n in range(5)]
        pl.DataFrame(rows).write_parquet(users / name)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",  # else it writes a token into the home directory
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_TMPDIR": str(tmp_path.parent.parent),  # sockets have short names only
    }
    environment.pop("RAY_ADDRESS", None)
    words = ["recommend", str(users), "--rec", str(rec), "-k", "4", "--device", "cpu", "-o", str(tmp_path / "one")]
    options = json.dumps({"rec": str(rec), "k": 4, "device": "cpu"})
    script = [str(ROOT / "recipes/ray/recommend.py"), str(users), str(tmp_path / "two"), "--options", options]
    told = []
    for command in (["-m", "idgr", *words], script):
        done = subprocess.run(
            [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        told.append(done.stdout)
    assert sorted(line for line in told[1].splitlines() if ".parquet: " in line) == [
        f"{name}: 5 histories" for name in NAMES
    ]
    for name in (*NAMES, MANIFEST):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert pl.read_parquet(tmp_path / "two" / NAMES[2])["items"].list.len().to_list() == [4] * 5
