"""Whether a model fits into the machine's memory, told before any of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from idgr.errors import IdgrError
from idgr.models.gguf import gguf_numbers
from idgr.models.gguf_header import find_gguf, read_gguf_header
from idgr.models.hub import find_folder
from idgr.models.weight_files import Header, floats, read_headers

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Where both versions of Linux' control groups tell the limit, what is used, and what of that are files read before.
_GROUP_FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_GIB = 1 << 30


def free_memory() -> int | None:
    """The bytes that a program may take without others being thrown out, swap included; None where it is not told.

    In a container they may be fewer than the machine has.
    """
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
        available, swap = kib["MemAvailable"] << 10, kib.get("SwapFree", 0) << 10
    except (OSError, ValueError, KeyError):
        return None
    room = _group_room()
    return (available if room is None else min(available, room)) + swap


def _group_room() -> int | None:
    """The bytes that the control groups of this process leave it; None where none of them has a limit."""
    found = []
    for controllers, path in _own_groups():
        version = 0 if not controllers else 1
        if version == 1 and "memory" not in controllers.split(","):
            continue
        top, limit, used, files = _GROUP_FILES[version]
        place = _GROUPS / top / path.lstrip("/")
        for folder in (place, *place.parents):  # a group above may allow less
            if not folder.is_relative_to(_GROUPS):
                break
            try:
                most, taken = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
                told = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
                found.append(max(0, most - taken + int(told.get(files, 0))))
            except (OSError, ValueError):  # "max", or no such group in this container
                continue
    return min(found, default=None)


def _own_groups() -> list[tuple[str, str]]:
    """The controllers, none in the second version, and the path of each control group that this process is in."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    rows = [line.split(":", 2) for line in lines]
    return [(row[1], row[2]) for row in rows if len(row) == 3] + [("", "/"), ("memory", "/")]


def check_memory(source: str, bytes_a_number: int) -> None:
    """Raise `IdgrError` where a model's weights would need more memory than is free.

    Args:
        source: a model folder, a GGUF file, whose numbers count as unpacked, or the name of a model on the hub.
        bytes_a_number: how much of it a number of the weights will take in all copies that are made of it.
    """
    if free_memory() is not None:
        check_room(_numbers(source), bytes_a_number, source)


def check_room(numbers: int, bytes_a_number: int, source: str) -> None:
    """Raise `IdgrError` where so many numbers of the weights of a model would need more memory than is free."""
    free, needed = free_memory(), numbers * bytes_a_number
    if free is not None and needed > free:
        raise IdgrError(
            f"needs about {needed / _GIB:.1f} GiB of memory for its weights, and {free / _GIB:.1f} GiB are free",
            "give a smaller model, or take a machine with more memory",
            where=source,
        )


def _numbers(source: str) -> int:
    """How many numbers a model's weights are."""
    path = find_gguf(source)
    if path is not None:
        return gguf_numbers(read_gguf_header(path))
    return n_numbers(read_headers(find_folder(source, "model"), source))


def n_numbers(headers: Mapping[str, Header]) -> int:
    """How many numbers of weights there are in a folder's files."""
    return sum(prod(header.shape) for header in floats(headers).values())
