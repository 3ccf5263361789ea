"""`recipes/baselines/run.sh` with stand-ins for the other libraries, which would have to be installed."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from idgr.cli.main import run

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")

# Takes the place of the libraries' Python: notes what it is asked, and recommends the catalogue's first ten items.
PEER = f"""#!{sys.executable}
import json, os, pathlib, sys
with open(os.environ["ASKED"], "a") as stream:
    stream.write(" ".join(sys.argv[1:]) + "\\n")
queries, recs = map(pathlib.Path, sys.argv[4:6])
rows = [json.loads(line) for path in (queries, queries.with_name("items.jsonl")) for line in path.open()]
items = [row["item_id"] for row in rows if "item_id" in row][:10]
users = [row["user_id"] for row in rows if "user_id" in row]
recs.write_text("".join(json.dumps({{"user_id": user, "items": items}}) + "\\n" for user in users))
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the recipes beside a virtual environment that is there already, and a small prepared shop."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    places = [tmp_path / ".venv/bin", *(tmp_path / f"envs/{name}/bin" for name in ("recbole", "cornac"))]
    for place in places:
        place.mkdir(parents=True)
    (places[0] / "activate").write_text(f'PATH="{places[0]}:$PATH"\n')
    scripts = {
        places[0] / "python": f'#!/bin/sh\n[ "$2" = pip ] && exit\nexec "{sys.executable}" "$@"\n',
        places[0] / "idgr": f'#!/bin/sh\nexec "{sys.executable}" -m idgr "$@"\n',
        **{place / "python": PEER for place in places[1:]},
    }
    for path, text in scripts.items():
        path.write_text(text)
        path.chmod(0o755)
    for name in ("recbole", "cornac"):
        shutil.copy(ROOT / f"recipes/baselines/{name}-constraints.txt", tmp_path / f"envs/{name}/.installed")
    assert run(["prep", "demo", "--items", "30", "--users", "40", "-o", str(tmp_path / "data")]) == 0
    return tmp_path


def recipe(house: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    return subprocess.run(
        [BASH, house / "recipes/baselines/run.sh", "--data", house / "data", "--out", house / "out", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ASKED": str(house / "asked"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def options_of(runner: Path) -> set[str]:
    """The options that a runner takes, found in its source, since it runs only beside its library."""
    calls = [node for node in ast.walk(ast.parse(runner.read_text())) if isinstance(node, ast.Call)]
    taken = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    return {call.args[0].value for call in taken if isinstance(call.args[0], ast.Constant)}


def test_every_model_is_trained_on_one_split_and_scored_alike(house: Path) -> None:
    done = recipe(house, "--models", "SASRec TIGER", "--envs", str(house / "envs"), "--epochs", "2", "--users", "25")
    assert done.returncode == 0, done.stderr
    assert "| SASRec |" in done.stdout
    assert "| TIGER |" in done.stdout
    assert "| markov |" in done.stdout
    for model in ("SASRec", "TIGER"):
        metrics = json.loads((house / f"out/{model}-metrics.json").read_text())
        assert metrics["n_users"] == 25
        assert metrics["coverage@10"] == pytest.approx(10 / 30)
    asked = [line.split() for line in (house / "asked").read_text().splitlines()]
    assert [Path(words[0]).name for words in asked] == ["recbole_runner.py", "cornac_runner.py"]
    for words, library in zip(asked, ("recbole", "cornac"), strict=True):
        assert (house / "out" / library / "run.json").is_file()
        assert words[2:5] == [f"{house}/out/{name}" for name in (library, "data/test.jsonl", f"{words[1]}-recs.jsonl")]
        given = {word for word in words if word.startswith("-")}
        assert given <= options_of(Path(words[0]))
        assert {"--epochs", "--seed", "-k"} <= given


@pytest.mark.parametrize(
    ("models", "hint"),
    [("SASRec Unknown", "unknown model Unknown"), ("UniSRec", "pretrained text encoder"), (" ", "names no model")],
)
def test_a_model_that_cannot_be_run_is_told_before_anything_is_done(models: str, hint: str, house: Path) -> None:
    done = recipe(house, "--models", models)
    assert done.returncode == 2
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (house / "out").exists()
