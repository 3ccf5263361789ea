"""Writes docs/commands/, a page for each command, and docs/python.md, from the stages' options.

python docs/generate.py
"""

from __future__ import annotations

import inspect
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from idgr.cli.commands import COMMANDS, Command, Group
from idgr.options import COMMON, Field, spelled_fields
from idgr.stages.functions import FUNCTIONS, as_function

DOCS = Path(__file__).parent
STAGES = """\
Each takes the options of a command, with underscores for dashes; `help(idgr.recommend)` lists them. Some have other
names: `--from` and `--to` of `prep` are `begin` and `end`, `-k` of `eval` is `cutoffs`, `--metric` of `compare` is
`metrics`, `--gen.lr` of `alternate` is `gen__lr`. What a command takes without a flag has a name too, such as `events`,
`items` or `train`. `prep fuse`, `stats`, `report`, `ids diff`, `ids purity`, `export`, `import` and `bench` have no
function."""


def commands() -> dict[str, Command]:
    """Every command by its words, in the order of the help."""
    found: dict[str, Command] = {}
    for name, one in COMMANDS.items():
        inner = one.commands.items() if isinstance(one, Group) else [("", one)]
        found |= {f"{name} {word}".strip(): command for word, command in inner}
    return found


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def default(field: Field) -> str:
    value = field.default
    if field.is_required:
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else f"`{value}`"


def values(field: Field) -> str:
    """What a field may be: its choices, or its type and bounds."""
    if field.choices:
        return " ".join(f"`{choice}`" for choice in field.choices)
    name = field.type.__name__ if isinstance(field.type, type) else str(field.type).removesuffix(" | None")
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in (
            ("≥", field.option.at_least),
            (">", field.option.above),
            ("≤", field.option.at_most),
            ("<", field.option.below),
        )
        if bound is not None
    ]
    return {"bool": "", "str": "text"}.get(name, name) + (f", {', '.join(bounds)}" if bounds else "")


def rows(fields: list[Field]) -> list[str]:
    lines = []
    for field in fields:
        names = field.option.metavar if field.option.positional else ", ".join(field.flags)
        cells = (f"`{names}`", values(field), default(field), field.option.help)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return lines


def page(name: str, command: Command) -> str:
    options = getattr(import_module(command.stage), command.options)
    lines = [f"# idgr {name}", "", inspect.cleandoc(options.__doc__ or ""), ""]
    known = [("Arguments" if one.option.positional else one.option.panel, one) for one in spelled_fields(options)]
    order = list(dict.fromkeys(panel for panel, _ in known))
    order.sort(key=lambda panel: (panel != "Arguments", panel != COMMON))
    for panel, group in groupby(sorted(known, key=lambda one: order.index(one[0])), key=lambda one: one[0]):
        head = "argument" if panel == "Arguments" else "option"
        lines += [f"## {panel}", "", f"| {head} | values | default | what it is |", "|---|---|---|---|"]
        lines += [*rows([field for _, field in group]), ""]
    return "\n".join(lines).rstrip() + "\n"


def file_name(name: str) -> str:
    return f"{name.replace(' ', '-')}.md"


def python_page() -> str:
    from idgr.api import Recommender, history_parts

    lines = ["# Python", "", inspect.cleandoc(import_module("idgr").__doc__ or ""), ""]
    lines += ["## idgr.Recommender", "", inspect.cleandoc(Recommender.__doc__ or ""), ""]
    for method in ("load", "recommend"):
        function: Any = getattr(Recommender, method)
        signature = inspect.signature(function, eval_str=True)
        lines += [f"### {method}", "", "```text", f"{method}{signature}".replace("idgr.api.", ""), ""]
        lines += [inspect.getdoc(function) or "", "```", ""]
    lines += [
        "## idgr.api.history_parts",
        "",
        "```text",
        f"history_parts{inspect.signature(history_parts, eval_str=True)}",
    ]
    lines += ["", inspect.getdoc(history_parts) or "", "```", ""]
    lines += ["## Stages", "", STAGES, ""]
    lines += ["| function | command | returns |", "|---|---|---|"]
    by_stage = {f"{one.stage}:{one.options}": name for name, one in commands().items()}
    for name, (module, options, _) in FUNCTIONS.items():
        command = by_stage.get(f"idgr.stages.{module}:{options}", "")
        shown = f"[{command}](commands/{file_name(command)})" if command else "a source of `idgr prep`"
        text = inspect.getdoc(as_function(name)) or ""
        returns = text.partition("Returns:")[2].partition("Raises:")[0]
        lines.append(f"| `idgr.{name}` | {shown} | {cell(returns)} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Text of each page by its path below docs/."""
    found = commands()
    made = {f"commands/{file_name(name)}": page(name, command) for name, command in found.items()}
    listing = [f"- [idgr {name}]({file_name(name)})" for name in found]
    made["commands/README.md"] = "# Commands\n\nMade by `python docs/generate.py`.\n\n" + "\n".join(listing) + "\n"
    made["python.md"] = python_page()
    return made


if __name__ == "__main__":
    made = pages()
    (DOCS / "commands").mkdir(exist_ok=True)
    for old in (DOCS / "commands").glob("*.md"):
        if f"commands/{old.name}" not in made:
            old.unlink()
    for name, text in made.items():
        (DOCS / name).write_text(text)
