"""Writes docs/commands/, one page for each command, from the command line itself: `python docs/generate.py`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from typer.main import get_command

from idgr.cli.main import app

FOLDER = Path(__file__).parent / "commands"


def commands(command: Any, name: str) -> list[tuple[str, Any]]:
    """Name and command, for every command below this one, in the order of the help."""
    context = command.make_context(name, [], resilient_parsing=True)
    if not hasattr(command, "list_commands"):
        return [(name, command)]
    children = [(child, command.get_command(context, child)) for child in command.list_commands(context)]
    return [found for child, below in children for found in commands(below, f"{name} {child}")]


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or callable(value) or value == () or value == []:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{getattr(value, 'value', value)}`"


def rows(parameters: list[Any]) -> list[str]:
    lines = []
    for one in parameters:
        if one.param_type_name == "argument":
            names = f"`{one.metavar or one.name.upper()}`"
        else:
            names = ", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts])
        lines.append(f"| {cell(names)} | {cell(default(one))} | {cell(one.help or '')} |")
    return lines


def page(name: str, command: Any) -> str:
    lines = [f"# {name}", "", inspect.cleandoc(command.help or "").replace("\b", "").replace("\f", ""), ""]
    if command.epilog:
        lines += [command.epilog.strip(), ""]
    kinds = (("argument", "Arguments", "argument"), ("option", "Options", "option"))
    for kind, title, head in kinds:
        chosen = [one for one in command.params if one.param_type_name == kind and not getattr(one, "hidden", False)]
        if chosen:
            lines += [f"## {title}", "", f"| {head} | default | what it is |", "|---|---|---|", *rows(chosen), ""]
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[str, str]:
    """Text of each page by its file name, README.md with the list of all."""
    found = commands(get_command(app), "idgr")
    made = {f"{name.removeprefix('idgr ').replace(' ', '-')}.md": page(name, command) for name, command in found}
    listing = [f"- [{name}]({name.removeprefix('idgr ').replace(' ', '-')}.md)" for name, _ in found]
    made["README.md"] = "# Commands\n\nMade by `python docs/generate.py`.\n\n" + "\n".join(listing) + "\n"
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for old in FOLDER.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
