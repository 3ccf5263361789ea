"""Commands refuse to train or choose on what is held out, whatever its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.formats.run_info import hash_input, hash_output

from .conftest import idgr, packed, recommend, rows_of, write

Made = Callable[[Path], Path]
TRAINING: dict[str, tuple[Made, str]] = {
    "test": (lambda root: root / "data" / "test.jsonl", "is test.jsonl of"),
    "valid": (lambda root: root / "data" / "valid.jsonl", "is valid.jsonl of"),
    "raw": (lambda root: root / "raw.jsonl", "was prepared from"),
    "raw elsewhere": (
        lambda root: Path(shutil.copy(root / "raw.jsonl", root.parent / "mine.jsonl")),
        "was prepared from",
    ),
    "raw in gzip": (lambda root: packed(root / "raw.jsonl", root / "raw.jsonl.gz"), "was prepared from"),
}
CHOOSING: dict[str, tuple[Made, str]] = {
    "test": (lambda root: root / "data" / "test.jsonl", "is test.jsonl of"),
    "train": (lambda root: root / "data" / "train.jsonl", "is train.jsonl of"),
    "renamed": (lambda root: Path(shutil.copy(root / "data" / "test.jsonl", root / "valid.jsonl")), "is test.jsonl of"),
    "in gzip": (lambda root: packed(root / "data" / "test.jsonl", root / "valid.jsonl.gz"), "is test.jsonl of"),
}
TRAINS: dict[str, tuple[str, ...]] = {
    "train-rec": ("train-rec", "{train}", "--ids", "{root}/ids.jsonl", "-o", "{root}/out"),
    "train-adapter": ("train-adapter", "{train}", "--rec", "no", "--ids", "{root}/ids.jsonl", "-o", "{root}/out"),
    "train-gen": ("train-gen", "{train}", "--items", "{root}/data/items.jsonl", "--ids", "{root}/ids.jsonl", "--rec",
                  "no", "--gen", "no", "-o", "{root}/out"),
    "train-sasrec": ("train-sasrec", "{train}", "--items", "{root}/data/items.jsonl", "-o", "{root}/out"),
    "train-two-tower": ("train-two-tower", "{train}", "--items", "{root}/data/items.jsonl", "-o", "{root}/out"),
    "gen-ids": ("gen-ids", "{root}/data/items.jsonl", "--scheme", "sequential", "--train", "{train}", "-o",
                "{root}/out"),
    "recommend": ("recommend", "{root}/data/test.jsonl", "--baseline", "markov", "--train", "{train}", "-o",
                  "{root}/out"),
    "eval": ("eval", "{root}/recs.jsonl", "--truth", "{root}/data/test.jsonl", "--train", "{train}", "-o",
             "{root}/out"),
}  # fmt: skip
CHOOSES: dict[str, tuple[str, ...]] = {
    "train-rec": (*TRAINS["train-rec"], "--valid", "{valid}"),
    "train-adapter": (*TRAINS["train-adapter"], "--valid", "{valid}"),
    "train-sasrec": (*TRAINS["train-sasrec"], "--valid", "{valid}"),
    "train-two-tower": (*TRAINS["train-two-tower"], "--valid", "{valid}"),
    "blend": ("blend", "{root}/recs.jsonl", "{root}/recs.jsonl", "--truth", "{valid}", "-o", "{root}/out"),
}


def refused(words: tuple[str, ...], root: Path, capsys: pytest.CaptureFixture[str], **files: Path) -> str:
    given = {"train": root / "data" / "train.jsonl", **files}
    assert run([word.format(root=root, **given) for word in words]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1, "one line"
    assert not (root / "out").exists()
    return told


@pytest.mark.parametrize("file", TRAINING)
@pytest.mark.parametrize("command", TRAINS)
def test_training_refuses_what_is_held_out(
    command: str, file: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, what = TRAINING[file]
    train = made(copy)
    told = refused(TRAINS[command], copy, capsys, train=train)
    assert f"{train}: " in told
    assert what in told
    assert str(copy / "data") in told


@pytest.mark.parametrize("file", CHOOSING)
@pytest.mark.parametrize("command", CHOOSES)
def test_choosing_refuses_what_is_no_validation(
    command: str, file: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, what = CHOOSING[file]
    valid = made(copy)
    told = refused(CHOOSES[command], copy, capsys, valid=valid)
    assert f"{valid}: {what} {copy}/data" in told
    assert "give valid.jsonl" in told


def test_a_prepared_folder_with_exchanged_files_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`alternate` and `zeroshot` take a folder, whose files may be copies."""
    wrong = copy / "wrong"
    wrong.mkdir()
    for name, source in (
        ("items", "data/items"),
        ("train", "data/train"),
        ("valid", "data/test"),
        ("test", "data/test"),
    ):
        shutil.copy(copy / f"{source}.jsonl", wrong / f"{name}.jsonl")
    told = refused(("alternate", "{root}/wrong", "--gen", "no", "-o", "{root}/out"), copy, capsys)
    assert f"{wrong}/valid.jsonl: is test.jsonl of {copy}/data" in told
    shutil.copy(copy / "raw.jsonl", wrong / "train.jsonl")
    told = refused(("zeroshot", "{root}/wrong", "--gen", "no", "--rec", "no", "-o", "{root}/out"), copy, capsys)
    assert f"{wrong}/train.jsonl: is what {copy}/data was prepared from" in told
    told = refused(("init-gen", "{root}/data/test.jsonl", "-o", "{root}/out"), copy, capsys)
    assert "data/test.jsonl: is test.jsonl of" in told


def test_sequences_that_go_on_to_the_validation_targets_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever file they come from: here one that no record knows."""
    whole = write(copy / "whole.jsonl", rows_of(copy / "raw.jsonl")[:3])
    for command in ("train-rec", "train-sasrec"):
        words = (*TRAINS[command], "--valid", "{root}/data/valid.jsonl")
        assert "whole.jsonl: goes on to the held-out targets of 3 users" in refused(words, copy, capsys, train=whole)


def test_lists_and_weights_of_test_choose_nothing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recs = recommend(copy, "test")
    capsys.readouterr()
    words = ("blend", str(recs), str(recs), "--truth", "{root}/data/valid.jsonl", "-o", "{root}/out")
    assert "holds the lists that are to be tested" in refused(words, copy, capsys)
    weight = copy / "weight.json"
    weight.write_text('{"weight": 0.5}')
    record = {"command": "blend", "inputs": {"truth": hash_input(copy / "data" / "test.jsonl")}}
    record["outputs"] = hash_output(weight)
    Path(f"{weight}.run.json").write_text(json.dumps(record))
    words = ("blend", str(recs), str(recs), "--weight", str(weight), "-o", "{root}/out")
    assert "weight.json: holds a weight that was chosen on" in refused(words, copy, capsys)


def test_the_right_files_and_parts_of_them_are_taken(copy: Path) -> None:
    """Also beside a record of another folder that cannot be read."""
    (copy / "broken").mkdir()
    (copy / "broken" / "run.json").write_text("{")
    part = write(copy / "part.jsonl", rows_of(copy / "data" / "train.jsonl")[:9])
    little = ["--width", 4, "--epochs", 1]
    for number, train in enumerate((copy / "data" / "train.jsonl", part)):
        valid = ["--valid", copy / "data" / "valid.jsonl"]
        idgr("train-sasrec", train, "--items", copy / "data/items.jsonl", *valid, *little, "-o", copy / f"s{number}")
