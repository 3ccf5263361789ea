"""What `idgr ids` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from idgr.cli.show.tables import console

if TYPE_CHECKING:
    from idgr.stages.ids_diff import Options


def changes(made: list[dict[str, Any]], options: Options) -> None:
    """The first of the IDs that differ."""
    if not options.show or not made:
        return
    from rich.table import Table

    title = f"{min(options.show, len(made)):,} of {len(made):,} differences"
    table = Table("item", "before", "after", "text", title=title, title_justify="left")
    for row in made[: options.show]:
        table.add_row(*(_cell(row[name]) for name in ("item_id", "before", "after", "text")))
    console(160).print(table)


def _cell(text: str | None, width: int = 60) -> str:
    if text is None:
        return "–"
    return text if len(text) <= width else text[: width - 1] + "…"
