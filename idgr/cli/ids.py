"""`idgr ids`: looking at IDs."""

from __future__ import annotations

from typing import Annotated

import typer

from idgr.errors import IdgrError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, write_jsonl
from idgr.formats.records import read_ids, read_items
from idgr.formats.run_info import RunInfo
from idgr.options import MOST_INT
from idgr.progress import log

app = typer.Typer(
    help="Look at IDs: what changed between two rounds, how pure prefixes are.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _ids() -> None:
    """Look at IDs: what changed between two rounds, how pure prefixes are.

    Example: idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl
    """


@app.command("diff")
def diff_command(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="The earlier ids.jsonl.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later ids.jsonl.")],
    items: Annotated[str, typer.Option("--items", help="items.jsonl, for the texts beside the IDs.")],
    output: Annotated[str, typer.Option("-o", "--output", help="A line per item that differs.")] = STDOUT,
    show: Annotated[int, typer.Option("--show", min=0, help="Rows of the table on standard error.")] = 20,
) -> None:
    """Show which IDs changed, beside the items' texts; items that only one file has are listed and counted apart.

    Example: idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl
    """
    check_file(output)
    from idgr.ids.diff import changed_share, id_changes

    run = RunInfo("ids diff", {}, {"before": before, "after": after, "items": items}, outputs=[output])
    texts = {item.item_id: item.text for item in read_items(items)}
    old, new = read_ids(before), read_ids(after)
    changes = id_changes(old, new)
    rows = [
        {"item_id": change.item_id, "before": change.before, "after": change.after, "text": texts.get(change.item_id)}
        for change in changes
    ]
    run.check_unchanged()
    write_jsonl(output, rows)
    run.write(output)
    if show and rows:
        from rich.console import Console
        from rich.table import Table

        console = Console(stderr=True, markup=False, highlight=False)
        if not console.is_terminal:
            console.width = 160
        title = f"{min(show, len(rows)):,} of {len(rows):,} differences"
        table = Table("item", "before", "after", "text", title=title, title_justify="left")
        for row in rows[:show]:
            table.add_row(*(_cell(row[name]) for name in ("item_id", "before", "after", "text")))
        console.print(table)
    gone = sum(change.after is None for change in changes)
    come = sum(change.before is None for change in changes)
    both = len(new) - come
    n_changed = sum(change.of_both for change in changes)
    line = f"ids diff: {n_changed} changes, {changed_share(old, new):.1%} of {both} items that both files have"
    log(line + (f"; {come} items only in {after}, {gone} only in {before}" if come or gone else ""))


@app.command("purity")
def purity_command(
    ids: Annotated[str, typer.Argument(metavar="IDS", help="ids.jsonl.")],
    items: Annotated[str, typer.Option("--items", help="items.jsonl, which lists categories.")],
    category_field: Annotated[
        str, typer.Option("--category-field", help="The field that lists categories, widest first.")
    ] = "categories",
    category_depth: Annotated[
        int, typer.Option("--category-depth", min=1, max=MOST_INT, help="So many of them tell categories apart.")
    ] = 2,
    draws: Annotated[int, typer.Option("--draws", min=1, max=MOST_INT, help="Random assignments to compare with.")] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_INT, help="Seed of the random assignments.")] = 0,
    output: Annotated[str, typer.Option("-o", "--output", help="A line per level, from no words on.")] = STDOUT,
) -> None:
    """Show how alike the items are that share first words of an ID: the entropy of their categories, beside chance.

    Example: idgr ids purity ids.jsonl --items data/beauty/items.jsonl --category-depth 2
    """
    check_file(output)
    from idgr.ids.purity import purities
    from idgr.ids.schemes.category import category_paths

    options = {"category-field": category_field, "category-depth": category_depth, "draws": draws}
    run = RunInfo("ids purity", options, {"ids": ids, "items": items}, seed=seed, outputs=[output])
    catalogue = {item.item_id: item for item in read_items(items)}
    known = read_ids(ids)
    strange = next((record.item_id for record in known if record.item_id not in catalogue), None)
    if strange is not None:
        raise IdgrError(f"has no item {strange!r}, of which {ids} has an ID", "give the items of the IDs", where=items)
    of = category_paths([catalogue[record.item_id] for record in known], category_field, category_depth)
    found = purities([record.id for record in known], of, draws=draws, seed=seed)
    run.check_unchanged()
    write_jsonl(output, (one.row() for one in found))
    run.write(output)
    log(f"ids purity: {len(known)} items, {len(set(of))} categories")


def _cell(text: str | None, width: int = 60) -> str:
    if text is None:
        return "–"
    return text if len(text) <= width else text[: width - 1] + "…"
