"""Whether a model fits into the machine's memory, told before any of it is loaded."""

from __future__ import annotations

from math import prod
from pathlib import Path

from idgr.errors import IdgrError
from idgr.models.gguf import gguf_numbers
from idgr.models.gguf_header import find_gguf, read_gguf_header
from idgr.models.hub import find_folder
from idgr.models.weight_files import floats, read_headers

_MEMINFO = Path("/proc/meminfo")
_GIB = 1 << 30


def free_memory() -> int | None:
    """The bytes that a program may take without others being thrown out, swap included; None where it is not told."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
        return (kib["MemAvailable"] + kib.get("SwapFree", 0)) << 10
    except (OSError, ValueError, KeyError):
        return None


def check_memory(source: str, bytes_a_number: int) -> None:
    """Raise `IdgrError` where a model's weights would need more memory than is free.

    Args:
        source: a model folder, a GGUF file, whose numbers count as unpacked, or the name of a model on the hub.
        bytes_a_number: how much of it a number of the weights will take in all copies that are made of it.
    """
    free = free_memory()
    if free is None:
        return
    needed = _numbers(source) * bytes_a_number
    if needed > free:
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
    headers = floats(read_headers(find_folder(source, "model"), source))
    return sum(prod(header.shape) for header in headers.values())
