"""The record beside every output."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import Lines
from idgr.formats.run_info import RunInfo, differences, hash_input, read_run, recorded_part


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_gets_its_record_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idgr.formats.limits._digests", {})  # another test may have read standard input to its end
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
    now = run.provenance()
    assert differences(now, now) == ""
    older = {**now, "options": {"lr": 0.1, "model": "nano"}}  # from before there was --ema
    assert differences(older, now) == ""
    assert differences(older, {**now, "options": {**now["options"], "ema": 0.9}}) == "made without --ema 0.9"
    other = RunInfo("train-rec", {"lr": 0.2, "ema": 0.0, "model": "nano"}, {"train": path, "valid": path}).provenance()
    assert differences(now, other) == "made with --lr 0.1, not 0.2, made without --valid"
    path.write_text("two\n")
    assert run.provenance() == now, "the hashes are those of the start"
    again = RunInfo("train-rec", run.options, run.inputs).provenance()
    assert differences(now, again) == f"made from another train than {path}"
    assert differences({**now, "command": "init-gen"}, now) == "made by `idgr init-gen`"
    piped = RunInfo("train-rec", run.options, {"train": "-"}).provenance()
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
    now = RunInfo("train-rec", {"user_ids": "history", "max-history": 20}, {"item_vectors": path}).provenance()
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


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("in_folder", [True, False])
def test_an_input_that_is_changed_during_the_run_ends_it(tmp_path: Path, hashed: bool, in_folder: bool) -> None:
    (tmp_path / "in").mkdir()
    path, output = tmp_path / "in" / "a.jsonl", tmp_path / "out.jsonl"
    path.write_text("one\n")
    run = RunInfo("stage", {}, {"data": path.parent if in_folder else path}, outputs=[output])
    if hashed:
        run.provenance()
        os.utime(path, ns=(1, 1))
        run.check_unchanged()  # it was touched, and is the same
    with pytest.raises(IdgrError) as fault, run.replace_file(output):
        path.write_text("others\n")
    assert str(fault.value) == f"{path}: was changed while it was read; run again"
    assert not output.exists()
    path.unlink()
    with pytest.raises(IdgrError, match="was changed while it was read"):
        run.write(path.parent)


def test_inputs_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one\n")
    run = RunInfo("stage", {}, {"data": path, "again": path})
    hashed: list[Path] = []
    monkeypatch.setattr("idgr.formats.inputs.sha256_file", lambda file: hashed.append(file) or "0")
    assert run.provenance() == run.provenance()
    assert hashed == [path]


def test_a_stream_is_hashed_as_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    run = RunInfo("stage", {}, {"data": pipe})
    assert run.provenance()["inputs"]["data"] == {"path": str(pipe), "sha256": None}
    content = b"a\n" * 100_000
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    lines = iter(Lines(pipe))
    next(lines)
    assert run.provenance()["inputs"]["data"]["sha256"] is None, "it is not read to its end"
    assert sum(1 for _ in lines) == 99_999
    writer.join()
    made = run.provenance()
    assert made["inputs"]["data"]["sha256"] == sha256(content)
    assert differences(made, made) == f"made from data of the stream {pipe}, which cannot be compared"


@pytest.mark.parametrize("how", ["same", "relative", "link", "hard link", "record", "in folder", "in input", "two"])
def test_an_output_that_would_take_the_place_of_an_input_is_refused(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    path, output = folder / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("x")
    outputs = {"same": path, "relative": "folder/../folder/in.jsonl", "in folder": folder, "in input": path}
    given: list[str | os.PathLike[str]] = [outputs.get(how, output)]
    read = folder if how == "in input" else path
    if how == "link":
        output.symlink_to(path)
    elif how == "hard link":
        output.hardlink_to(path)
    elif how == "record":
        read = tmp_path / "out.jsonl.run.json"
        read.write_text("{}")
    elif how == "two":
        given, read = [output, "out.jsonl"], tmp_path / "other"
    with pytest.raises(UsageError, match="are one file" if how == "two" else "would take the place of the input"):
        RunInfo("stage", {}, {"data": read}, outputs=given)
    assert path.read_text() == "x"


def test_an_output_beside_or_in_what_is_read_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("x")
    for _ in range(2):  # the second time, the output of the first lies in the folder
        run = RunInfo("stage", {}, {"folder": tmp_path}, outputs=[tmp_path / "out.jsonl", "-", None])
        with run.replace_file(tmp_path / "out.jsonl") as stream:
            stream.write(os.urandom(8))
        entry = read_run(tmp_path / "out.jsonl")["inputs"]["folder"]
        assert entry == RunInfo("stage", {}, {"folder": tmp_path}, outputs=run.outputs).provenance()["inputs"]["folder"]
    RunInfo("stage", {}, {"model": "t5-small", "data": tmp_path / "in.jsonl"}, outputs=[None, tmp_path / "new"])


def test_a_record_of_other_bytes_is_not_that_files(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("one")
    RunInfo("stage", {}, {}).write(path)
    assert read_run(path)["command"] == "stage"
    path.rename(tmp_path / "moved.jsonl")
    (tmp_path / "out.jsonl.run.json").rename(tmp_path / "moved.jsonl.run.json")
    assert read_run(tmp_path / "moved.jsonl")["command"] == "stage", "under another name it is still that file's"
    (tmp_path / "moved.jsonl").write_text("two")
    assert read_run(tmp_path / "moved.jsonl") == {}
    assert read_run(tmp_path / "moved.jsonl", checked=False)["command"] == "stage"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"options": []}', 'its "options" is not an object'),
        (b'{"outputs": 7}', 'its "outputs" is not an object'),
        (b'{"command": null}', 'its "command" is not a text'),
        (b'{"inputs": {"train": "x"}}', "its input 'train' has no path and hash"),
        (b'{"inputs": {"train": {"path": 1, "sha256": null}}}', "its input 'train' has no path and hash"),
        (b'{"outputs": {"a": 1}}', "its output 'a' has no hash"),
        (b"[" * 10_000, "is not a JSON object"),
        (b'{"a": "\xff"}', "is not a JSON object"),
        (b"", "is not a JSON object"),
    ],
)
def test_a_malformed_record_is_told_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(IdgrError) as fault:
        read_run(tmp_path)
    assert str(fault.value).startswith(f"{tmp_path / 'run.json'}: {told}")
    assert str(fault.value).endswith("; make the output again")


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """As of a version that spelled options as parameters and had no hash of standard input."""
    record = {"command": "train-rec", "options": {"user_ids": "none"}, "seed": 0, "inputs": {
        "train": {"path": "-", "sha256": None}}, "outputs": {"a": sha256(b"a")}, "kept": {"epoch": 1}}  # fmt: skip
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert read_run(tmp_path) == record
