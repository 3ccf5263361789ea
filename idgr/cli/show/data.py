"""What `idgr prep` and `idgr stats` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from idgr.cli.show.tables import console

if TYPE_CHECKING:
    from idgr.corpus.density import DataFigures


def prepared(made: dict[str, Any] | None, options: Any) -> None:
    """The statistics of a new data set."""
    if made is None:
        return
    from rich.table import Table

    lengths, unseen = made["sequence_length"], made["test"]["unseen"]
    of_all = f" of {made['catalogue']:,}" if made["catalogue"] != made["items"] else ""
    rows = {
        "users": f"{made['users']:,}",
        "items": f"{made['items']:,}{of_all}",
        "interactions": f"{made['interactions']:,}",
        "density": f"{made['density']:.3%}",
        "events per user": f"{lengths['min']} to {lengths['max']}, mean {lengths['mean']:.2f}",
        "users in valid, test": f"{made['valid']['users']:,}, {made['test']['users']:,}",
        "test targets unseen in training": "–" if unseen is None else f"{unseen:.2%}",
    }
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows.items():
        table.add_row(*row)
    console().print(table)


def stats(made: list[DataFigures], options: Any) -> None:
    """Data sets beside each other, a line between groups."""
    from rich.table import Table

    grouped = made[0].group is not None
    table = Table("data set")
    for column in ("users", "items", "interactions", "density", "mean length", "longest"):
        table.add_column(column, justify="right")
    if grouped:
        table.add_column("group")
    for place, row in enumerate(made):
        counts = (f"{number:,}" for number in (row.users, row.items, row.interactions))
        cells = [row.data, *counts, f"{row.density:.4%}", f"{row.mean_length:.2f}", f"{row.max_length:,}"]
        last_of_group = grouped and place + 1 < len(made) and made[place + 1].group != row.group
        table.add_row(*cells, *([row.group or ""] if grouped else []), end_section=last_of_group)
    console(120).print(table)
