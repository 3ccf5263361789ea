"""`idgr train-rec --model REC` with new data and a catalogue that has grown; item places as asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ids_fingerprint, read_ids
from idgr.formats.run_info import hash_input

GROWN = {"I10": "amber fjord", "I11": "delta basil"}


def train_rec(data: Path, output: str, *options: object) -> int:
    words = [data / "train.jsonl", "--ids", data / "ids.jsonl", "--epochs", "1", "--batch-size", "8", *options]
    return run(["train-rec", *map(str, words), "-o", str(data / output)])


def grow(data: Path) -> None:
    """A second data folder more/: I0 is gone, two items are new, and its users know them."""
    (data / "more").mkdir()
    ids = [one for one in read_ids(data / "ids.jsonl") if one.item_id != "I0"]
    rows = [one.row() for one in ids] + [{"item_id": key, "id": text} for key, text in GROWN.items()]
    write_jsonl(data / "more" / "ids.jsonl", rows)
    write_jsonl(data / "more" / "train.jsonl", [{"user_id": "a", "items": ["I1", "I10", "I11", "I2"]}])


def record(data: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((data / name / "run.json").read_bytes())
    return found


@pytest.mark.parametrize("arch", ["t5", "causal"])
def test_goes_on_from_the_old_weights_and_tells_of_both(
    arch: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow(data)
    assert train_rec(data, "rec", "--arch", arch) == 0
    capsys.readouterr()
    more = data / "more"
    # So low a rate that the weights of both folders are equal but for rounding.
    assert train_rec(more, "rec-2", "--model", data / "rec", "--lr", "1e-12", "--weight-decay", "0") == 0
    assert f"train-rec: goes on from {data / 'rec'}; IDs: 9 same, 0 changed, 2 new, 1 gone\n" in capsys.readouterr().err
    before, after = (load_file(folder / "model.safetensors") for folder in (data / "rec", more / "rec-2"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-7, rtol=1e-5)

    first, second = record(data, "rec"), record(more, "rec-2")
    assert "earlier" not in first
    (told,) = second["earlier"]
    assert told["path"] == str(data / "rec")
    assert told["inputs"] == first["inputs"]
    assert told["ids_fingerprint"] == first["ids_fingerprint"] == ids_fingerprint(read_ids(data / "ids.jsonl"))
    assert told["ids"] == {"same": 9, "changed": 0, "new": 2, "gone": 1}
    assert second["ids_fingerprint"] == ids_fingerprint(read_ids(more / "ids.jsonl"))
    assert second["inputs"]["model"]["sha256"] == hash_input(str(data / "rec"))["sha256"]
    assert read_ids(more / "rec-2" / "ids.jsonl") == read_ids(more / "ids.jsonl")
    seen = [set(json.loads((folder / "seen_tokens.json").read_text())["tokens"]) for folder in
            (data / "rec", more / "rec-2")]  # fmt: skip
    assert seen[0] <= seen[1]

    assert train_rec(more, "rec-3", "--model", more / "rec-2", "--objective", "full") == 0
    err = capsys.readouterr().err
    assert "IDs: 11 same, 0 changed, 0 new, 0 gone; it was trained with --objective trie, now full\n" in err
    assert [one["path"] for one in record(more, "rec-3")["earlier"]] == [str(data / "rec"), str(more / "rec-2")]
    write_jsonl(data / "histories.jsonl", [{"user_id": "a", "history": ["I1", "I10"]}])
    assert run(["recommend", str(data / "histories.jsonl"), "--rec", str(more / "rec-3"), "-o", str(data / "r")]) == 0


def test_a_longer_id_than_a_causal_model_has_places_for(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow(data)
    assert train_rec(data, "rec", "--arch", "causal") == 0
    with open(data / "more" / "ids.jsonl", "ab") as stream:
        stream.write(b'{"item_id": "I12", "id": "amber basil cedar delta ember fjord amber"}\n')
    assert train_rec(data / "more", "rec-2", "--model", data / "rec") == 1
    assert "places for an item; give shorter IDs, or train a new model" in capsys.readouterr().err
    assert train_rec(data, "plain", "--arch", "causal", "--no-item-slots") == 0
    assert train_rec(data / "more", "rec-2", "--model", data / "plain") == 0


@pytest.mark.parametrize(("given", "has"), [([], True), (["--item-slots"], True), (["--no-item-slots"], False)])
def test_item_places_of_a_preset(given: list[str], has: bool, data: Path) -> None:
    assert train_rec(data, "rec", "--arch", "causal", *given) == 0
    assert bool(json.loads((data / "rec" / "config.json").read_text()).get("item_slots")) == has


def test_item_places_that_cannot_be_had(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_rec(data, "rec", "--arch", "causal") == 0
    assert train_rec(data, "plain", "--arch", "causal", "--no-item-slots") == 0
    for given, message in (
        (["--model", data / "rec", "--no-item-slots"], f"--no-item-slots, but {data / 'rec'} begins an item every"),
        (["--model", data / "plain", "--item-slots"], f"--item-slots, but {data / 'plain'} counts places through"),
        (["--no-item-slots"], "--item-slots is for --arch causal"),
        (["--arch", "causal", "--item-slots", "--separator", "newline"], "--item-slots with --separator newline"),
    ):
        assert train_rec(data, "rec-2", *given) == 2
        assert message in capsys.readouterr().err


def test_an_item_head_is_not_taken_over(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow(data)
    assert train_rec(data, "rec", "--arch", "causal", "--item-head", "1") == 0
    capsys.readouterr()
    assert train_rec(data / "more", "rec-2", "--model", data / "rec") == 0
    assert "2 new, 1 gone; its item head is not taken over\n" in capsys.readouterr().err
    assert "item_head" not in record(data / "more", "rec-2")
    assert train_rec(data / "more", "rec-3", "--model", data / "rec", "--item-head", "1") == 0
    assert len(load_file(data / "more" / "rec-3" / "item_head.safetensors")["free_ID"]) == 11
