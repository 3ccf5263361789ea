"""The folder of an alternate training: whose it is, and what lies in it, told from what someone else has put there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from idgr.alternation.phases import Alternation
from idgr.errors import IdgrError
from idgr.formats.claims import final_place, foreign_in
from idgr.formats.lock import hold
from idgr.formats.replacing import discard, is_leftover, remove
from idgr.formats.run_info import RUN_FILE, differences, read_run

_OF_RUN = re.compile(r"metrics\.jsonl|run\.json|\.metrics\.jsonl\.lock|\.run\.json\.lock")
_ROUND = re.compile(r"round-\d+|final")
_FILES = re.compile(
    r"((ids|candidates|train|held|chosen|left)\.jsonl|decision\.json)(\.run\.json)?|metrics\.json|\..+\.lock"
)
_MODEL = "gen|rec|mixed|tried|same|control|taught"
_MODELS = re.compile(_MODEL)
_CHECKPOINTS = re.compile(rf"\.({_MODEL})\.checkpoint")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder."""
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(final_place(folder), folder))
        except OSError as fault:
            what = f"cannot be written ({fault.strerror or fault})"
            raise IdgrError(what, "choose another -o or free its disk", where=folder) from None
        yield


def claim(folder: Path, now: dict[str, Any], what: Alternation, overwrite: bool) -> None:
    """Refuse a folder that is not this run's; with `overwrite`, empty one that is a run's.

    Raises:
        IdgrError: the folder holds something else, or a run that is not the same.
    """
    # A run that was cut off before its first word may have left a hidden file.
    if not folder.exists() or (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())):
        folder.mkdir(parents=True, exist_ok=True)
        return
    record = read_run(folder) if folder.is_dir() else {}
    if record.get("command") != "alternate":
        raise IdgrError("is not a run of `idgr alternate`", "give another folder to -o", where=folder)
    if overwrite:
        _check_run(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN_FILE):  # last, what tells whose it is
            discard(path) if path.is_dir() and not path.is_symlink() else remove(path)
        return
    before = record.get("options", {})
    rounds = before.get("rounds", 0)
    if isinstance(rounds, int) and what.goes_on_from(rounds):
        before = {**before, "rounds": now["options"]["rounds"]}
    if found := differences({**record, "options": before}, now):
        todo = "give the same, another folder to -o, or --overwrite to begin anew"
        raise IdgrError(f"was {found}", todo, where=folder)


def check_model(folder: Path) -> None:
    """Raise `IdgrError` where a model's folder holds what its record does not list, which would be lost with it."""
    if folder.is_dir() and not folder.is_symlink() and (strange := foreign_in(folder)) is not None:
        _refuse(folder, strange)


def _check_run(run: Path) -> None:
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
