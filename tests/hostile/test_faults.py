"""Faults of machines and habits: kills, full disks, closed pipes, two writers, clocks, locales. No file is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats import swap
from idgr.formats.jsonl import replace_folder, write_jsonl
from idgr.formats.lock import hold
from idgr.models.backbone import Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

from .killing import Snapshot, leftovers, run_killed, snapshot, which

PREP = ["prep", "jsonl", "s.jsonl", "--meta", "m.jsonl", "--overwrite", "-o", "data"]
IDS = ["gen-ids", "m.jsonl", "--model", "keyphrase", "-o", "ids.jsonl"]
POPULAR = ["recommend", "-", "--baseline", "popularity", "--train", "train.jsonl", "-k", "1"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def idgr(
    words: list[str], *, before: Callable[[], None] | None = None, **how: Any
) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "idgr", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **how.pop("env", {})}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | how
    return subprocess.run(command, env=environment, preexec_fn=before, check=False, **how)


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of a fault, which must not be one of idgr's own."""
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("idgr: error: ")]
    assert "Traceback" not in done.stderr.decode()
    assert "fault in idgr" not in line
    assert "; " in line
    return line


def states_of(words: list[str], shop: Path) -> tuple[Snapshot, Snapshot, list[str]]:
    """What an output is before a run and after it, the run being over what was there; and the run's operations."""
    path = shop / words[-1]
    assert run(words) == 0
    old = snapshot(path)
    write_jsonl("s.jsonl", ({"user_id": f"v{n}", "items": ["c", "b", "a"]} for n in range(4)))
    write_jsonl("m.jsonl", ({"item_id": item, "title": f"coffee {item}"} for item in "abc"))
    copy(path, shop / "before")
    killed, operations = run_killed(words, shop)
    assert not killed
    new = snapshot(path)
    assert old != new
    return old, new, operations


def copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        shutil.copy(source, target)
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


@pytest.mark.parametrize("words", [PREP, IDS], ids=["folder", "file"])
def test_a_kill_anywhere_leaves_the_old_output_or_the_new_one_and_the_next_run_tidies_up(
    words: list[str], shop: Path
) -> None:
    output = shop / words[-1]
    old, new, operations = states_of(words, shop)
    swapped = max(place for place, what in enumerate(operations) if what.endswith(f".tmp {words[-1]}"))
    found = []
    for place in (swapped - 1, swapped, swapped + 1, swapped + 2, len(operations) - 1):
        copy(shop / "before", output)
        killed, _ = run_killed(words, shop, at=place)
        assert killed
        found.append(which(snapshot(output), old=old, new=new))
    assert found == sorted(found, reverse=True), "the old one until the new one is there"
    assert set(found) == {"old", "new"}
    killed, _ = run_killed(words, shop)
    assert not killed
    assert snapshot(output) == new
    assert leftovers(shop) == []


def test_a_kill_between_two_renames_where_names_cannot_be_exchanged_loses_nothing(shop: Path) -> None:
    assert run(PREP) == 0
    old = snapshot(shop / "data")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        swap.exchange = lambda one, other: False
        replace = Path.replace

        def dies(path: Path, target: Path) -> Path:
            if target.name == "data":
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(path, target)

        Path.replace = dies  # type: ignore[assignment, method-assign]
        os._exit(run(PREP))
    os.waitpid(child, 0)
    assert not (shop / "data").exists()
    (kept,) = shop.glob(".data.*.old/old")
    assert snapshot(kept) == old
    assert run(["prep", "jsonl", "none.jsonl", "--meta", "m.jsonl", "--overwrite", "-o", "data"]) == 1
    assert snapshot(shop / "data") == old, "put back even by a run that fails"
    assert leftovers(shop) == []


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@pytest.mark.parametrize("output", ["data", "ids.jsonl"])
def test_a_disk_that_fills_up_is_told_and_leaves_the_old_output(output: str, shop: Path) -> None:
    """The limit on the size of files answers as a full disk does, in the middle of writing, on any system."""
    words = PREP if output == "data" else IDS
    assert run(words) == 0
    before = contents(shop)
    many = ({"item_id": item, "title": f"tea {item}"} for item in ["a", "b", "c", *map(str, range(500))])
    write_jsonl("m.jsonl", many)
    before["m.jsonl"] = (shop / "m.jsonl").read_bytes()
    done = idgr([*words, "--keep-all-items"] if output == "data" else words, before=small_files)
    assert done.returncode == 1
    assert "cannot be written (File too large); choose another -o" in one_line(done)
    assert contents(shop) == before


@pytest.fixture
def tiny() -> Backbone:
    shape = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)
    return new_backbone(shape, train_tokenizer(["red tea", "green tea"], 340), seed=0)


