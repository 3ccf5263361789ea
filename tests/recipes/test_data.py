"""How recipes come by their data: what `recipes/data.sh` asks of idgr, noted by a stand-in, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")

# Notes what it is asked, and leaves the files that a prepared folder has.
IDGR = """#!/bin/sh
echo "$@" >> "$ASKED"
if [ "$1" = prep ]; then
  while [ "$1" != -o ]; do shift; done
  mkdir -p "$2"
  for name in items train test; do echo '{}' > "$2/$name.jsonl"; done
fi
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/idgr").write_text(IDGR)
    (tmp_path / "bin/idgr").chmod(0o755)
    return tmp_path


def recipe(house: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    environment = {"PATH": f"{house}/bin:{os.environ['PATH']}", "ASKED": str(house / "asked"), "IDGR_INSTALLED": "1"}
    return subprocess.run(
        [BASH, ROOT / "recipes" / name / "run.sh", *words, "--out", house / "out", "--stop-stage", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def asked(house: Path) -> list[str]:
    return (house / "asked").read_text().splitlines()


BEAUTY = "raw/beauty-2014/reviews_Beauty_5.json.gz --meta raw/beauty-2014/meta_Beauty.json.gz"
YELP = (
    "raw/yelp/yelp_academic_dataset_review.json --meta raw/yelp/yelp_academic_dataset_business.json "
    "--from 2019-01-01 --to 2020-01-01"
)


@pytest.mark.parametrize("name", ["standard", "ablation"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--dataset", "beauty", "--raw", "raw"], f"prep amazon {BEAUTY}"),
        (["--dataset", "beauty-2014", "--raw", "raw"], f"prep amazon {BEAUTY}"),
        (["--dataset", "yelp", "--raw", "raw"], f"prep yelp {YELP}"),
        (
            ["--dataset", "toys", "--prepared", "p"],
            "prep jsonl p/sequences.jsonl.gz --meta p/meta.jsonl.gz --missing-text key",
        ),
        (["--dataset", "demo-7", "--size", "smoke", "--users", "0"], "--seed 7"),
        (["--dataset", "demo", "--size", "smoke", "--users", "0", "--seed", "5"], "--seed 5"),
    ],
)
def test_one_data_set(house: Path, name: str, words: list[str], expected: str) -> None:
    done = recipe(house, name, "--users", "0", *words)
    assert done.returncode == 0, done.stderr
    (line,) = asked(house)
    assert line.endswith(f"{expected} -o {house}/out/data")
    assert sorted(path.name for path in (house / "out/test").iterdir()) == ["items.jsonl", "test.jsonl", "train.jsonl"]


def test_a_prepared_folder_is_taken_as_it_is(house: Path) -> None:
    (house / "data").mkdir()
    for file in ("items", "train"):
        (house / f"data/{file}.jsonl").write_text("{}\n")
    queries = "".join(json.dumps({"user_id": str(number)}) + "\n" for number in range(50))
    (house / "data/test.jsonl").write_text(queries)
    done = recipe(house, "standard", "--dataset", "beauty", "--data", str(house / "data"), "--users", "20")
    assert done.returncode == 0, done.stderr
    assert not (house / "asked").exists()
    drawn = (house / "out/test/test.jsonl").read_text().splitlines()
    assert len(drawn) == 20
    assert [line for line in queries.splitlines() if line in drawn] == drawn


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("standard", [], "--dataset is missing"),
        ("standard", ["--dataset", "beauty"], "by one of --data, --prepared and --raw"),
        ("standard", ["--dataset", "beauty", "--raw", "a", "--data", "b"], "by one of --data, --prepared and --raw"),
        ("standard", ["--dataset", "demo", "--raw", "a"], "demo is made up"),
        ("standard", ["--dataset", "ml-1m", "--raw", "a"], "unknown data set ml-1m"),
        ("standard", ["--dataset", "beauty", "--raw", "a", "--size", "big"], "--size big"),
        ("ablation", ["--dataset", "beauty-1914", "--raw", "a"], "unknown data set beauty-1914"),
        ("ablation", ["--dataset", "demo", "--tables", "5 7"], "--tables 5 7"),
        ("ablation", ["--dataset", "demo", "--tables", " "], "--tables names no table"),
        ("foundation", [], "by one of --data, --prepared and --raw"),
        ("foundation", ["--raw", "a", "--train", "beauty"], "at least two"),
        ("foundation", ["--size", "smoke", "--test", "demo-x"], "unknown data set demo-x"),
        (
            "foundation",
            ["--raw", "a", "--train", "office baby", "--test", "baby"],
            "baby is to train on and to test on",
        ),
    ],
)
def test_refused_before_any_work(house: Path, name: str, words: list[str], hint: str) -> None:
    done = recipe(house, name, *words)
    assert done.returncode == 2
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (house / "asked").exists()


def test_the_papers_25_data_sets(house: Path) -> None:
    """19 to train on and six that are none of them; each is among the dumps that download.sh fetches."""
    done = recipe(house, "foundation", "--size", "paper", "--raw", "raw")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in asked(house)]
    names = [Path(line[-1]).name for line in lines]
    assert len(names) == len(set(names)) == 25
    assert names[19:] == ["sports", "beauty", "toys", "music", "instruments", "yelp"]
    table = (ROOT / "recipes/dumps.tsv").read_text().splitlines()
    of_2014 = {line.split("\t")[0].removesuffix("-2014") for line in table if line.split("\t")[0].endswith("-2014")}
    assert set(names) == {*of_2014, "yelp"}
    for line in lines[:-1]:
        folder = f"raw/{Path(line[-1]).name}-2014"
        assert line[:2] == ["prep", "amazon"]
        assert all(str(Path(file).parent) == folder for file in (line[2], line[4]))


