"""Kill an idgr command before its n-th file operation, and tell which state is left.

    killed, operations = run_killed(["prep", "jsonl", "s.jsonl", "--meta", "m.jsonl", "-o", "data"], folder, at=17)
    assert which(snapshot(folder / "data"), old=old, new=new) in ("old", "new")

The command runs in a process of its own, where an audit hook sees every operation that changes what lies below the
folder before it is done. Run as a script, this file is that process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_TWO_NAMES = ("os.rename", "os.link", "os.symlink")
_CHANGES = (
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "open",
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RANDOM = re.compile(r"(?<=\.)[a-z0-9_]{8}(?=\.(tmp|old))")
_OF_TIME = ("started", "seconds", "instances_per_second")  # in which the records of two runs that are alike differ

Snapshot = dict[str, str]


def run_killed(
    arguments: Sequence[str],
    cwd: Path,
    at: int | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    codes: Iterable[int] = (0,),
    timeout: float = 300,
) -> tuple[bool, list[str]]:
    """Run `idgr ARGUMENTS` in `cwd`, and kill it (SIGKILL) before its file operation number `at`, counted from 0.

    Args:
        at: None to let it end by itself, which tells its operations.
        codes: with which exit codes it may end, if it is not killed.

    Returns:
        Whether it was killed, and its operations below `cwd` so far (the one that it was killed before is the last),
        such as `rename .data.????????.tmp data`.
    """
    reader, writer = os.pipe()
    words = [sys.executable, __file__, str(-1 if at is None else at), str(cwd.resolve()), str(writer), *arguments]
    added = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    with (
        subprocess.Popen(
            words,
            cwd=cwd,
            env=os.environ | added,
            pass_fds=[writer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
        open(reader, encoding="utf-8", errors="replace") as told,
    ):
        os.close(writer)
        said, _ = process.communicate(stdin, timeout=timeout)
        operations = told.read().splitlines()
    killed = process.returncode == -signal.SIGKILL
    if not killed and process.returncode not in codes:
        raise AssertionError(f"idgr {' '.join(arguments)} ended with {process.returncode}: {said.decode()}")
    return killed, operations


def snapshot(place: Path, *, hidden: bool = False) -> Snapshot:
    """What lies at a path, a file or a folder, by relative name; empty where nothing does.

    A file is told by the hash of its bytes, a link by what it names. Of records and logs the times are left out.

    Args:
        hidden: whether names that begin with a dot count, such as what a killed run has left.
    """
    if place.is_symlink() or place.is_file():
        return {".": _told(place)}
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if hidden or not any(part.startswith(".") for part in name.parts):
            found[name.as_posix()] = _told(path)
    return found if found or not place.is_dir() else {".": "folder"}


def which(now: Snapshot, **states: Snapshot) -> str:
    """The name of the state that a snapshot is equal to.

    Raises:
        AssertionError: it is none of them; telling how it differs from each.
    """
    for name, state in states.items():
        if now == state:
            return name
    differences = {
        name: sorted(key for key in {*state, *now} if state.get(key) != now.get(key)) for name, state in states.items()
    }
    raise AssertionError(f"none of the states; it differs from them in {differences}")


def leftovers(folder: Path) -> list[str]:
    """The hidden names in a folder and below: what only a killed run may leave, until the next one."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def _told(path: Path) -> str:
    if path.is_symlink():
        return f"-> {os.readlink(path)}"  # noqa: PTH115 - a link's words, not resolved
    if path.is_dir():
        return "folder"
    data = path.read_bytes()
    if path.name.endswith("run.json") or path.name == "log.jsonl":
        try:
            whole = [data] if path.name.endswith("run.json") else data.splitlines()
            data = json.dumps([_timeless(json.loads(part)) for part in whole]).encode()
        except ValueError:
            pass  # cut short: told by its bytes
    return hashlib.sha256(data).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        # The hash of a record beside a file of a run follows from that record's times.
        kept = {key: inner for key, inner in value.items() if key not in _OF_TIME and not key.endswith(".run.json")}
        return {key: _timeless(inner) for key, inner in kept.items()}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _watch(at: int, root: str, told: int) -> None:
    """Tell every operation that changes something below `root` to the descriptor `told`; die before number `at`."""
    done = 0

    def step(words: str) -> None:
        nonlocal done
        os.write(told, f"{_RANDOM.sub('????????', words)}\n".encode(errors="replace"))
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    def short(path: Any) -> str | None:
        """A name relative to the root; None where it is elsewhere."""
        if isinstance(path, int):
            return "(open file)"
        name = os.fsdecode(path)
        if not name.startswith("/"):
            return name
        return os.path.relpath(name, root) if name.startswith(f"{root}/") else None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not isinstance(arguments[0], (str, bytes, os.PathLike, int)):
            return
        if event == "open" and (isinstance(arguments[0], int) or not (arguments[2] or 0) & _WRITES):
            return
        names = [short(path) for path in arguments[: 2 if event in _TWO_NAMES else 1]]
        if None not in names:
            step(" ".join([event.removeprefix("os."), *map(str, names)]))

    def synced(function: Any) -> Any:
        def call(handle: int) -> None:
            step(f"{function.__name__} (open file)")
            function(handle)

        return call

    for name in ("fsync", "fdatasync"):  # the system's calls that are not announced
        setattr(os, name, synced(getattr(os, name)))
    sys.addaudithook(hook)


if __name__ == "__main__":
    from idgr.cli.main import main

    _watch(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    del sys.argv[1:4]
    main(sys.argv[1:])
