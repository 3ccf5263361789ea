"""What the commands that train print."""

from __future__ import annotations

from typing import Any


def forecast(made: dict[str, Any] | None, options: Any) -> None:
    """What a training would take, as JSON, where that was asked for."""
    if options.dry_run:
        import orjson

        print(orjson.dumps(made, option=orjson.OPT_INDENT_2).decode())


def commands(made: list[str], options: Any) -> None:
    """The single commands of a run, where they were asked for."""
    for line in made:
        print(line)
