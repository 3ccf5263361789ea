"""Damaged copies of a file, the same for the same seed: bits turned over, cut short, grown, a stretch overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Damaged:
    """What has been done to a file, and its bytes since; they always differ from the file's."""

    what: str
    content: bytes


def damaged_files(path: str | os.PathLike[str], count: int, seed: int) -> Iterator[Damaged]:
    """`count` damaged copies of a file that is not empty, by turns of each kind.

    Half of the turned bits are among the first 1,000 bytes, where headers are.
    """
    whole = Path(path).read_bytes()
    random = np.random.default_rng(seed)
    for number in range(count):
        content = bytearray(whole)
        kind = number % 5
        if kind in (0, 1):
            most = len(whole) if kind else min(len(whole), 1000)
            places = np.unique(random.integers(0, most, size=int(random.integers(1, 5))))
            for place in places.tolist():
                content[place] ^= 1 << int(random.integers(8))
            what = f"bits turned over in the bytes {places.tolist()}"
        elif kind == 2:
            kept = int(random.integers(0, len(whole)))
            del content[kept:]
            what = f"cut after {kept} of {len(whole)} bytes"
        elif kind == 3:
            more = random.bytes(int(random.integers(1, 64)))
            place = int(random.integers(0, len(whole) + 1))
            content[place:place] = more
            what = f"{len(more)} bytes put in at {place}"
        else:
            place = int(random.integers(0, len(whole)))
            new = random.bytes(min(16, len(whole) - place))
            if bytes(content[place : place + len(new)]) == new:
                new = bytes(byte ^ 255 for byte in new)
            content[place : place + len(new)] = new
            what = f"{len(new)} bytes overwritten at {place}"
        yield Damaged(what, bytes(content))
