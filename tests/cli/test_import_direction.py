"""The rooms of the house import one way: cli, bench, training, evaluation, four rooms side by side, models, formats."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import idgr

HOUSE = Path(idgr.__file__).parent
LAYERS = (
    {"cli"},
    {"bench"},
    {"training"},
    {"evaluation"},
    {"ids", "decoding", "prompts", "corpus"},
    {"models"},
    {"formats"},
    {"errors", "progress"},
)
LAYER_OF = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}


def imported_rooms(source: str) -> Iterator[tuple[int, str]]:
    """Line and room of every import of idgr, those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            # `from idgr import x` names the room after the import.
            whole = node.module == "idgr"
            names = [f"idgr.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "idgr" and len(parts) > 1 and parts[1] != "__version__":
                yield node.lineno, parts[1]


def faults(room: str, source: str) -> list[str]:
    return [
        f"line {line}: {room} imports {other}"
        for line, other in imported_rooms(source)
        if other != room and (other not in LAYER_OF or LAYER_OF[other] <= LAYER_OF[room])
    ]


MODULES = sorted(path for path in HOUSE.rglob("*.py") if path.parent != HOUSE or path.stem in LAYER_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    assert room in LAYER_OF, f"{room} is a room of the house"
    assert faults(room, path.read_text(encoding="utf-8")) == []


def test_the_rule_finds_a_breach() -> None:
    source = "def f():\n    from idgr.training import loop\nfrom idgr import cli\nimport idgr.models.backbone\n"
    assert faults("decoding", source) == ["line 3: decoding imports cli", "line 2: decoding imports training"]
    assert faults("ids", "from idgr.corpus.text import plain_text\n") == ["line 1: ids imports corpus"]
