"""A folder takes its name whole and in one step, and takes the place of nothing but its own command's output."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idgr.errors import IdgrError, UsageError
from idgr.formats import claims, replacing, swap
from idgr.formats.claims import check_file, check_folder, mount_points
from idgr.formats.jsonl import replace_file, replace_folder, write_json
from idgr.formats.replacing import discard, is_leftover


def put(place: Path, *names: str, command: str = "prep demo") -> None:
    """An output folder of a command, with files of these names and their record."""
    with replace_folder(place, command) as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        outputs = {os.fsencode(name).decode(errors="backslashreplace"): "hash" for name in names}
        write_json(folder / "run.json", {"command": command, "outputs": outputs})


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "exchange", lambda one, other: False)


@pytest.mark.parametrize("can", [True, False], ids=["exchange", "two renames"])
def test_a_folder_of_ours_is_replaced_whole(can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can:
        without_exchange(monkeypatch)
    put(tmp_path / "out", "old", "sub/deep")
    put(tmp_path / "out", "new")
    assert names(tmp_path) == ["out", "out/new", "out/run.json"]


@pytest.mark.parametrize("can", [True, False], ids=["exchange", "two renames"])
def test_a_link_is_replaced_and_what_it_names_is_kept(
    can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can:
        without_exchange(monkeypatch)
    put(tmp_path / "elsewhere", "old")
    (tmp_path / "out").symlink_to("elsewhere")
    put(tmp_path / "out", "new")
    assert names(tmp_path) == ["elsewhere", "elsewhere/old", "elsewhere/run.json", "out", "out/new", "out/run.json"]
    (tmp_path / "out").rename(tmp_path / "new")
    (tmp_path / "out").symlink_to("nowhere")
    put(tmp_path / "out", "new")
    assert not (tmp_path / "out").is_symlink()


def test_a_failed_folder_leaves_the_earlier_one(tmp_path: Path) -> None:
    put(tmp_path / "out", "old")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), replace_folder(tmp_path / "out", "prep demo") as folder:
        fail(folder)
    assert names(tmp_path) == ["out", "out/old", "out/run.json"]


def test_the_earlier_folder_is_put_back_where_the_second_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_exchange(monkeypatch)
    put(tmp_path / "out", "old")
    replace, targets = Path.replace, list[str]()

    def second_fails(path: Path, target: Path) -> Path:
        targets.append(target.name)
        if targets.count("out") == 1 and target.name == "out":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(IdgrError, match=r"out: cannot be written \(Permission denied"):
        put(tmp_path / "out", "new")
    assert targets == ["run.json", "old", "out", "out"]
    assert names(tmp_path) == ["out", "out/old", "out/run.json"]


def test_what_a_killed_run_left_is_put_back(tmp_path: Path) -> None:
    put(tmp_path / "out", "old")
    (tmp_path / ".out.abcd1234.old").mkdir()
    (tmp_path / "out").rename(tmp_path / ".out.abcd1234.old/old")
    (tmp_path / ".out.efgh5678.tmp").mkdir()
    (tmp_path / ".out.link5678.tmp").symlink_to("nowhere")
    with pytest.raises(RuntimeError), replace_folder(tmp_path / "out", "prep demo"):
        raise RuntimeError
    assert names(tmp_path) == ["out", "out/old", "out/run.json"]


def put_notes(place: Path) -> None:
    (place / "notes.txt").write_text("mine")


def put_empty_folder(place: Path) -> None:
    (place / "mine").mkdir()


def put_link(place: Path) -> None:
    (place / "mine").symlink_to("/")


def put_below(place: Path) -> None:
    (place / "sub").mkdir()
    (place / "sub/run.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "named"),
    [(put_notes, "notes.txt"), (put_empty_folder, "mine/"), (put_link, "mine"), (put_below, "sub/run.json")],
)
def test_a_folder_that_holds_anything_else_is_refused(
    change: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    put(tmp_path / "out", "old")
    change(tmp_path / "out")
    before = names(tmp_path)
    with pytest.raises(IdgrError, match=f"out: holds {named}, which `idgr prep demo` did not write; move that"):
        replace_folder(tmp_path / "out", "prep jsonl").__enter__()
    assert names(tmp_path) == before


def test_a_log_and_missing_files_are_no_strangers(tmp_path: Path) -> None:
    put(tmp_path / "out", "old", "older", "b\udcff")
    (tmp_path / "out/log.jsonl").touch()
    (tmp_path / "out/old").unlink()
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert "b\\xff" in record["outputs"]
    put(tmp_path / "out", "new")
    assert names(tmp_path / "out") == ["new", "run.json"]


def test_what_comes_in_during_the_work_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "out", "old")
    with replace_folder(tmp_path / "out", "prep demo") as folder:
        (tmp_path / "out/notes.txt").write_text("mine")
        (folder / "new").touch()
    assert names(tmp_path / "out") == ["new"]
    (kept,) = tmp_path.glob("out.kept-*")
    assert names(kept) == ["notes.txt", "old", "run.json"]
    assert f"notes.txt came into {tmp_path / 'out'} meanwhile" in capsys.readouterr().err


def test_a_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "out", "old", command="train-rec")
    for command in ("prep demo", "train-gen", "export"):
        with pytest.raises(IdgrError, match="holds another output of idgr, made by `idgr train-rec`; give another"):
            replace_folder(tmp_path / "out", command).__enter__()
    put(tmp_path / "data", "old", command="prep demo")
    put(tmp_path / "data", "new", command="prep jsonl")


@pytest.mark.parametrize("record", ["{", "[]", "{}", '{"command": 3, "outputs": {}}', '{"command": "prep"}', "null"])
def test_a_folder_whose_record_tells_nothing_is_refused(record: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(IdgrError, match=r"its run\.json does not tell which command wrote"):
        check_folder(tmp_path, "prep demo")


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(IdgrError, match="was not written by idgr"), replace_folder(tmp_path):
        pass
    with pytest.raises(IdgrError, match="is a file"), replace_folder(tmp_path / "precious"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_an_input_is_never_in_what_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "out", "sub/train.jsonl")
    (tmp_path / "link").symlink_to("out")
    for name in ("out", "out/sub", "out/sub/train.jsonl", "link/sub/train.jsonl", "./sub/../out/sub/train.jsonl"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=f"-o out would take the place of {name}, which is read; give another"):
            check_folder("out", "prep jsonl", [None, "-", "t5-small", name])
    check_folder("out", "prep jsonl", ["sub", "out2"])
    check_folder("link", "prep jsonl", ["link/sub/train.jsonl"])  # what a link names stays


@pytest.mark.parametrize("name", ["", ".", "..", "/", "sub/..", "//", "./"])
def test_a_name_that_is_none_of_its_own_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is no name of its own; give the name"):
        replace_folder(name, "prep demo").__enter__()
    with pytest.raises(IdgrError, match="is a folder; give the name of a file"):
        replace_file(name or ".").__enter__()
    assert names(tmp_path) == ["sub"]


@pytest.mark.parametrize(("here", "name"), [("out", "../out"), ("out/sub", "../../out")])
def test_the_current_folder_is_not_replaced(
    here: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "out", "sub/x")
    monkeypatch.chdir(tmp_path / here)
    with pytest.raises(UsageError, match=f"-o {name} is the current folder, or holds it; run idgr from another"):
        replace_folder(name, "prep demo").__enter__()
    assert names(tmp_path) == ["out", "out/run.json", "out/sub", "out/sub/x"]


def test_a_relative_name_stays_right_where_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    put(tmp_path / "out", "old")
    with replace_folder("out", "prep demo") as folder, replace_file("file") as stream:
        monkeypatch.chdir("sub")
        (folder / "new").touch()
        stream.write(b"new")
    assert names(tmp_path) == ["file", "out", "out/new", "sub"]


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for replace in (replace_folder, replace_file):
        with pytest.raises(IdgrError, match=r"out: cannot be written \(No such file"):
            replace("out").__enter__()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "a/b/c", "prep demo")
    check_file(tmp_path / "a/b/c.json")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file/x", tmp_path / "file/x/y"):
        with pytest.raises(IdgrError, match=r"cannot be written \(Not a directory"):
            check_folder(place, "prep demo")
        with pytest.raises(IdgrError, match=r"cannot be written \(Not a directory"):
            check_file(place)
    assert names(tmp_path) == ["file"]


def test_a_mount_point_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "mount_points", lambda: {tmp_path / "out"})
    (tmp_path / "out").mkdir()
    with pytest.raises(IdgrError, match="is a mount point, which cannot be replaced; give a folder inside it"):
        replace_folder(tmp_path / "out").__enter__()
    put(tmp_path / "out/data", "new")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder of this file system mounted on another, with a space in its name, where the system lets us."""
    (tmp_path / "big").mkdir()
    place = tmp_path / "o ut"
    place.mkdir()
    done = subprocess.run(["mount", "--bind", str(tmp_path / "big"), str(place)], capture_output=True)  # noqa: S607
    if done.returncode:
        pytest.skip("this system lets us mount nothing")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def test_mount_points_are_known(mounted: Path) -> None:
    assert mounted in mount_points()
    with pytest.raises(IdgrError, match="is a mount point"):
        check_folder(mounted)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_all_in_a_folder_has_the_permissions_of_new_files(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with replace_folder(tmp_path / "out") as folder:
            (folder / "sub").mkdir(0o700)
            for name in ("weights", "sub/more"):
                (folder / name).touch(0o600)
            (folder / "link").symlink_to("weights")
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("weights", "sub/more", "sub", "")
    }
    assert modes == {"weights": 0o666 & ~mask, "sub/more": 0o666 & ~mask, "sub": 0o777 & ~mask, "": 0o777 & ~mask}


