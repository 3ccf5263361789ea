"""What a run reads while others write: files of the shell, folders that grow, names at the edge of what may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from idgr.errors import IdgrError, UsageError
from idgr.formats.inputs import Input, hash_input
from idgr.formats.run_info import RunInfo, read_run


@contextmanager
def descriptor(number: int, path: Path, flags: int) -> Iterator[None]:
    """Give this process what a shell gives it with `< FILE` or `>> FILE`."""
    before, opened = os.dup(number), os.open(path, flags)
    os.dup2(opened, number)
    try:
        yield
    finally:
        os.dup2(before, number)
        os.close(before)
        os.close(opened)


def test_a_file_that_the_shell_opens_is_not_overwritten(tmp_path: Path) -> None:
    path, other = tmp_path / "x.jsonl", tmp_path / "other.jsonl"
    path.write_text("{}\n")
    (tmp_path / "link").hardlink_to(path)
    with descriptor(0, path, os.O_RDONLY):
        for output in (path, tmp_path / "link"):
            with pytest.raises(UsageError, match=r"take the place of the input standard input \(recs\)"):
                RunInfo("eval", {}, {"recs": "-"}, outputs=[output])
        RunInfo("eval", {}, {"recs": "-"}, outputs=[other])
        RunInfo("eval", {}, {"recs": other}, outputs=[path])  # nobody reads standard input
    with descriptor(1, path, os.O_WRONLY | os.O_APPEND):
        with pytest.raises(UsageError, match="the output standard output would take the place of the input"):
            RunInfo("eval", {}, {"recs": path}, outputs=["-"])
        with descriptor(0, path, os.O_RDONLY), pytest.raises(UsageError, match="standard output"):
            RunInfo("eval", {}, {"recs": "-"}, outputs=["-"])
    with descriptor(0, Path(os.devnull), os.O_RDWR), descriptor(1, Path(os.devnull), os.O_RDWR):
        RunInfo("eval", {}, {"recs": "-"}, outputs=["-"])  # one device is no file that could be lost


def test_what_comes_into_a_folder_that_is_read_is_told(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "model" / "audit.json"
    model.mkdir()
    (model / "config.json").write_text("{}")
    run = RunInfo("audit", {}, {"path": model}, outputs=[output])
    digest = hash_input(model)["sha256"]
    output.write_text("{}")
    (model / ".audit.json.lock").write_text("of another run")
    run.write(output)
    assert read_run(output)["inputs"]["path"]["sha256"] == digest, "its own output is no part of what it read"
    (model / "model-2.safetensors").write_text("could have been read")
    with pytest.raises(IdgrError, match=r"model-2\.safetensors: was changed while it was read; run again"):
        run.check_unchanged()


def test_names_that_no_file_can_have_are_names_of_models(tmp_path: Path) -> None:
    name = "x" * 5000
    assert hash_input(name) == Input(name).entry() == {"path": name, "sha256": None}
    assert read_run(tmp_path / ("y" * 250)) == {}


def test_an_output_has_room_for_the_name_of_its_record(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 116)  # of two bytes each
    run = RunInfo("stats", {}, {}, outputs=[longest])
    with run.replace_file(longest) as stream:
        stream.write(b"{}\n")
    assert read_run(longest)["command"] == "stats"
    with pytest.raises(UsageError, match="too long a name"):
        RunInfo("stats", {}, {}, outputs=[tmp_path / ("x" * 233)])


def test_what_was_read_may_change_afterwards(tmp_path: Path) -> None:
    ids, histories, output = (tmp_path / name for name in ("ids.jsonl", "test.jsonl", "recs.jsonl"))
    ids.write_text("ids")
    histories.write_text("histories")
    run = RunInfo("recommend", {}, {"ids": ids, "histories": histories}, outputs=[output])
    read = {role: hash_input(path) for role, path in (("ids", ids), ("histories", histories))}
    run.inputs_read("histories")
    ids.write_text("of the next round")
    with run.replace_file(output) as stream:
        stream.write(b"{}\n")
    assert read_run(output)["inputs"] == {role: {**entry, "path": str(entry["path"])} for role, entry in read.items()}
    histories.write_text("changed before its end was read")
    with pytest.raises(IdgrError, match=r"test\.jsonl: was changed while it was read"):
        run.check_unchanged()
    late = RunInfo("recommend", {}, {"ids": ids}, outputs=[output])
    ids.unlink()
    with pytest.raises(IdgrError, match=r"ids\.jsonl: was changed while it was read"):
        late.inputs_read()


def test_nothing_is_hashed_for_a_run_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tmp_path / "ids.jsonl"
    ids.write_text("ids")

    def hashes(path: Path) -> str:
        raise AssertionError(path)

    run = RunInfo("recommend", {}, {"ids": ids}, outputs=["-", None])
    monkeypatch.setattr("idgr.formats.inputs.sha256_file", hashes)
    run.inputs_read()
    with run.replace_file("-") as stream:
        stream.write(b"")
