"""A record (`run.json`) as the command line that a user would type to make the output again.

Knows the commands' parameters, and where a record calls an input otherwise than the command line does.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

# Inputs whose roles in a record are not the names of parameters.
_ROLES = {"gen-ids": {"candidates": "assign"}, "prep": {"events": "interactions"}}


def command_line(record: dict[str, Any], outputs: Sequence[Path]) -> list[str]:
    """The command's words, an option together with its value, quoted for a shell.

    Args:
        record: of an output of idgr.
        outputs: where the outputs lie; of `eval` also the per-user rows.

    Returns:
        The words. What the record tells and the command line does not know stands at the end as a comment.
    """
    from idgr.cli.main import app

    path = str(record.get("command", "")).split()
    command: Any = get_command(app)
    for name in path:
        command = command.get_command(None, name) if hasattr(command, "get_command") else None
        if command is None:
            return [f"# made by a command that this version does not have: {shlex.quote(' '.join(path))}"]
    values = _values(record, path, outputs)
    words, options = ["idgr", *path], []
    known = set()
    for parameter in command.params:
        names = {str(parameter.name).replace("_", "-"), *(name.lstrip("-") for name in parameter.opts)}
        known |= names
        value = next((values[name] for name in sorted(names) if values.get(name) is not None), None)
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            words += [shlex.quote(str(one)) for one in _listed(value)]
        elif isinstance(value, bool):
            shown = parameter.opts if value else parameter.secondary_opts
            options += [max(shown, key=len)] if shown else []
        else:
            option = max(parameter.opts, key=len) if parameter.name != "output" else "-o"
            options += [f"{option} {shlex.quote(str(one))}" for one in _listed(value)]
    unknown = [f"{name}={value}" for name, value in values.items() if name not in known and value is not None]
    return [*words, *options, *([f"# also recorded: {' '.join(unknown)}"] if unknown else [])]


def _values(record: dict[str, Any], path: Sequence[str], outputs: Sequence[Path]) -> dict[str, Any]:
    """What the record tells, by the names of parameters, with dashes."""
    options = record.get("options")
    values = {name.replace("_", "-"): value for name, value in options.items()} if isinstance(options, dict) else {}
    inputs = record.get("inputs")
    roles: dict[str, str] = _ROLES.get(path[0], {}) if path else {}
    read: dict[str, str] = {}
    for role, entry in inputs.items() if isinstance(inputs, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str):
            read[role] = entry["path"]
    many: dict[str, list[str]] = {}
    for role, place in read.items():
        if numbered := re.fullmatch(r"(.+)[- ]\d+", role):
            many.setdefault(roles.get(numbered[1], numbered[1]), []).append(place)
        else:
            values[roles.get(role, role).replace("_", "-")] = place
    values |= many
    if path in (["alternate"], ["zeroshot"]) and "items" in read:
        # A prepared folder is given, of which the files were read.
        values["data"] = str(Path(read["items"]).parent)
        for name in ("items", "train", "valid", "test"):
            values.pop(name, None)
    if path == ["zeroshot"] and values.get("models") in ("gen-only", "rec-only"):
        part = "rec" if values["models"] == "gen-only" else "gen"
        values[f"base-{part}"] = values.get(part)  # the trained one was not read
    if record.get("seed") is not None:
        values["seed"] = record["seed"]
    rows = [one for one in outputs if path == ["eval"] and one.suffix != ".json"]
    places = [one for one in outputs if one not in rows]
    values["output"] = str(places[0]) if places else None
    values["per-user"] = str(rows[0]) if rows else None
    return {name: value for name, value in values.items() if value is not None}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