def test_sets_of_one_folder(house: Path) -> None:
    """With --prepared and --raw, each platform lies in a folder of its own; with --data nothing is made."""
    done = recipe(house, "foundation", "--prepared", "p")
    assert done.returncode == 0, done.stderr
    assert [line.split()[2] for line in asked(house)] == [
        f"p/{name}/sequences.jsonl.gz" for name in ("sports", "office", "beauty", "yelp")
    ]
    (house / "asked").unlink()
    assert recipe(house, "foundation", "--data", "d").returncode == 0
    assert not (house / "asked").exists()


@pytest.mark.parametrize("name", ["standard", "ablation", "llm-bs"])
def test_a_prepared_folder_needs_no_known_name(house: Path, name: str) -> None:
    """Its own name is taken, in a way that no known results have."""
    (house / "mine").mkdir()
    for file in ("items", "train", "test"):
        (house / f"mine/{file}.jsonl").write_text("{}\n")
    for words in (["--data", str(house / "mine")], ["--data", str(house / "mine"), "--dataset", "my-shop"]):
        done = recipe(house, name, *words, "--users", "0")
        assert done.returncode == 0, done.stderr
    assert not (house / "asked").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--t5", "."], "--t5 is for --size paper"),
        (["--size", "paper", "--t5", "none"], "--t5 none is no folder; recipes/prefetch.sh makes one"),
        (["--size", "paper", "--tags", "none"], "--tags none is no folder"),
    ],
)
@pytest.mark.parametrize("name", ["standard", "ablation", "foundation"])
def test_models_are_looked_for_first(house: Path, name: str, words: list[str], hint: str) -> None:
    dataset = [] if name == "foundation" else ["--dataset", "beauty"]
    done = recipe(house, name, *dataset, "--raw", "raw", *words)
    assert done.returncode == 2
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["standard", "ablation", "foundation", "llm-bs"])
def test_published_figures_are_compared_with(name: str, tmp_path: Path) -> None:
    """Every line can be read; a published figure is near or away, and never a fault."""
    table = ROOT / "recipes" / name / "expected.tsv"
    cells = [line.split("\t") for line in table.read_text().splitlines() if not line.startswith("#")]
    published = [line for line in cells if len(line) == 6]
    assert published
    run, row, metric, value, tolerance, source = published[0]
    assert "paper" in run
    place = tmp_path / row
    place.mkdir()
    for shift, verdict in ((0.5, "NEAR"), (1.5, "AWAY")):
        figures = {line[2]: float(line[3]) for line in published if line[:2] == [run, row]}
        figures[metric] = float(value) + shift * float(tolerance)
        (place / "metrics.json").write_text(json.dumps(figures))
        done = subprocess.run(
            [sys.executable, ROOT / "recipes/expected.py", table, run, place / "metrics.json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        first = next(line for line in done.stdout.splitlines() if line.endswith(f"of {source}"))
        assert first.startswith(f"{verdict} {row} {metric} {figures[metric]:.4f}, ")
