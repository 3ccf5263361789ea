"""The packages import one way, as `LAYERS` tells, and no module imports itself by a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import idgr

HOUSE = Path(idgr.__file__).parent
LAYERS = (
    {"cli", "api"},
    {"stages"},
    {"bench"},
    {"alternation"},
    {"generator", "item_models"},
    {"recommender"},
    {"engine", "evaluation"},
    {"ids", "decoding", "prompts", "corpus"},
    {"models"},
    {"formats"},
    {"options"},
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
    source = "def f():\n    from idgr.engine import trainer\nfrom idgr import cli\nimport idgr.models.backbone\n"
    assert faults("decoding", source) == ["line 3: decoding imports cli", "line 2: decoding imports engine"]
    assert faults("ids", "from idgr.corpus.text import plain_text\n") == ["line 1: ids imports corpus"]


def modules_of(source: str, known: set[str]) -> set[str]:
    """The modules of idgr that a module imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= known.intersection(names)
    return found


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn, the first one again at the end; empty where there are none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(imports[module]):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(imports) if (found := visit(module, []))), [])


def test_no_module_imports_itself_by_a_circle() -> None:
    names = {path: ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts) for path in HOUSE.rglob("*.py")}
    names = {path: name.removesuffix(".__init__") for path, name in names.items()}
    known = {name for name in names.values() if name != "idgr"}
    imports = {
        name: modules_of(path.read_text(encoding="utf-8"), known) for path, name in names.items() if name != "idgr"
    }
    assert circle(imports) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
