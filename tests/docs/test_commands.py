"""The pages of docs/commands/ are those that docs/generate.py makes of the command line now."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_pages_of_commands_are_fresh() -> None:
    made = runpy.run_path(str(DOCS / "generate.py"))["pages"]()
    there = {f"commands/{path.name}": path.read_text() for path in (DOCS / "commands").iterdir()}
    there["python.md"] = (DOCS / "python.md").read_text()
    assert there == made, "regenerate: python docs/generate.py"
