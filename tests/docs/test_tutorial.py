"""The tutorial's `sh` blocks run in their order and leave what the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash") or "/bin/bash"


def test_the_tutorial_runs(tmp_path: Path, warm_path: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    script = "\n".join(blocks)
    env = os.environ | {"PATH": warm_path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [BASH, "-euo", "pipefail", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    users = [json.loads(line)["user_id"] for line in (tmp_path / "data/test.jsonl").read_text().splitlines()]
    recs = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    assert [row["user_id"] for row in recs] == users
    assert all(len(row["items"]) == 10 for row in recs)
    assert len(done.stdout.splitlines()) >= 3
    assert (tmp_path / "metrics.json").is_file()
