"""The SLURM scripts, run with stand-ins for srun, sbatch, scontrol and idgr that note what they are asked."""

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

from idgr.cli.main import app

SCRIPTS = sorted((Path(__file__).parents[2] / "recipes/slurm").glob("*.sbatch"))
TRAINING = [script for script in SCRIPTS if script.name.startswith("train_")]
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")

# Starts as many tasks as the job has, side by side, with what srun tells each; its code is the highest of theirs.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
pids=(); worst=0
for ((i = 0; i < SLURM_NTASKS; i++)); do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || { code=$?; ((code > worst)) && worst=$code; }; done
exit "$worst"
"""
# Runs the script at once, for every task of an array, with the options that stand in it and those given.
SBATCH = """#!/usr/bin/env bash
echo "sbatch $*" >> "$NOTES"
set -- $(sed -n 's/^#SBATCH //p' "${@: -1}") "$@"
export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST=node[1-2] SLURM_CPUS_PER_TASK=1
array= nodes=1 tasks=1
for word in "$@"; do
  case $word in
    --array=*) array=${word#--array=1-} ;;
    --nodes=*) nodes=${word#--nodes=} ;;
    --ntasks-per-node=*) tasks=${word#--ntasks-per-node=} ;;
  esac
done
export SLURM_NTASKS=$((nodes * tasks))
echo "$SLURM_JOB_ID"
if [[ -z $array ]]; then bash "${@: -1}" >&2; exit; fi
for ((i = 1; i <= array; i++)); do
  SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$array bash "${@: -1}" >&2 || exit
done
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$NOTES"
if [[ $1 == show ]]; then printf 'node1\\nnode2\\n'; fi
"""
IDGR = f"""#!{sys.executable}
import json, os, pathlib, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "SRUN_CPUS_PER_TASK")
asked = {{"words": sys.argv[1:], "env": {{name: os.environ.get(name) for name in names}}}}
with open(os.environ["ASKED"], "a") as stream:
    stream.write(json.dumps(asked) + "\\n")
if "--shard" in sys.argv:
    output = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    output.parent.mkdir(exist_ok=True)
    output.write_text(sys.argv[sys.argv.index("--shard") + 1] + "\\n")
