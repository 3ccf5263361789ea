"""`idgr ids`: looking at IDs."""

from __future__ import annotations

from typing import Annotated

import typer

from idgr.formats.jsonl import STDOUT, write_jsonl
from idgr.formats.records import read_ids, read_items
from idgr.formats.run_info import RunInfo
from idgr.progress import log

app = typer.Typer(help="Look at IDs: what changed between two rounds.", no_args_is_help=True, add_completion=False)


@app.callback()
def _ids() -> None:
    """Look at IDs: what changed between two rounds.

    Example: idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl
    """


@app.command("diff")
def diff_command(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The earlier ids.jsonl.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later ids.jsonl.")],
    items: Annotated[str, typer.Option("--items", help="items.jsonl, for the texts beside the IDs.")],
    output: Annotated[str, typer.Option("-o", "--output", help="A line per changed item.")] = STDOUT,
    show: Annotated[int, typer.Option("--show", min=0, help="Rows of the table on standard error.")] = 20,
) -> None:
    """Show which IDs changed, beside the items' texts.

    Example: idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl
    """
    from idgr.ids.diff import changed_share, id_changes

    run = RunInfo("ids diff", {}, {"before": before, "after": after, "items": items})
    texts = {item.item_id: item.text for item in read_items(items)}
    old, new = read_ids(before), read_ids(after)
    changes = id_changes(old, new)
    rows = [
        {"item_id": change.item_id, "before": change.before, "after": change.after, "text": texts.get(change.item_id)}
        for change in changes
    ]
    write_jsonl(output, rows)
    run.write(output)
    if show and rows:
        from rich.console import Console
        from rich.table import Table

        console = Console(stderr=True, markup=False, highlight=False)
        if not console.is_terminal:
            console.width = 160
        title = f"{min(show, len(rows)):,} of {len(rows):,} changes"
        table = Table("item", "before", "after", "text", title=title, title_justify="left")
        for row in rows[:show]:
            table.add_row(*(_cell(row[name]) for name in ("item_id", "before", "after", "text")))
        console.print(table)
    log(f"ids diff: {len(rows)} changes, {changed_share(old, new):.1%} of {len(new)} items have another ID")


def _cell(text: str | None, width: int = 60) -> str:
    if text is None:
        return "–"
    return text if len(text) <= width else text[: width - 1] + "…"