def test_a_folder_for_a_group_stays_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    put(tmp_path / "out", "new")
    assert (tmp_path / "out").stat().st_mode & stat.S_ISGID


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is seen on the disk from now on, in order, with the renames that are done meanwhile."""
    done: list[str] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def replaced(function: Any) -> Any:
        def call(path: Path, target: Path) -> Any:
            done.append("rename")
            return function(path, target)

        return call

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "replace", replaced(Path.replace))
    monkeypatch.setattr(swap, "exchange", replaced(swap.exchange))
    return done


def test_an_output_is_on_the_disk_before_it_has_its_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell the name of an open file")
    put(tmp_path / "out", "old")
    done = synced(monkeypatch)
    with replace_folder(tmp_path / "out", "prep demo") as folder:
        temporary = folder.name
        (folder / "sub").mkdir()
        (folder / "sub/weights").touch()
        write_json(folder / "run.json", {})
    assert done == ["rename", "weights", "sub", "run.json", temporary, "rename", tmp_path.name]
    done.clear()
    write_json(tmp_path / "x.json", {})
    assert done[0].startswith(".x.json.")
    assert done[1:] == ["rename", tmp_path.name]


def test_a_leftover_that_cannot_be_removed_is_told_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "out", "old")

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        put(tmp_path / "out", "new")
    assert names(tmp_path / "out") == ["new", "run.json"]
    assert "is left over and cannot be removed (Permission denied)" in capsys.readouterr().err
    put(tmp_path / "out", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the next run tidies up"


def test_names_of_unfinished_outputs_are_told_from_others() -> None:
    assert replacing.is_leftover(Path("x/.rec.abc_1234.tmp"))
    for name in (".notes.old", "rec.abc_1234.tmp", ".rec.abc_1234.txt", ".rec.abc.tmp"):
        assert not replacing.is_leftover(Path(name))


def test_a_discarded_folder_is_gone_or_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text("x")
    discard(tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]
    monkeypatch.setattr("idgr.formats.replacing.remove", lambda path: None)  # as after a kill
    discard(tmp_path / "cut")
    (left,) = tmp_path.iterdir()
    assert is_leftover(left)
    assert (left / "inner" / "file").read_text() == "x"
