"""`idgr.api` from Python: what `idgr recommend` writes, without files between; neither loads what trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from idgr.api import Recommender
from idgr.cli.main import run
from idgr.errors import UsageError
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RunInfo
from idgr.models.backbone import Preset, new_backbone, save_backbone
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
from idgr.models.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[1]
IDS = [ItemId(f"i{n}", f"{colour} {thing}") for n, (colour, thing) in enumerate(
    (colour, thing) for colour in ("red", "blue", "green", "black") for thing in ("brush", "soap", "towel", "comb")
)]  # fmt: skip
TEMPLATES = ["history: {history}; next:"]
HISTORIES = [["i3", "i1"], [], ["i15", "i2", "i2"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained recommender rec/, its IDs in it, a SASRec of the same items, and histories."""
    folder = tmp_path_factory.mktemp("api")
    (rec := folder / "rec").mkdir()
    tokenizer = train_tokenizer([record.id for record in IDS] + TEMPLATES, 400)
    save_backbone(new_backbone(Preset(16, 32, 1, 2, 8, 400), tokenizer, seed=0), rec)
    write_jsonl(rec / "ids.jsonl", (record.row() for record in IDS))
    facts = {"objective": "trie", "templates": TEMPLATES, "max_history": 20, "max_prompt_tokens": 512}
    RunInfo("train-rec", {}, {}, 0, facts | {"ids_fingerprint": ids_fingerprint(IDS)}).write(rec)
    (folder / "sasrec").mkdir()
    sasrec = new_sasrec(SasrecConfig(len(IDS), width=8, max_history=3), seed=0)
    save_sasrec(sasrec, [record.item_id for record in IDS], folder / "sasrec")
    rows = ({"user_id": f"u{u}", "history": history} for u, history in enumerate(HISTORIES))
    write_jsonl(folder / "histories.jsonl", rows)
    return folder


def lists(path: Path) -> list[list[tuple[str, float]]]:
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [list(zip(row["items"], row["scores"], strict=True)) for row in rows]


@pytest.mark.parametrize("folder", ["rec", "sasrec"])
def test_gives_what_the_command_writes(place: Path, tmp_path: Path, folder: str) -> None:
    recommender = Recommender.load(place / folder, device="cpu")
    for k in (4, 10, 1):
        words = [str(place / "histories.jsonl"), "--rec", str(place / folder), "-k", str(k), "--device", "cpu"]
        assert run(["recommend", *words, "-o", str(tmp_path / "recs")]) == 0
        found = recommender.recommend(HISTORIES, k)
        assert [[one.item for one in row] for row in found] == [
            [item for item, _ in row] for row in lists(tmp_path / "recs")
        ]
        for row, wanted in zip(found, lists(tmp_path / "recs"), strict=True):
            assert [one.score for one in row] == pytest.approx([score for _, score in wanted], abs=1e-5)


def test_exact_search_may_ask_for_more_than_the_beams(place: Path) -> None:
    exact = Recommender.load(place / "rec", device="cpu", beams=2, search="exact", keep_history=True)
    (row,) = exact.recommend([["i1"]], k=99)
    assert {one.item for one in row} == {record.item_id for record in IDS}
    with pytest.raises(UsageError, match="--beams 5 or more"):
        Recommender.load(place / "rec", device="cpu", beams=2).recommend([["i1"]], k=5)


@pytest.mark.parametrize("folder", ["rec", "sasrec"])
def test_unknown_items_are_left_out_or_refused(place: Path, folder: str) -> None:
    recommender = Recommender.load(place / folder, device="cpu")
    assert recommender.recommend([["i1", "gone", "i2"]]) == recommender.recommend([["i1", "i2"]])
    with pytest.raises(UsageError, match="unknown item 'gone'"):
        recommender.recommend([["i1", "gone"]], unknown="error")
    with pytest.raises(UsageError, match="k=0; ask for at least one item"):
        recommender.recommend([["i1"]], k=0)


def test_ids_of_the_folder_are_recorded_and_others_come_before_them(place: Path, tmp_path: Path) -> None:
    words = ["recommend", str(place / "histories.jsonl"), "--rec", str(place / "rec"), "--device", "cpu"]
    assert run([*words, "-o", str(tmp_path / "recs")]) == 0
    record = orjson.loads((tmp_path / "recs.run.json").read_bytes())
    assert record["inputs"]["ids"]["path"] == str(place / "rec" / "ids.jsonl")
    others = [ItemId(IDS[0].item_id, "another name"), *IDS[1:]]
    write_jsonl(tmp_path / "other.jsonl", [record.row() for record in others])
    assert run([*words, "--ids", str(tmp_path / "other.jsonl"), "-o", str(tmp_path / "never")]) == 1


def test_needs_ids(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --rec and --ids"):
        Recommender.load(tmp_path)


@pytest.mark.parametrize("folder", ["rec", "sasrec"])
def test_a_recommendation_loads_nothing_that_trains(place: Path, folder: str) -> None:
    told = (
        "import sys; from idgr.cli.main import run; code = run(sys.argv[1:]);"
        "print(code, sorted(name for name in sys.modules if name.startswith('idgr.engine')))"
    )
    words = ["recommend", str(place / "histories.jsonl"), "--rec", str(place / folder), "-o", os.devnull]
    command = [sys.executable, "-c", told, *words, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout == "0 []\n", done.stderr
