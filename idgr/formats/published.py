"""What of a model's folder goes to others: the files that its `run.json` lists, and nothing of the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.formats.claims import foreign_in
from idgr.formats.inputs import RUN_FILE, sha256_file
from idgr.formats.json_file import read_object
from idgr.formats.rec_folder import CONFIG, TOKENIZER
from idgr.formats.run_info import check_form, read_run

CARD = "README.md"
MODELS = (
    "train-rec",
    "train-sasrec",
    "train-two-tower",
    "train-text-ranker",
    "init-gen",
    "train-gen",
)  # who writes such folders
_MOST_CLEANED = 1 << 20  # bytes; configurations are far smaller, vocabularies and catalogues are not
# A name of a file of such a folder: plain enough to be none of a pattern, and never a path out of the folder.
_PLAIN = re.compile(r"(?!\.)[A-Za-z0-9_.-]+\.(json|jsonl|safetensors|model|txt|jinja|md)")
# A text that is a place on some machine, and no name on the hub.
_PLACE = re.compile(r"/+\w|~[\w.-]*/|\.\.?/|file:|\\\\\w|[A-Za-z]:[\\/]")
_TODO = f"give a folder that `idgr {MODELS[0]}`, `{'`, `'.join(MODELS[1:-1])}` or `{MODELS[-1]}` wrote"


def read_listing(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The `run.json` of a model's folder, whose files are those that it lists.

    Raises:
        IdgrError: it is no folder of a model, or lists a file that is none of such a folder (a pickle, say).
    """
    if not Path(folder).is_dir():
        raise IdgrError("there is no such folder", _TODO, where=folder)
    record = read_run(folder)
    check_listing(record, folder)
    return record


def check_listing(record: Mapping[str, Any], where: str | os.PathLike[str], todo: str = _TODO) -> None:
    """Raise `IdgrError` where a record is none of a model's folder, or lists what is no file of one."""
    check_form(Path(where) / RUN_FILE, record)
    command, outputs = record.get("command"), record.get("outputs", {})
    if command not in MODELS or CONFIG not in outputs:
        made = f"was made by `idgr {command}`" if command else f"has no {RUN_FILE} of idgr"
        raise IdgrError(f"is no folder of a model: it {made}", todo, where=where)
    for name in outputs:
        if not _PLAIN.fullmatch(name):
            what = f"its {RUN_FILE} lists {name!r}, which is no file of idgr's models: safetensors, JSON and texts"
            raise IdgrError(what, todo, where=where)


def check_files_listed(folder: Path, record: Mapping[str, Any], where: str | os.PathLike[str]) -> None:
    """Raise `IdgrError` where a file that a record lists is missing or another; the card alone may have been edited."""
    for name, digest in record["outputs"].items():
        path = folder / name
        if name == CARD:
            continue
        if path.is_symlink() or not path.is_file():
            raise IdgrError(f"lacks {name}, which its {RUN_FILE} lists", "make or fetch it again", where=where)
        if sha256_file(path) != digest:
            raise IdgrError(
                f"its {name} is not the one that its {RUN_FILE} tells", "make or fetch it again", where=where
            )


def check_replaceable(folder: str | os.PathLike[str]) -> None:
    """Raise `IdgrError` where a folder holds what was trained here: only one with a card is taken the place of."""
    place = Path(folder)
    if not place.is_dir() or not any(place.iterdir()):
        return
    command, outputs = (read_run(place).get(name) for name in ("command", "outputs"))
    if command is None or CARD not in (outputs or {}) or foreign_in(place) is not None:
        what = "holds what did not come from the hub, which would be lost"
        raise IdgrError(what, "give the name of a new folder", where=folder)


def published_files(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> dict[str, Path | bytes]:
    """The files of a model's folder that go to others, by name: as they are, or their bytes where places were cut out.

    Its card and record are not among them.
    """
    found: dict[str, Path | bytes] = {}
    for name in record["outputs"]:
        path = Path(folder) / name
        if name != CARD:
            found[name] = path
        if path.suffix == ".json" and name != TOKENIZER and path.stat().st_size <= _MOST_CLEANED:
            told = read_object(path, _TODO)
            if without_places(told) != told:
                found[name] = dump(without_places(told))
    return found


def without_places(told: dict[str, Any]) -> dict[str, Any]:
    """A record or configuration in which every path is the last name of it; templates stay as they are."""
    local = set(_local(told))

    def short(value: Any) -> Any:
        if isinstance(value, str):
            return last_name(value) if value in local or _PLACE.match(value) else value
        if isinstance(value, dict):
            return {name: inner if name == "templates" else short(inner) for name, inner in value.items()}
        return [short(inner) for inner in value] if isinstance(value, list) else value

    cleaned: dict[str, Any] = short(told)
    return cleaned


def last_name(path: str) -> str:
    """The last name of a path as any system writes it; of what has none but a user's, a dash."""
    parts = re.split(r"[/\\]", path)
    return next((part for part in reversed(parts) if part.strip(".") and part[0] != "~" and part != "file:"), "-")


def _local(told: Any) -> Iterator[str]:
    """What a record names that lay on the machine: inputs with a hash, and models that a training went on from."""
    if isinstance(told, dict):
        path = told.get("path")
        if isinstance(path, str) and (told.get("sha256") is not None or "ids_fingerprint" in told):
            yield path
    for inner in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        yield from _local(inner)


def dump(value: dict[str, Any]) -> bytes:
    """A JSON object as idgr writes it into a folder."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
