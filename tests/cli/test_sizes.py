"""Modules and functions stay short enough to be read at once, and options are data that somebody declared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import idgr

HOUSE = Path(idgr.__file__).parent
MODULES = sorted(HOUSE.rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 80


def faults(source: str) -> list[str]:
    found = [] if source.count("\n") <= MOST_LINES else [f"the module has more than {MOST_LINES} lines"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                found.append(f"{node.name} has {lines} lines")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "locals":
            found.append(f"line {node.lineno}: locals() as data")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_sizes(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_what_is_too_long_is_found() -> None:
    long = "def f():\n" + "    pass\n" * 80
    assert faults(long + "g = locals()\n" + "\n" * 320) == [
        f"the module has more than {MOST_LINES} lines",
        "f has 81 lines",
        "line 82: locals() as data",
    ]