sys.exit(int(os.environ.get("CODE", "0")))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f'PATH="{tmp_path}/bin:$PATH"\n')
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": SRUN, "sbatch": SBATCH, "scontrol": SCONTROL, "idgr": IDGR}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def sbatch(cluster: Path, script: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NOTES": str(cluster / "notes"), "ASKED": str(cluster / "asked")} | variables
    return subprocess.run(
        [cluster / "bin/sbatch", *options, script],
        cwd=cluster,
        env=environment | {"PATH": f"{cluster}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def asked(cluster: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (cluster / "asked").read_text().splitlines()]


def check_command_line(words: list[str]) -> None:
    """Raise where idgr does not have such a command, argument or option."""
    import typer.main

    command = typer.main.get_command(app).get_command(None, words[0])
    command.make_context(words[0], words[1:])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_parses_explains_itself_and_has_its_variables_on_top(script: Path) -> None:
    assert BASH is not None
    done = subprocess.run([BASH, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text(encoding="utf-8")
    assert re.search(r"^# Reads: .*Writes: ", text, flags=re.MULTILINE)
    assert f"recipes/slurm/{script.name}" in text
    assert "#SBATCH --requeue" in text
    # SLURM reads no #SBATCH line behind the first command.
    assert text.rindex("#SBATCH") < text.index("\nset -euo pipefail\n") < text.index("VENV=${VENV:-")
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    ("script", "tasks"), list(zip(TRAINING, [1, 4, 8], strict=True)), ids=lambda value: str(value)[-25:]
)
def test_every_gpu_gets_a_process(cluster: Path, script: Path, tasks: int) -> None:
    done = sbatch(cluster, script, OUT="out dir", OPTIONS="--epochs 3 --overwrite")
    assert done.returncode == 0, done.stderr
    calls = asked(cluster)
    assert len(calls) == tasks
    for call in calls:
        assert call["words"][:2] == ["train-rec", "data/beauty/train.jsonl"]
        assert call["words"][-5:] == ["--epochs", "3", "--overwrite", "-o", "out dir"]
        check_command_line(call["words"])
    if tasks == 1:
        assert calls[0]["env"]["WORLD_SIZE"] is None
    else:
        assert sorted(int(call["env"]["RANK"]) for call in calls) == list(range(tasks))
        env = {name: value for name, value in calls[0]["env"].items() if "RANK" not in name}
        assert env == {
            "WORLD_SIZE": str(tasks),
            "MASTER_ADDR": "node1",
            "MASTER_PORT": str(20000 + 4711),
            "OMP_NUM_THREADS": "1",
            "SRUN_CPUS_PER_TASK": "1",
        }
    assert "requeue" not in (cluster / "notes").read_text()


@pytest.mark.parametrize(("code", "again"), [("138", True), ("143", True), ("1", False)])
def test_a_job_that_was_stopped_is_queued_again(cluster: Path, code: str, again: bool) -> None:
    done = sbatch(cluster, TRAINING[-1], CODE=code)
    assert done.returncode == int(code)
    assert ("scontrol requeue 4711" in (cluster / "notes").read_text()) is again


def test_parts_are_made_and_joined(cluster: Path) -> None:
    shards, join = (next(script for script in SCRIPTS if script.stem == name) for name in ("shards", "join"))
    for stage in ("gen-ids", "recommend"):
        done = sbatch(cluster, shards, "--parsable", "--array=1-3", STAGE=stage, SHARDS="3", OPTIONS="--batch-size 8")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "4711\n"
        done = sbatch(cluster, join, "--dependency=afterok:4711", STAGE=stage, SHARDS="3", OUT=f"{stage}.jsonl")
        assert done.returncode == 0, done.stderr
    calls = [call["words"] for call in asked(cluster)]
    assert [call[0] for call in calls] == ["gen-ids"] * 4 + ["recommend"] * 3
    assert [call[call.index("--shard") + 1] for call in calls if "--shard" in call] == ["1/3", "2/3", "3/3"] * 2
    assert calls[3][-4:] == ["--assign", "parts/gen-ids-*-of-3.jsonl", "-o", "gen-ids.jsonl"]
    for call in calls:
        check_command_line(call)
    assert (cluster / "recommend.jsonl").read_text() == "1/3\n2/3\n3/3\n"


def test_a_part_that_is_missing_is_named_and_so_is_a_wrong_number_of_parts(cluster: Path) -> None:
    shards, join = (next(script for script in SCRIPTS if script.stem == name) for name in ("shards", "join"))
    done = sbatch(cluster, join, STAGE="recommend", SHARDS="2", OUT="recs.jsonl")
    assert done.returncode == 1
    assert "there is no parts/recommend-1-of-2.jsonl" in done.stderr
    assert not (cluster / "recs.jsonl").exists()
    done = sbatch(cluster, shards, STAGE="recommend", SHARDS="2")
    assert done.returncode == 2
    assert "part 3 of SHARDS=2; give --array=1-2" in done.stderr


def test_a_part_is_made_again_alone_and_srun_gets_the_cores(cluster: Path) -> None:
    shards = next(script for script in SCRIPTS if script.stem == "shards")
    job = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_CPUS_PER_TASK": "6", "SLURM_NTASKS": "1"}
    environment = os.environ | {"NOTES": str(cluster / "notes"), "ASKED": str(cluster / "asked")} | job
    environment |= {"STAGE": "recommend", "SHARDS": "8", "PATH": f"{cluster}/bin:{os.environ['PATH']}"}
    assert BASH is not None
    done = subprocess.run([BASH, shards], cwd=cluster, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (call,) = asked(cluster)
    assert call["words"][call["words"].index("--shard") + 1] == "3/8"
    assert call["env"]["SRUN_CPUS_PER_TASK"] == "6"
