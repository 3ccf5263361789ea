"""Files as a user has them, and the whole command line run in this process."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run

Write = Callable[[str, Any], Path]
Prep = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file: bytes as they are, records as JSON Lines; compressed where the name ends in `.gz`."""

    def write(name: str, content: bytes | Iterable[Any]) -> Path:
        if not isinstance(content, bytes):
            content = b"".join(json.dumps(record).encode() + b"\n" for record in content)
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture
def prep(tmp_path: Path) -> Prep:
    """Run `idgr prep SOURCE EVENTS --meta META …`, over any earlier result; it must succeed. Returns the folder."""

    def prep(source: str, events: Path | str, meta: Path | str, *options: str) -> Path:
        output = tmp_path / "data"
        assert run(["prep", source, str(events), "--meta", str(meta), "-o", str(output), "--overwrite", *options]) == 0
        return output

    return prep


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def load() -> Callable[[Path], list[dict[str, Any]]]:
    """The records of a JSON Lines file."""
    return records
