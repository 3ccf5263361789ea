"""The record beside every output."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from idgr.errors import IdgrError
from idgr.formats.run_info import RunInfo, differences, hash_input, read_run, recorded_part


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_gets_its_record_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"in")
    (tmp_path / "out.jsonl").write_bytes(b"out")
    run = RunInfo(
        "stage",
        {"k": 10, "path": tmp_path / "x"},
        {"data": tmp_path / "in.jsonl", "none": None, "pipe": "-"},
        7,
        {"f": 1},
    )
    run.write(tmp_path / "out.jsonl")
    record = json.loads((tmp_path / "out.jsonl.run.json").read_text())
    assert record["command"] == "stage"
    assert record["options"] == {"k": 10, "path": str(tmp_path / "x")}
    assert (record["seed"], record["f"]) == (7, 1)
    assert record["inputs"] == {
        "data": {"path": str(tmp_path / "in.jsonl"), "sha256": sha256(b"in")},
        "pipe": {"path": "-", "sha256": None},
    }
    assert record["outputs"] == {"out.jsonl": sha256(b"out")}
    assert record["versions"]["idgr"]
    assert record["seconds"] >= 0
    assert read_run(tmp_path / "out.jsonl") == record


def test_a_folder_gets_its_record_inside_before_it_takes_its_name(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    (fresh / "sub").mkdir(parents=True)
    (fresh / "sub" / "a").write_bytes(b"a")
    (fresh / "log.jsonl").write_bytes(b"lines that tell the time")
    RunInfo("stage", {}, {}).write(tmp_path / "final", fresh)
    record = json.loads((fresh / "run.json").read_text())
    assert record["outputs"] == {"sub/a": sha256(b"a")}
    assert not (tmp_path / "final").exists()


def test_standard_output_gets_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RunInfo("stage", {}, {}).write("-")
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_a_folder_tells_names_and_contents(tmp_path: Path) -> None:
    hashes = set()
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"2")):
        folder = tmp_path / str(len(hashes))
        folder.mkdir()
        (folder / name).write_bytes(content)
        hashes.add(hash_input(folder)["sha256"])
    assert len(hashes) == 3
    assert hash_input("t5-small") == {"path": "t5-small", "sha256": None}


def test_a_missing_record_is_empty_and_a_broken_one_is_told(tmp_path: Path) -> None:
    assert read_run(tmp_path) == {}
    for content in ("[1]", "{"):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(IdgrError, match="is not a JSON object"):
            read_run(tmp_path)


def test_what_a_record_and_a_run_differ_in_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one\n")
    run = RunInfo("train-rec", {"lr": 0.1, "ema": 0.0, "model": "nano"}, {"train": path, "valid": None})
    now = run.made_of()
    assert differences(now, now) == ""
    older = {**now, "options": {"lr": 0.1, "model": "nano"}}  # from before there was --ema
    assert differences(older, now) == ""
    assert differences(older, {**now, "options": {**now["options"], "ema": 0.9}}) == "made with --ema None, not 0.9"
    other = RunInfo("train-rec", {"lr": 0.2, "ema": 0.0, "model": "nano"}, {"train": path, "valid": path}).made_of()
    assert differences(now, other) == "made with --lr 0.1, not 0.2, made without --valid"
    path.write_text("two\n")
    assert differences(now, run.made_of()) == f"made from another train than {path}"
    assert differences({**now, "command": "init-gen"}, now) == "made by `idgr init-gen`"
    piped = RunInfo("train-rec", run.options, {"train": "-"}).made_of()
    assert "cannot be compared" in differences(piped, piped)


def test_the_part_of_a_split_that_a_file_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for part in ("items", "train", "valid", "test"):
        (data / f"{part}.jsonl").write_text(part)
    assert recorded_part(data / "test.jsonl") is None, "there is no record"
    RunInfo("prep jsonl", {}, {}).write(data)
    assert [recorded_part(data / f"{part}.jsonl") for part in ("items", "train", "valid", "test")] == [
        *("items", "train", "valid", "test")
    ]
    (data / "renamed.jsonl").write_text("test")
    assert recorded_part(data / "renamed.jsonl") == "test", "by its hash, whatever its name"
    (data / "test.jsonl").write_text("changed")
    assert recorded_part(data / "test.jsonl") is None
    assert recorded_part(data / "none.jsonl") is recorded_part("-") is None


def test_options_and_inputs_are_spelled_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one\n")
    now = RunInfo("train-rec", {"user_ids": "history", "max-history": 20}, {"item_vectors": path}).made_of()
    assert now["options"] == {"user-ids": "history", "max-history": 20}
    assert list(now["inputs"]) == ["item-vectors"]
    older = {
        **now,
        "options": {"user_ids": "history", "max_history": 20},
        "inputs": {"item_vectors": now["inputs"]["item-vectors"]},
    }
    assert differences(older, now) == ""
    older["options"] = {"user_ids": "none", "max_history": 20}
    assert differences(older, now) == "made with --user-ids none, not history"
