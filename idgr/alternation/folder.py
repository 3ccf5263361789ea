"""What lies in the folder of an alternate training, told from what someone else has put there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from idgr.errors import IdgrError
from idgr.formats.claims import foreign_in
from idgr.formats.replacing import is_leftover

_OF_RUN = re.compile(r"metrics\.jsonl|run\.json|\.metrics\.jsonl\.lock|\.run\.json\.lock")
_ROUND = re.compile(r"round-\d+|final")
_FILES = re.compile(
    r"(ids|chosen|candidates|train|held)\.jsonl(\.run\.json)?|decision\.json(\.run\.json)?|metrics\.json|\..+\.lock"
)
_MODELS = re.compile(r"gen|rec|mixed|tried|taught")
_CHECKPOINTS = re.compile(r"\.(gen|rec|mixed|tried|taught)\.checkpoint")


def check_model(folder: Path) -> None:
    """Raise `IdgrError` where a model's folder holds what its record does not list, which would be lost with it."""
    if folder.is_dir() and not folder.is_symlink() and (strange := foreign_in(folder)) is not None:
        _refuse(folder, strange)


def check_run(run: Path) -> None:
    """Raise `IdgrError` where a run's folder holds what no alternate training wrote."""
    for path in _outputs(run):
        if path.is_dir():
            check_model(path)


def _outputs(run: Path) -> Iterator[Path]:
    for path in sorted(run.iterdir()):
        if path.is_dir() and _ROUND.fullmatch(path.name):
            for inner in sorted(path.iterdir()):
                pattern = _MODELS if inner.is_dir() else _FILES
                if pattern.fullmatch(inner.name):
                    yield inner
                elif not (is_leftover(inner) or _CHECKPOINTS.fullmatch(inner.name)):
                    _refuse(run, f"{path.name}/{inner.name}")
        elif (path.is_dir() or not _OF_RUN.fullmatch(path.name)) and not is_leftover(path):
            _refuse(run, path.name)


def _refuse(folder: Path, strange: str) -> None:
    what = f"holds {strange}, which no alternate training wrote"
    raise IdgrError(what, "move that elsewhere, or give another folder to -o", where=folder)
