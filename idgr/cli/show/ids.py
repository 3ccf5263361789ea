"""What `idgr ids` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idgr.cli.show.tables import console
from idgr.progress import log

if TYPE_CHECKING:
    from idgr.stages.ids_diff import IdDiff, Options


def changes(made: IdDiff, options: Options) -> None:
    """The first of the IDs that differ, and how many do."""
    if options.show and made.rows:
        from rich.table import Table

        title = f"{min(options.show, len(made.rows)):,} of {len(made.rows):,} differences"
        table = Table("item", "before", "after", "text", title=title, title_justify="left")
        for row in made.rows[: options.show]:
            table.add_row(*(_cell(row[name]) for name in ("item_id", "before", "after", "text")))
        console(160).print(table)
    come, gone = (sum(row[name] is None for row in made.rows) for name in ("before", "after"))
    changed = len(made.rows) - come - gone
    line = f"{changed} changes, {changed / max(made.n_both, 1):.1%} of {made.n_both} items that both files have"
    only = f"; {come} items only in {options.after}, {gone} only in {options.before}" if come or gone else ""
    log(f"ids diff: {line}{only}")


def _cell(text: str | None, width: int = 60) -> str:
    if text is None:
        return "–"
    return text if len(text) <= width else text[: width - 1] + "…"