@pytest.mark.parametrize("limit", [1_000, 20_000])
def test_a_disk_that_fills_up_under_a_model_is_told(
    limit: int, tiny: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The libraries that write weights and vocabularies have errors of their own."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = 3
        try:
            with replace_folder(tmp_path / "model") as folder:
                save_backbone(tiny, folder)
        except BaseException as fault:
            code = 0 if "cannot be written" in str(fault) and str(tmp_path / "model") in str(fault) else 4
            os.write(2, f"{type(fault)} {fault}\n".encode())
        os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where the system lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)  # noqa: S607
    if done.returncode:
        pytest.skip("this system lets us mount nothing")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def test_a_full_disk_and_a_read_only_one_are_told(
    small_disk: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl("m.jsonl", ({"item_id": item, "title": "tea"} for item in ["a", "b", "c", *map(str, range(3000))]))
    capsys.readouterr()
    for words, name in ((PREP, "data"), (IDS, "ids.jsonl")):
        kept = ["--keep-all-items"] if words is PREP else []
        assert run([*words[:-1], str(small_disk / name), *kept]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"idgr: error: {small_disk / name}")
        assert ": cannot be written (No space left on device); choose another -o" in said
        assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)  # noqa: S607
    for words, name in ((PREP, "data"), (IDS, "ids.jsonl")):
        assert run([*words[:-1], str(small_disk / name)]) == 1
        assert f"{small_disk / name}: cannot be written (Read-only file system)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [IDS[:-2], [*IDS[:-1], "/dev/full"], ["--version"]], ids=["stdout", "device", "print"]
)
def test_a_device_that_is_full_is_told(words: list[str], shop: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb") as full:
        done = idgr(words, stdout=full)
    assert done.returncode == 1
    assert "cannot be written (No space left on device)" in one_line(done)


def test_a_file_in_place_of_a_folder_is_told(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "data").write_text("mine")
    (shop / "sub").write_text("mine")
    assert run(PREP) == 1
    assert "data: is a file, not a folder; give the name of a folder" in capsys.readouterr().err
    assert run([*IDS[:-1], "sub/ids.jsonl"]) == 1
    assert "sub/ids.jsonl: cannot be written" in capsys.readouterr().err
    assert (shop / "data").read_text() == (shop / "sub").read_text() == "mine"


@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_goes_away_is_no_fault(lines: int, shop: Path) -> None:
    """As `| head` does: after some lines, with far more to come than a pipe holds."""
    write_jsonl("m.jsonl", ({"item_id": str(item), "title": "tea " * 20} for item in range(20_000)))
    reader, writer = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-m", "idgr", *IDS[:-2]]
    with subprocess.Popen(words, stdout=writer, stderr=subprocess.PIPE, env=environment) as process:
        os.close(writer)
        with open(reader, "rb") as pipe:
            for _ in range(lines):
                assert json.loads(pipe.readline())["item_id"] == "0"
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 0, said
    assert "rror" not in said


def test_standard_input_that_ends_in_the_middle_of_a_line_is_told(shop: Path) -> None:
    done = idgr(POPULAR, stdin=None, input=b'{"user_id": "u", "history": ["a"]}\n{"user_id": "v", "hist')
    assert done.returncode == 1
    assert one_line(done).startswith("idgr: error: stdin:2: not valid JSON")
    done = idgr(POPULAR, stdin=None, input=b'{"user_id": "u", "history": ["a"]}')
    assert (done.returncode, json.loads(done.stdout)["items"]) == (0, ["b"]), "no line end is no fault"


@pytest.mark.parametrize("stream", [0, 1])
def test_a_stream_that_is_closed_is_told(stream: int, shop: Path) -> None:
    done = idgr(POPULAR, stdin=None, input=b'{"user_id": "u", "history": ["a"]}\n', before=lambda: os.close(stream))
    assert done.returncode == 1
    assert "is closed" in one_line(done)


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (PREP, "data"),
        (IDS, "ids.jsonl"),
        (["alternate", "data", "--gen", "gen", "-o", "run"], "run"),
        (["train-rec", "train.jsonl", "--ids", "ids.jsonl", "-o", "rec"], "rec"),
        (["init-gen", "m.jsonl", "-o", "gen"], "gen"),
        (["zeroshot", "data", "--gen", "gen", "--rec", "rec", "-o", "zero"], "zero"),
    ],
)
def test_a_second_run_to_one_output_is_refused_before_it_works(
    words: list[str], output: str, shop: Path, tiny: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {"gen", "rec"} - {output}:
        save_backbone(tiny, shop / name)
    (shop / "data").mkdir()
    for name in ("items", "train", "valid"):
        (shop / "data" / f"{name}.jsonl").touch()
    before = contents(shop)
    with hold(shop / output):
        assert run(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"idgr: error: {output}: is being written by process {os.getpid()} (`")
    assert said.endswith("; wait until it is done, or give another -o")
    assert contents(shop) == before


def test_a_clock_that_goes_back_changes_nothing(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(IDS) == 0
    before = (shop / "ids.jsonl").read_bytes()
    moments = iter(range(2_000_000_000, 0, -1_000_000))
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    os.utime(shop / "m.jsonl", (4_000_000_000, 4_000_000_000))  # made in the future, too
    assert run(IDS) == 0
    assert (shop / "ids.jsonl").read_bytes() == before
    assert json.loads((shop / "ids.jsonl.run.json").read_text())["seconds"] >= 0


@pytest.mark.parametrize("coerce", ["0", "1"])
def test_the_locale_c_changes_nothing(coerce: str, shop: Path) -> None:
    write_jsonl("mé.jsonl", [{"item_id": "ü", "title": "thé vert 手"}])
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": coerce, "PYTHONIOENCODING": ""}
    words = ["gen-ids", "mé.jsonl", "--model", "keyphrase"]
    done = idgr(words, env=environment)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"item_id": "ü", "id": "thé vert 手"})
    assert idgr([*words, "-o", "ïds.jsonl"], env=environment).returncode == 0
    assert json.loads((shop / "ïds.jsonl").read_text())["item_id"] == "ü"
    assert idgr(["gen-ids", "--help"], env=environment).returncode == 0
    done = idgr(["eval", "né.jsonl", "--truth", "né.jsonl", "--no-baselines"], env=environment)
    assert done.returncode == 1
    assert "cannot be read" in one_line(done)
