"""A shop whose parts may be trained on, chosen on or tested on, and what makes files of it."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    write_jsonl(path, rows)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def idgr(*words: object) -> None:
    assert run([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw sequences, the prepared folder `data`, and IDs of its items."""
    root = tmp_path_factory.mktemp("shop")
    rng = random.Random(5)
    write(root / "meta.jsonl", [{"item_id": f"I{n}", "title": f"thing {n}"} for n in range(30)])
    whole = [{"user_id": f"U{user}", "items": [f"I{n}" for n in rng.sample(range(30), 7)]} for user in range(25)]
    write(root / "raw.jsonl", whole)
    idgr("prep", "jsonl", root / "raw.jsonl", "--meta", root / "meta.jsonl", "--k-core", 0, "-o", root / "data")
    idgr("gen-ids", root / "data" / "items.jsonl", "--model", "keyphrase", "-o", root / "ids.jsonl")
    return root


@pytest.fixture
def copy(shop: Path, tmp_path: Path) -> Path:
    """The same in a folder that may be changed, with records that name what lies there."""
    root = Path(shutil.copytree(shop, tmp_path / "copy"))
    for record in (root / "data" / "run.json", root / "ids.jsonl.run.json"):
        record.write_text(record.read_text().replace(str(shop), str(root)))
    return root


def packed(source: Path, target: Path) -> Path:
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))
    return target


def recommend(copy: Path, part: str) -> Path:
    recs = copy / f"{part}-recs.jsonl"
    idgr("recommend", copy / "data" / f"{part}.jsonl", "--baseline", "markov", "--train", copy / "data" / "train.jsonl",
         "-k", 20, "-o", recs)  # fmt: skip
    return recs
