"""What may be trained or chosen on: the part of a split that is meant for it, and never test.jsonl.

Every command that trains, chooses between results, or counts a baseline asks here. Parts are known by their hashes in
the records of `idgr prep`, so a file's name says nothing; what comes through standard input cannot be told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from idgr.errors import IdgrError
from idgr.formats.jsonl import Lines
from idgr.formats.records import Query, Sequence
from idgr.formats.run_info import PARTS, read_run, recorded_part, sha256_file

Place = str | os.PathLike[str] | None

# The part that each of these inputs has to be, where it is one at all.
_PART_OF_ROLE = {"train": "train", "valid": "valid", "truth": "valid"}
_RAW = "raw"


def refuse_held_out(inputs: Mapping[str, Place], beside: Iterable[Place] = ()) -> None:
    """Refuse what must not be trained or chosen on.

    `train` must not be valid.jsonl or test.jsonl of a split, nor the sequences that `idgr prep` split; `valid` and
    `truth`, which choose, must not be train.jsonl or test.jsonl; no other input may be a held-out part.

    Args:
        inputs: the paths by role, as in a record.
        beside: further paths by which a prepared folder may be found.

    Raises:
        IdgrError: an input is another part than its role asks for; or a record beside it is broken.
    """
    files = {role: Path(path) for role, path in inputs.items() if path is not None and Path(path).is_file()}
    for role, path in files.items():
        wanted = _PART_OF_ROLE.get(role)
        part, folder = recorded_part(path), path.parent
        if part is None and wanted is not None:
            part, folder = _part_nearby(path, [*inputs.values(), *beside])
        if part is None or part == wanted or (wanted is None and part in ("items", "train")):
            continue
        todo = f"give another file to --{role}" if wanted is None else f"give {wanted}.jsonl"
        if part == _RAW:
            todo = f"give {wanted}.jsonl of {folder}, or split it with `idgr prep`"
            raise IdgrError(f"is what {folder} was prepared from, with its held-out items", todo, where=path)
        if part == "test":
            raise IdgrError(f"is test.jsonl of {folder}, on which nothing is trained or chosen", todo, where=path)
        raise IdgrError(f"is {part}.jsonl of {folder}, not {wanted or 'for this'}", todo, where=path)


def refuse_made_on_test(path: str | os.PathLike[str], role: str, what: str, todo: str) -> None:
    """Refuse an output for a choice whose record says that it was made from test.jsonl, if that still lies there.

    Args:
        role: of the input in the record.
        what: what is wrong then.

    Raises:
        IdgrError: it was.
    """
    inputs = read_run(path).get("inputs")
    entry = inputs.get(role) if isinstance(inputs, dict) else None
    told = entry if isinstance(entry, dict) else {}
    source = told.get("path")
    if isinstance(source, str) and recorded_part(source) == "test" and sha256_file(source) == told.get("sha256"):
        raise IdgrError(f"{what} {source}", todo, where=path)


def refuse_targets_in_training(
    train: str | os.PathLike[str], sequences: Iterable[Sequence], queries: Iterable[Query]
) -> None:
    """Refuse training sequences that go on to what is held out to choose by, whatever file they come from.

    Args:
        train: the file of the sequences.
        queries: of validation, each with a target.

    Raises:
        IdgrError: a sequence holds a target behind its history.
    """
    items_of = {row.user_id: row.items for row in sequences}
    known = [
        query
        for query in queries
        if (items := items_of.get(query.user_id, ()))
        and len(items) > (end := len(query.history))
        and items[end] == query.target
        and items[:end] == query.history
    ]
    if known:
        first = known[0]
        raise IdgrError(
            f"goes on to the held-out targets of {len(known)} users, such as {first.user_id!r}'s {first.target!r}",
            "give train.jsonl and valid.jsonl of one split",
            where=train,
        )


def _part_nearby(path: Path, beside: Iterable[Place]) -> tuple[str | None, Path]:
    """Which part, or source, of a split nearby a file is, and where that is: of a copy, or of raw sequences."""
    hashes: set[str] = set()
    for folder, record in _splits_nearby(beside):
        hashes = hashes or _hashes(path)
        outputs, sources = record.get("outputs"), record.get("inputs")
        for part in PARTS:
            if isinstance(outputs, dict) and outputs.get(f"{part}.jsonl") in hashes:
                return part, folder
        for source in sources.values() if isinstance(sources, dict) else ():
            if isinstance(source, dict) and source.get("sha256") in hashes:
                return _RAW, folder
    return None, path.parent


def _hashes(path: Path) -> set[str]:
    """Of a file as it is and, if it is compressed, of what is in it."""
    found = {sha256_file(path)}
    if path.suffix == ".gz":
        import hashlib

        whole = hashlib.sha256()
        for _, block in Lines(path, allow_empty=True).blocks(1024):
            whole.update(b"".join(block))
        found.add(whole.hexdigest())
    return found


def _splits_nearby(beside: Iterable[Place]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Prepared folders, with their records, where files lie, next to that, and where the files were made from."""
    places: dict[Path, None] = {}
    for path in (Path(path) for path in beside if path is not None and Path(path).exists()):
        places[path.parent] = None
        sources = _record(path).get("inputs")
        for source in sources.values() if isinstance(sources, dict) else ():
            if isinstance(source, dict) and isinstance(source.get("path"), str):
                places[Path(source["path"]).parent] = None
    folders = dict(places)
    for place in places:
        above = place.absolute().parent
        for near in (place, *([above] if above != above.parent else [])):
            with suppress(OSError, ValueError):  # one that may not be listed, or a record's name that none can have
                folders |= {Path(entry.path): None for entry in os.scandir(near) if entry.is_dir()}
    for folder in folders:
        if str((record := _record(folder)).get("command", "")).startswith("prep "):
            yield folder, record


def _record(output: Path) -> dict[str, Any]:
    """The record of an output; empty also where it is broken: a neighbour's is not this command's fault to tell."""
    try:
        return read_run(output)
    except (IdgrError, OSError, ValueError):
        return {}
