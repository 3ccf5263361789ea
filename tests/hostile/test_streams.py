"""Streams and signals: logs that nobody reads, descriptors that are closed or named, and being told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .killing import leftovers
from .test_faults import IDS, PREP, contents, idgr, one_line


@contextmanager
def bad_log(kind: str) -> Iterator[int]:
    """A descriptor for a log that nobody reads, or that finds no room."""
    if kind == "full":
        handle = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, handle = os.pipe()
        os.close(reader)
    try:
        yield handle
    finally:
        os.close(handle)


def close(*streams: int) -> Callable[[], None]:
    def before() -> None:
        for number in streams:
            os.close(number)

    return before


@pytest.mark.parametrize("kind", ["reader gone", "full", "closed"])
@pytest.mark.parametrize("words", [PREP, IDS], ids=["prep", "gen-ids"])
def test_a_log_that_cannot_be_written_stops_no_work(words: list[str], kind: str, shop: Path) -> None:
    if kind == "closed":
        done = idgr(words, before=close(2))
    else:
        with bad_log(kind) as handle:
            done = idgr(words, stderr=handle)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (shop / words[-1]).exists()
    assert leftovers(shop) == []


def test_a_training_whose_log_nobody_reads_is_finished(shop: Path) -> None:
    """As `idgr train-sasrec … 2>&1 | head -1` does to both streams."""
    words = ["train-sasrec", "train.jsonl", "--epochs", "1", "--width", "8", "-o", "sasrec"]
    with bad_log("reader gone") as handle:
        done = idgr(words, stderr=handle, stdout=handle)
    assert done.returncode == 0
    assert (shop / "sasrec/model.safetensors").is_file()
    assert (shop / "sasrec/run.json").is_file()
    plain = (shop / "train.jsonl").stat().st_mode
    assert {path.stat().st_mode for path in (shop / "sasrec").iterdir()} == {plain}, "others may read the weights"


@pytest.mark.parametrize("streams", [(2,), (0, 2), (0,)], ids=str)
def test_no_log_is_among_the_data_where_streams_are_closed(streams: tuple[int, ...], shop: Path) -> None:
    done = idgr(IDS[:-2], before=close(*streams))
    assert done.returncode == 0
    assert [json.loads(line)["item_id"] for line in done.stdout.splitlines()] == ["a", "b", "c"]


@pytest.mark.parametrize("words", [["--version"], ["gen-ids", "--help"], IDS[:-2]], ids=["version", "help", "data"])
def test_nothing_is_lost_quietly_where_standard_output_is_closed(words: list[str], shop: Path) -> None:
    done = idgr(words, before=close(1))
    assert done.returncode == 1
    assert "standard output: is closed; give the name of a file" in one_line(done)


def test_who_needs_no_standard_output_does_without(shop: Path) -> None:
    assert idgr(IDS, before=close(0, 1, 2)).returncode == 0
    assert (shop / "ids.jsonl").is_file()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_a_name_of_standard_output_is_written_on_and_never_replaced(name: str, shop: Path) -> None:
    if name != "-" and not Path("/proc/self/fd/1").exists():
        pytest.skip("this system has no such names for descriptors")
    (shop / "link").symlink_to("/dev/stdout")
    before = os.lstat("/dev/stdout").st_ino
    with open("out", "wb") as out:
        out.write(b"first\n")
        out.flush()
        assert idgr([*IDS[:-1], name], stdout=out).returncode == 0
        out.write(b"last\n")
    first, *rows, last = (shop / "out").read_bytes().splitlines()
    assert (first, len(rows), last) == (b"first", 3, b"last")
    assert os.lstat("/dev/stdout").st_ino == before
    assert (shop / "link").is_symlink()
    assert {path.name for path in shop.iterdir()} == {"s.jsonl", "m.jsonl", "train.jsonl", "link", "out"}


def test_other_descriptors_are_written_on_and_closed_ones_are_told(shop: Path) -> None:
    if not Path("/dev/fd").exists():
        pytest.skip("this system has no such names for descriptors")
    Path("other").write_bytes(b"x")
    with open("out", "wb") as out, open("other", "rb") as inputs:
        out.write(b"first\n")
        out.flush()
        number, reading = out.fileno(), inputs.fileno()
        words = [*IDS[:-1], f"/dev/fd/{number}"]
        assert idgr(words, pass_fds=[number]).returncode == 0
        done = idgr([*IDS[:-1], f"/dev/fd/{reading}"], pass_fds=[reading])
        assert "is open for reading only; give the name of a file" in one_line(done)
        assert "is closed; give the name of a file" in one_line(idgr([*IDS[:-1], "/dev/fd/99"]))
    assert len((shop / "out").read_bytes().splitlines()) == 4
    done = idgr([*IDS[:-1], "/dev/stderr"])
    assert done.returncode == 0
    assert b'{"item_id":"a"' in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize(
    "words", [["prep", "jsonl", "pipe", *PREP[3:]], ["gen-ids", "pipe", *IDS[2:]]], ids=["folder", "file"]
)
def test_a_signal_leaves_the_old_output_and_nothing_else(words: list[str], number: signal.Signals, shop: Path) -> None:
    (shop / "ids.jsonl").write_text("before")
    before = contents(shop)
    os.mkfifo("pipe")

    def heed() -> None:  # whatever whoever runs the tests does, such as `nohup` or a shell's `&`
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with started(words, before=heed) as process, open("pipe", "wb") as pipe:
        pipe.write(b'{"item_id": "a", "user_id": "u", "title": "tea"')
        pipe.flush()
        wait_for(lambda: list(shop.glob(".*.tmp")))
        said = ended_by(process, number).decode()
    assert process.returncode == 128 + number
    told = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert said == f"idgr: error: {told}; run it again\n"
    (shop / "pipe").unlink()
    assert contents(shop) == before
    assert leftovers(shop) == []


def test_a_hang_up_that_is_ignored_stays_so(shop: Path) -> None:
    """As `nohup` asks."""
    os.mkfifo("pipe")

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(["gen-ids", "pipe", *IDS[2:]], before=ignore) as process:
        with open("pipe", "wb") as pipe:
            wait_for(lambda: list(shop.glob(".*.tmp")))
            process.send_signal(signal.SIGHUP)
            pipe.write(b'{"item_id": "a", "title": "tea"}\n')
        process.communicate()
    assert process.returncode == 0
    assert (shop / "ids.jsonl").is_file()


def started(words: list[str], before: Callable[[], Any] | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "idgr", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, preexec_fn=before)


def ended_by(process: subprocess.Popen[bytes], number: signal.Signals) -> bytes:
    """What a process says that a signal ends, sent again where it came just before a read that waits for us.

    Python sees such a signal only behind the read.
    """
    for _ in range(10):
        process.send_signal(number)
        if number != signal.SIGINT:
            process.send_signal(number)  # as to the process and to its group
        try:
            return process.communicate(timeout=4)[1]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"{number} ends nothing")


def wait_for(found: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)
