"""The SLURM scripts on a stand-in for SLURM (`cluster.py`), with an idgr that notes what it is asked and a real one."""

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

from .cluster import install

SCRIPTS = sorted((Path(__file__).parents[2] / "recipes/slurm").glob("*.sbatch"))
TRAIN, RECIPE, SHARDS, JOIN = (
    next(script for script in SCRIPTS if script.stem == name) for name in ("train", "recipe", "shards", "join")
)
BASH = shutil.which("bash")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")

# Ends with the next code of the file CODES, 0 once there are no more.
IDGR = f"""#!{sys.executable} -SE
import json, os, pathlib, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")
names += ("CUDA_VISIBLE_DEVICES", "IDGR_INSTALLED")
asked = {{"words": sys.argv[1:], "env": {{name: os.environ.get(name) for name in names}}}}
home = pathlib.Path(os.environ["CLUSTER"])
with open(home / "asked", "a") as stream:
    stream.write(json.dumps(asked) + "\\n")
if "--shard" in sys.argv:
    output = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    output.parent.mkdir(exist_ok=True)
    output.write_text(sys.argv[sys.argv.index("--shard") + 1] + "\\n")
codes = (home / "CODES").read_text().split() if (home / "CODES").exists() else []
if codes:
    (home / "CODES").write_text(" ".join(codes[1:]))
    sys.exit(int(codes[0]))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f'PATH="{tmp_path}/bin:$PATH"\n')
    (tmp_path / "bin").mkdir()
    install(tmp_path / "bin")
    write_command(tmp_path / "bin/idgr", IDGR)
    return tmp_path


def write_command(place: Path, text: str) -> None:
    place.write_text(text)
    place.chmod(0o755)


def sbatch(
    cluster: Path, *words: str | Path, path: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CLUSTER": str(cluster)} | variables
    return subprocess.run(
        [cluster / "bin/sbatch", *words],
        cwd=cluster,
        env=environment | {"PATH": f"{cluster}/bin:{path or os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def log_of(cluster: Path) -> str:
    return "".join(file.read_text() for file in sorted(cluster.glob("idgr-*.log")))


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


TRAINING = ("train-rec", "data/train.jsonl", "--ids", "ids.jsonl", "--epochs", "3", "-o", "out dir")
FOUR = ("--ntasks-per-node=4", "--gpus-per-node=4")


@pytest.mark.parametrize(
    ("options", "tasks", "gpus"), [((), 1, "0"), (FOUR, 4, "0,1,2,3"), (("--nodes=2", *FOUR), 8, "0,1,2,3")]
)
def test_every_gpu_gets_a_process(cluster: Path, options: tuple[str, ...], tasks: int, gpus: str) -> None:
    done = sbatch(cluster, *options, TRAIN, *TRAINING)
    assert done.returncode == 0, log_of(cluster)
    calls = asked(cluster)
    assert [call["words"] for call in calls] == [list(TRAINING)] * tasks
    check_command_line(list(TRAINING))
    assert sorted(int(call["env"]["RANK"]) for call in calls) == list(range(tasks))
    assert {int(call["env"]["LOCAL_RANK"]) for call in calls} == set(range(min(tasks, 4)))
    env = {name: value for name, value in calls[0]["env"].items() if "RANK" not in name}
    assert env == {
        "WORLD_SIZE": str(tasks),
        "MASTER_ADDR": "node1",
        "MASTER_PORT": str(20000 + 4711),
        "OMP_NUM_THREADS": "8",
        "SLURM_CPUS_PER_TASK": "8",
        "CUDA_VISIBLE_DEVICES": gpus,
        "IDGR_INSTALLED": None,
    }
    assert "requeue" not in (cluster / "notes").read_text()


@pytest.mark.parametrize("script", [TRAIN, RECIPE], ids=["train", "recipe"])
@pytest.mark.parametrize(("code", "again"), [("138", True), ("143", True), ("1", False)])
def test_a_job_that_was_stopped_is_queued_again(cluster: Path, script: Path, code: str, again: bool) -> None:
    (cluster / "CODES").write_text(code)
    (cluster / "once.sh").write_text('set -e; idgr train-rec data -o "$1"; idgr eval recs -o "$2"\n')
    words = ("once.sh", "a b", "metrics") if script is RECIPE else ("train-rec", "data", "-o", "a b")
    done = sbatch(cluster, script, *words)
    assert done.returncode == (0 if again else 1)
    assert ("scontrol requeue 4711" in (cluster / "notes").read_text()) is again
    commands = [call["words"][0] for call in asked(cluster)]
    rest = ["eval"] if script is RECIPE else []
    assert commands == ["train-rec", *(["train-rec", *rest] if again else [])]
    assert asked(cluster)[0]["words"][-2:] == ["-o", "a b"]


def test_a_step_without_its_cores_is_noticed(cluster: Path) -> None:
    """That the stand-in gives a step of srun one core where nothing says otherwise, as SLURM does from 22.05 on."""
    script = cluster / "forgets.sbatch"
    lines = (line for line in TRAIN.read_text().splitlines(True) if "export SRUN_CPUS_PER_TASK" not in line)
    script.write_text("".join(lines))
    assert sbatch(cluster, script, *TRAINING).returncode == 1
    assert "srun: error: 8 threads on 1 cores" in log_of(cluster)


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_recipe_leaves_what_is_finished_and_trains_on_all_gpus(cluster: Path, gpus: int) -> None:
    launcher = 'printf "%s\\n" "python $*" >> "$CLUSTER/launched"'
    write_command(cluster / "bin/python", f"#!/bin/sh\n{launcher}\n")
    commands = ["init-gen items -o a", "train-rec data -o b", "alternate data -o c", "gen-ids items -o d"]
    commands += ["recommend test -o e", "zeroshot data -o f", "eval recs -o g"]
    (cluster / "all.sh").write_text("set -e\n" + "".join(f"idgr {command}\n" for command in commands))
    options = (f"--gpus-per-node={gpus}", f"--cpus-per-task={8 * gpus}")
    assert sbatch(cluster, *options, RECIPE, "all.sh").returncode == 0, log_of(cluster)
    calls = asked(cluster)
    expected = [*commands]
    expected[2] += f" --processes {gpus}"
    expected[3:6] = [f"{command} --skip-finished" for command in expected[3:6]]
    assert [" ".join(call["words"]) for call in calls] == (expected if gpus == 1 else expected[2:])
    if gpus > 1:
        launched = [f"python -m idgr.engine.launch {gpus} {command}" for command in commands[:2]]
        assert (cluster / "launched").read_text().splitlines() == launched
    assert {call["env"]["OMP_NUM_THREADS"] for call in calls} == {"8"}
    assert {call["env"]["SLURM_CPUS_PER_TASK"] for call in calls} == {str(8 * gpus)}
    assert {call["env"]["IDGR_INSTALLED"] for call in calls} == {"1"}


@pytest.mark.parametrize("script", [TRAIN, RECIPE], ids=["train", "recipe"])
def test_a_command_runs_in_an_image(cluster: Path, script: Path) -> None:
    """A stand-in for apptainer takes `exec --nv IMAGE` off; there is no virtual environment."""
    (cluster / ".venv/bin/activate").unlink()
    inside = '[ "$1 $2 $3" = "exec --nv idgr.sif" ] && shift 3 && IMAGE=1 exec "$@"'
    write_command(cluster / "bin/apptainer", f"#!/bin/sh\n{inside}\n")
    (cluster / "once.sh").write_text("[[ -n $IMAGE ]] && idgr eval recs\n")
    words = ("once.sh",) if script is RECIPE else ("eval", "recs")
    assert sbatch(cluster, script, *words, SIF="idgr.sif").returncode == 0, log_of(cluster)
    assert [call["words"] for call in asked(cluster)] == [["eval", "recs"]]


def test_what_is_missing_is_told(cluster: Path) -> None:
    assert sbatch(cluster, TRAIN).returncode == 2
    assert sbatch(cluster, RECIPE, "recipes/none.sh").returncode == 2
    assert log_of(cluster).splitlines() == [
        "error: recipes/none.sh is no recipe; give recipes/standard/run.sh or another",
        "error: no command of idgr is given; see README.md",
    ]


def test_the_image_is_built_under_the_tested_versions_from_files_that_are_there() -> None:
    text = (SCRIPTS[0].parent / "idgr.def").read_text()
    sources = [line.split()[0] for line in text.split("%files")[1].split("%post")[0].splitlines() if line.strip()]
    assert all((ROOT / source).exists() for source in sources)
    assert "recipes/constraints.txt" in sources
    assert "-c /opt/idgr/recipes/constraints.txt" in text


def test_parts_are_made_and_joined(cluster: Path) -> None:
    for stage in ("gen-ids", "recommend"):
        options = {"STAGE": stage, "SHARDS": "3", "OPTIONS": "--batch-size 8"}
        done = sbatch(cluster, "--parsable", "--array=1-3", SHARDS, **options)
        assert done.returncode == 0, log_of(cluster)
        assert re.fullmatch(r"47\d\d\n", done.stdout)
        done = sbatch(cluster, "--dependency=afterok:4711", JOIN, STAGE=stage, SHARDS="3", OUT=f"{stage}.jsonl")
        assert done.returncode == 0, log_of(cluster)
    calls = asked(cluster)
    words = [call["words"] for call in calls]
    assert [call[0] for call in words] == ["gen-ids"] * 4 + ["recommend"] * 3
    assert [call[call.index("--shard") + 1] for call in words if "--shard" in call] == ["1/3", "2/3", "3/3"] * 2
    assert words[3][-6:] == ["--device", "cpu", "--assign", "parts/gen-ids-*-of-3.jsonl", "-o", "gen-ids.jsonl"]
    assert [call["env"]["CUDA_VISIBLE_DEVICES"] for call in calls] == ["0"] * 3 + [""] + ["0"] * 3
    assert {call["env"]["SLURM_CPUS_PER_TASK"] for call in calls} == {"8"}
    for call in words:
        check_command_line(call)
    assert (cluster / "recommend.jsonl").read_text() == "1/3\n2/3\n3/3\n"


def test_a_part_that_is_missing_is_named_and_is_made_again_alone(cluster: Path) -> None:
    parts = {"STAGE": "recommend", "SHARDS": "8"}
    assert sbatch(cluster, JOIN, OUT="recs.jsonl", **parts).returncode == 1
    assert "there is no parts/recommend-1-of-8.jsonl" in log_of(cluster)
    assert not (cluster / "recs.jsonl").exists()
    assert sbatch(cluster, "--array=3,5-6", SHARDS, **parts).returncode == 0
    words = [call["words"] for call in asked(cluster)]
    assert [call[call.index("--shard") + 1] for call in words] == ["3/8", "5/8", "6/8"]


@pytest.mark.parametrize("number", ["0", "9"])
def test_a_part_beyond_their_number_is_refused(cluster: Path, number: str) -> None:
    assert sbatch(cluster, f"--array={number}", SHARDS, STAGE="recommend", SHARDS="8").returncode == 2
    assert f"part {number} of SHARDS=8; give --array=1-8, or some of these" in log_of(cluster)
    assert not (cluster / "asked").exists()


def test_the_readme_gives_commands_that_there_are() -> None:
    text = (SCRIPTS[0].parent / "README.md").read_text().replace("\\\n", "")
    commands = re.findall(r"train\.sbatch ([a-z-]+ .*)", text.split("```")[1])
    assert len(commands) == 5
    for command in commands:
        check_command_line(command.split())
    for recipe in re.findall(r"recipe\.sbatch (\S+/\S+)", text):
        assert (ROOT / recipe).is_file()
    assert {script.name for script in SCRIPTS} <= set(re.findall(r"\w+\.sbatch", text))


# How a run of a job is cut short, and once which path is there: its time is up, it is preempted, its node fails.
EVENTS = [
    ("limit", "out/textual/.rec.checkpoint/step-*"),
    ("preempt", "out/sasrec/.rec.*.tmp/log.jsonl"),
    ("fail", "out/*/.recs.jsonl.*.tmp"),
]
WORDS = ("--dataset", "demo", "--size", "smoke", "--rows", "textual", "--out", "out")


def without_times(found: object) -> object:
    """A record without what a clock told; the hash of log.jsonl, which holds times, counts as such."""
    if isinstance(found, dict):
        timed = ("started", "seconds", "instances_per_second", "log.jsonl")
        return {name: without_times(value) for name, value in found.items() if name not in timed}
    return found


def contents(out: Path) -> dict[str, object]:
    """All files by name; of records and logs what they tell, but for times."""
    found: dict[str, object] = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        lines = file.read_bytes().splitlines(keepends=True)
        if file.name.endswith("run.json"):
            found[str(file.relative_to(out))] = without_times(json.loads(b"".join(lines)))
        elif file.name == "log.jsonl":
            found[str(file.relative_to(out))] = [without_times(json.loads(line)) for line in lines]
        else:
            found[str(file.relative_to(out))] = lines
    return found


def run_smoke(cluster: Path, warm_path: str, events: list[tuple[str, str]]) -> str:
    """The standard recipe through recipe.sbatch, cut short; what the job said."""
    warm = Path(warm_path.split(":")[0], "idgr")
    often = 'case $1 in train-*) set -- "$@" --checkpoint-minutes 0.005 ;; esac' if events else ""
    (cluster / "bin/idgr").unlink()
    write_command(cluster / "bin/idgr", f'#!/bin/sh\n{often}\nexec "{warm}" "$@"\n')
    (cluster / "EVENTS").write_text(json.dumps(events))
    recipe = ROOT / "recipes/standard/run.sh"
    done = sbatch(cluster, "--cpus-per-task=1", RECIPE, recipe, *WORDS, path=warm_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, log_of(cluster)
    return log_of(cluster)


def test_a_recipe_cut_short_three_times_ends_with_the_same_bytes(
    cluster: Path, warm_path: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = run_smoke(cluster, warm_path, EVENTS)
    ends = (cluster / "ends").read_text().splitlines()
    assert [end.split(" ", 1)[1] for end in ends] == ["queued again"] * 3 + ["done"]
    assert (cluster / "notes").read_text().count("scontrol requeue 4711") >= 1
    assert "train-rec: goes on in epoch" in said
    for command in ("prep demo", "gen-ids", "train-rec", "train-sasrec"):
        assert re.search(rf"{command}: out/\S+ is finished", said), said
    assert list((cluster / "out").rglob(".*")) == []

    whole = tmp_path_factory.mktemp("whole")
    for name in (".venv", "bin"):
        shutil.copytree(cluster / name, whole / name)
    run_smoke(whole, warm_path, [])
    assert contents(cluster / "out") == contents(whole / "out")
