"""Where tables are printed: on standard error, which leaves standard output to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console:
    """A console that shows texts as they are.

    Args:
        width: in a file or a pipe, which have none of their own.
    """
    from rich.console import Console

    found = Console(stderr=True, markup=False, highlight=False)
    if width is not None and not found.is_terminal:
        found.width = width
    return found
