"""`idgr stats`: data sets beside each other, by density."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idgr.errors import UsageError, check_utf8
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, write_jsonl
from idgr.formats.run_info import RunInfo

if TYPE_CHECKING:
    from idgr.corpus.density import DataFigures


def stats(
    data: Annotated[list[str], typer.Argument(metavar="DATA…", help="Folders that `idgr prep` wrote.")],
    output: Annotated[str, typer.Option("-o", "--output", help="A line per data set, sparsest first.")] = STDOUT,
) -> None:
    """Print users, items, interactions, density and density group of data sets (Tables 2 and 3).

    Of three sets and more the sparsest third is the group `sparse`, the next `medium`, the rest `dense`.

    Example: idgr stats data/beauty/ data/sports/ data/yelp/ -o stats.jsonl
    """
    if STDIN in data:
        raise UsageError("stats reads folders, not standard input", "give the names of folders")
    check_file(output)
    check_utf8("names in the output", *data)
    run = RunInfo("stats", {}, {f"data-{place}": folder for place, folder in enumerate(data, 1)}, outputs=[output])

    from idgr.corpus.density import data_figures, grouped

    rows = grouped([data_figures(Path(folder)) for folder in data])
    run.check_unchanged()
    write_jsonl(output, (row.row() for row in rows))
    run.write(output)
    _show(rows)


def _show(rows: list[DataFigures]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 120
    grouped = rows[0].group is not None
    table = Table("data set")
    columns = ("users", "items", "interactions", "density", "mean length", "longest")
    for column in columns:
        table.add_column(column, justify="right")
    if grouped:
        table.add_column("group")
    for place, row in enumerate(rows):
        counts = (f"{number:,}" for number in (row.users, row.items, row.interactions))
        cells = [row.data, *counts, f"{row.density:.4%}", f"{row.mean_length:.2f}", f"{row.max_length:,}"]
        last_of_group = grouped and place + 1 < len(rows) and rows[place + 1].group != row.group
        table.add_row(*cells, *([row.group or ""] if grouped else []), end_section=last_of_group)
    console.print(table)
