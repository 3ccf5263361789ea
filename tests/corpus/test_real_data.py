"""The data sets that idgr is measured on, where they are at hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run

DATASETS = Path(__file__).parents[2].parent / "shared" / "datasets"


@pytest.mark.parametrize(
    ("name", "users", "items", "catalogue", "interactions", "ascending"),
    [
        ("beauty", 22_363, 12_101, 12_101, 198_502, 0.1314),
        ("office", 3_231, 3_308, 3_459, 21_802, 0.0235),
        ("yelp", 30_431, 20_033, 20_033, 316_354, 0.0040),
    ],
)
def test_published_counts(
    name: str, users: int, items: int, catalogue: int, interactions: int, ascending: float, tmp_path: Path
) -> None:
    folder = DATASETS / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    meta, sequences = str(folder / "meta.jsonl.gz"), str(folder / "sequences.jsonl.gz")
    assert run(["prep", "jsonl", sequences, "--meta", meta, "-o", str(tmp_path / "x"), "--keep-all-items"]) == 0
    stats = json.loads((tmp_path / "x" / "stats.json").read_text())
    found = (stats["users"], stats["items"], stats["catalogue"], stats["interactions"])
    assert found == (users, items, catalogue, interactions)
    assert stats["ascending_key_order"]["share"] == pytest.approx(ascending, abs=1e-4)


def test_a_set_sorted_by_key_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[str, Any], Path]
) -> None:
    folder = DATASETS / "sports"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    with gzip.open(folder / "sequences.jsonl.gz") as stream:
        rows = [json.loads(line) for line in stream]
    events = write("sorted.jsonl", [row | {"items": sorted(row["items"])} for row in rows])
    meta = str(folder / "meta.jsonl.gz")
    assert run(["prep", "jsonl", str(events), "--meta", meta, "-o", str(tmp_path / "x")]) == 1
    assert "100% of 35,598 users have their items in ascending order" in capsys.readouterr().err
