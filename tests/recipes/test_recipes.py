"""The recipes as scripts: they parse, explain themselves, refuse what they do not know. None installs anything here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ("common.sh", "data.sh")
SCRIPTS = sorted(path for path in (ROOT / "recipes").rglob("*.sh") if path.name not in SHARED)
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")


def bash(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    return subprocess.run(
        [BASH, *map(str, words)], capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("name", ["recipes/common.sh", "recipes/data.sh", ".ci/run"])
def test_shared_parts_parse(name: str) -> None:
    done = bash("-n", ROOT / name)
    assert (done.returncode, done.stderr) == (0, "")


@by_name
def test_recipe_parses_and_is_strict(script: Path) -> None:
    done = bash("-n", script)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text(encoding="utf-8")
    assert "\nset -euo pipefail\n" in text
    assert re.search(r"^\s*eval ", text, flags=re.MULTILINE) is None
    assert os.access(script, os.X_OK)


@by_name
def test_recipe_explains_itself(script: Path) -> None:
    done = bash(script, "--help")
    assert done.returncode == 0
    assert "Usage: recipes/" in done.stdout
    assert "Reads: " in done.stdout


@by_name
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--no-such-option", "1"], "unknown option --no-such-option"),
        (["--root", "/"], "unknown option --root"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "two"], "take numbers"),
        (["stray"], "unexpected argument stray"),
    ],
)
def test_recipe_refuses_what_it_does_not_know(script: Path, arguments: list[str], hint: str) -> None:
    done = bash(script, *arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["PATH", ".venv"])
def test_a_dry_run_installs_nothing_where_idgr_is(tmp_path: Path, place: str) -> None:
    folder = tmp_path / (".venv/bin" if place == ".venv" else "bin")
    folder.mkdir(parents=True)
    for name in ("idgr", "activate"):
        (folder / name).write_text("echo active\n" if name == "activate" else "#!/bin/sh\n")
        (folder / name).chmod(0o755)
    program = f'source "{ROOT}/recipes/common.sh"; venv={tmp_path}/.venv; dry_run=1; install schemes; echo done'
    path = f"{folder}:{os.environ['PATH']}" if place == "PATH" else os.environ["PATH"]
    before = sorted(tmp_path.rglob("*"))
    done = bash("-c", program, PATH=path, IDGR_INSTALLED="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == (["done"] if place == "PATH" else ["active", "done"])
    assert sorted(tmp_path.rglob("*")) == before


def test_stages_are_chosen_by_number() -> None:
    program = (
        f'source "{ROOT}/recipes/common.sh"; options=(); parse_options --stage 2 --stop-stage 3; '
        'for n in 1 2 3 4; do if begin "$n" "part $n"; then echo "$n"; fi; done'
    )
    done = bash("-c", program)
    assert done.stdout.split() == ["2", "3"]
    assert re.fullmatch(r"(\d\d:\d\d:\d\d stage [23]: part [23]\n){2}", done.stderr)


def test_installs_once_and_again_when_the_versions_change(tmp_path: Path) -> None:
    """A stand-in for Python notes what it is asked, so that nothing is installed."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "recipes/common.sh", tmp_path / "recipes")
    (tmp_path / "recipes/constraints.txt").write_text("one==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv/bin/activate").write_text("")
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    python.chmod(0o755)

    def asked(extras: str) -> int:
        done = bash("-euo", "pipefail", "-c", f'source "{tmp_path}/recipes/common.sh"; install {extras}')
        assert done.returncode == 0, done.stderr
        return len((tmp_path / "asked").read_text().splitlines())

    assert [asked("test,dev"), asked("test,dev"), asked(""), asked("")] == [1, 1, 2, 2]
    (tmp_path / "recipes/constraints.txt").write_text("one==2\n")
    assert [asked("test,dev"), asked("test,dev")] == [3, 3]
    last = (tmp_path / "asked").read_text().splitlines()[-1]
    assert last.endswith(f"-c {tmp_path}/recipes/constraints.txt -e {tmp_path}[test,dev]")
    assert "-m pip install" in last


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in ("python3.13", "python3.12", "python3.11"):
        shutil.copy(old, tmp_path / name)
    done = bash("-c", f'source "{ROOT}/recipes/common.sh"; find_python', PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert "3.11" in done.stderr


def test_show_prints_words(tmp_path: Path) -> None:
    files = {
        "test.jsonl": [{"user_id": "u", "history": ["a", "b"], "target": "c"}, {"user_id": "v", "history": ["b"]}],
        "ids.jsonl": [{"item_id": item, "id": f"word {item}"} for item in "abcd"],
        "recs.jsonl": [{"user_id": "u", "items": ["d", "c"]}, {"user_id": "v", "items": ["a"]}],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, ROOT / "recipes/show.py", *(tmp_path / name for name in files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "   2. word c   <- what came next" in done.stdout
    assert done.stdout.count("User") == 2
