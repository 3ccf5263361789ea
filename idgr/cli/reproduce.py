"""A record (`run.json`) as the command line that a user would type to make the output again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idgr.cli.commands import find_stage
from idgr.formats.records import is_per_user
from idgr.formats.run_info import PARTS, with_dashes
from idgr.options import Field, spelled_fields


def command_line(record: dict[str, Any], outputs: Sequence[Path]) -> list[str]:
    """The command's words, an option together with its value, quoted for a shell.

    Args:
        record: of an output of idgr.
        outputs: where the outputs lie; of `eval` also the per-user rows.

    Returns:
        The words. What the record tells and the command line does not know stands at the end as a comment.
    """
    path = str(record.get("command", "")).split()
    stage = find_stage(path)
    if stage is None:
        return [f"# made by a command that this version does not have: {shlex.quote(' '.join(path))}"]
    fields = {field.key: field for field in spelled_fields(stage.load(stage.options))}
    values = _values(record, fields, outputs)
    words, options = ["idgr", *path], []
    for field in fields.values():
        value = values.pop(field.key, None)
        listed = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        if field.option.positional:
            words += [shlex.quote(str(one)) for one in listed]
        elif isinstance(value, bool):
            on, _, off = field.flag.partition("/")
            options += [shown for shown in (on if value else off,) if shown]
        else:
            flag = "-o" if field.name == "output" else field.flag
            options += [f"{flag} {shlex.quote(str(one))}" for one in listed]
    unknown = [f"{name}={value}" for name, value in values.items()]
    return [*words, *options, *([f"# also recorded: {' '.join(unknown)}"] if unknown else [])]


def _values(record: dict[str, Any], fields: dict[str, Field], outputs: Sequence[Path]) -> dict[str, Any]:
    """What the record tells, by the keys of fields; inputs that are numbered together."""
    values = _object(record, "options")
    for role, entry in _object(record, "inputs").items():
        place = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(place, str):
            continue
        if numbered := re.fullmatch(r"(.+)[- ]\d+", role):
            values.setdefault(numbered[1], []).append(place)
        else:
            values[role] = place
    if "data" in fields and "items" in values and "data" not in values and "items" not in fields:
        # A prepared folder is given, of which the files were read.
        values["data"] = str(Path(values["items"]).parent)
        values = {name: value for name, value in values.items() if name not in PARTS}
    if values.get("models") in ("gen-only", "rec-only"):
        part = "rec" if values["models"] == "gen-only" else "gen"
        values[f"base-{part}"] = values.get(part)  # of `zeroshot`: the trained one was not read
    values["seed"] = record.get("seed")
    rows = [one for one in outputs if "per-user" in fields and is_per_user(one)]  # of `eval`
    places = [one for one in outputs if one not in rows]
    values |= {"output": str(places[0]) if places else None, "per-user": str(rows[0]) if rows else None}
    return {name: value for name, value in values.items() if value is not None}


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    found = record.get(name)
    return with_dashes(found) if isinstance(found, dict) else {}
