"""`train-sasrec --text-vectors` and `recommend` with what it wrote, on its own catalogue and on one never seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl

from ..encoder_folder import tiny_bert

THINGS = "brush soap towel lamp comb chair table spoon plate glass".split()  # noqa: SIM905
COLOURS = ("red", "blue")
N = len(THINGS)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who take the things in turn, in a colour; another catalogue of the same things in another colour."""
    folder = tmp_path_factory.mktemp("texts")
    tiny_bert([*THINGS, *COLOURS, "green"], folder / "reader")
    items = [{"item_id": f"{colour}{n}", "text": f"{colour} {THINGS[n]}"} for colour in COLOURS for n in range(N)]
    write_jsonl(folder / "items.jsonl", items)
    write_jsonl(folder / "other.jsonl", ({"item_id": f"g{n}", "text": f"green {THINGS[n]}"} for n in range(N)))
    rows, valid = [], []
    for user in range(40):
        keys = [f"{COLOURS[user % 2]}{(user + step) % N}" for step in range(5)]
        rows.append({"user_id": f"u{user}", "items": keys[:-1]})
        valid.append({"user_id": f"u{user}", "history": keys[:-1], "target": keys[-1]})
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "valid.jsonl", valid)
    unseen = ({"user_id": f"v{n}", "history": [f"g{n}", f"g{(n + 1) % N}"]} for n in range(N))
    write_jsonl(folder / "unseen.jsonl", unseen)
    assert train(folder, "--epochs", "40", "--lr", "1e-2", "--dropout", "0.1") == 0
    return folder


def train(folder: Path, *options: str, output: str = "sasrec") -> int:
    files = [
        str(folder / "train.jsonl"),
        "--items",
        str(folder / "items.jsonl"),
        "--valid",
        str(folder / "valid.jsonl"),
    ]
    shape = ["--text-vectors", str(folder / "reader"), "--width", "16", "--batch-size", "8", "--device", "cpu"]
    return run(["train-sasrec", *files, *shape, "-o", str(folder / output), *options])


def recommend(folder: Path, histories: str, items: str, *options: str, rec: str = "sasrec") -> int:
    words = [str(folder / histories), "--rec", str(folder / rec), "--items", str(folder / items), "--device", "cpu"]
    return run(["recommend", *words, "-o", str(folder / "recs.jsonl"), *options])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_learns_a_chain(shop: Path) -> None:
    records = rows_of(shop / "sasrec" / "log.jsonl")
    assert records[-1]["loss"] < 1 < 2 < records[0]["loss"]
    assert max(record["ndcg@10"] for record in records) > 0.9
    record = json.loads((shop / "sasrec" / "run.json").read_text())
    assert set(record["inputs"]) == {"train", "items", "valid", "text-vectors"}
    assert set(record["outputs"]) == {"config.json", "model.safetensors"}
    assert recommend(shop, "valid.jsonl", "items.jsonl", "-k", "1") == 0
    truth = [row["target"] for row in rows_of(shop / "valid.jsonl")]
    assert sum(row["items"] == [target] for row, target in zip(rows_of(shop / "recs.jsonl"), truth, strict=True)) > 30


def test_it_recommends_from_a_catalogue_that_it_has_never_seen(shop: Path) -> None:
    assert recommend(shop, "unseen.jsonl", "other.jsonl", "-k", "3") == 0
    found = [row["items"] for row in rows_of(shop / "recs.jsonl")]
    assert sum(f"g{(n + 2) % N}" in items for n, items in enumerate(found)) > 6, "chance is 3 or 4 of 10"
    (shop / "allow").write_text("g1\ng5\n")
    assert recommend(shop, "unseen.jsonl", "other.jsonl", "--allow", str(shop / "allow"), "--keep-history") == 0
    assert all(set(row["items"]) == {"g1", "g5"} for row in rows_of(shop / "recs.jsonl"))


def test_runs_repeat_bit_for_bit(shop: Path) -> None:
    found = []
    for name in ("one", "two"):
        assert train(shop, "--epochs", "1", output=name) == 0
        found.append(load_file(shop / name / "model.safetensors"))
    assert all((found[0][name] == found[1][name]).all() for name in found[0])


def test_a_reader_that_has_moved_or_changed(shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = shutil.copytree(shop, tmp_path / "shop")
    (place / "reader").rename(place / "moved")
    config = json.loads((place / "sasrec" / "config.json").read_text())
    config["text_vectors"]["path"] = str(place / "reader")
    (place / "sasrec" / "config.json").write_text(json.dumps(config))
    assert recommend(place, "unseen.jsonl", "other.jsonl") == 1
    assert "reader, which is not there; tell where that is with --text-vectors" in capfd.readouterr().err
    assert recommend(place, "unseen.jsonl", "other.jsonl", "--text-vectors", str(place / "moved")) == 0
    (place / "moved" / "more.txt").write_text("x")
    assert recommend(place, "unseen.jsonl", "other.jsonl", "--text-vectors", str(place / "moved")) == 1
    assert "was not trained with the vectors of" in capfd.readouterr().err


def test_options_that_do_not_go_together(shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reader, sasrec = str(shop / "reader"), str(shop / "sasrec")
    files = [str(shop / "train.jsonl"), "-o", str(tmp_path / "x")]
    for given, message in (
        ([], "--text-vectors needs --items; give items.jsonl, a file"),
        (["--items", "-"], "--text-vectors needs --items"),
    ):
        assert run(["train-sasrec", *files, "--text-vectors", reader, *given]) == 2
        assert message in capfd.readouterr().err
    given = ["--items", str(shop / "items.jsonl"), "--text-vectors", "tfidf"]
    assert run(["train-sasrec", *files, *given]) == 1
    assert "tfidf: there is no such folder; give --text-vectors a local model folder" in capfd.readouterr().err
    words = ["recommend", str(shop / "unseen.jsonl"), "-o", str(tmp_path / "r")]
    for given, message in (
        (["--rec", sasrec], "is a SASRec of texts, which keeps no items; give --items, its catalogue"),
        (["--rec", sasrec, "--items", "i", "--ids", "i"], "knows no textual IDs, so --ids says nothing to it"),
        (["--rec", reader, "--ids", "i", "--text-vectors", "x"], "--text-vectors is for a SASRec of texts"),
        (["--baseline", "text", "--items", "i", "--text-vectors", "x"], "--text-vectors is for a SASRec of texts"),
    ):
        assert run([*words, *given]) == 2
        assert message in capfd.readouterr().err
    assert recommend(shop, "unseen.jsonl", "items.jsonl") == 1
    assert "none of the 20 items in its histories is in the catalogue; give --items" in capfd.readouterr().err
