"""`idgr prep table`: tables of one's own to the records that all other stages read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from idgr.errors import UsageError
from idgr.options import Role, argument, option
from idgr.progress import log
from idgr.stages.prep import EVENTS, EventOptions, prepare_events, write_data_set

if TYPE_CHECKING:
    from idgr.corpus.preparation import Prepared

COLUMNS = "Columns"  # a panel of the help; what is not given is guessed from usual names, and told


@dataclass(frozen=True, kw_only=True)
class TableOptions(EventOptions):
    """Prepare tables of your own: CSV, TSV, Parquet, a folder of their parts, or RecBole's atomic files.

    Columns that are not named are guessed from usual names, and told.

    Example: idgr prep table events.csv --items catalogue.csv --user-col customer --item-col sku -o data/shop/
    """

    events: list[str] = argument(
        "Who took what when: files, folders of parts, or - for CSV on standard input.", "FILE…"
    )
    items: str | None = option(
        "What is known of the items: a file or folder, also one of FILE… itself; left out, --missing-text must be key.",
        None,
        role=Role.INPUT,
        metavar="FILE",
    )
    user_col: str | None = option("Column of users.", None, COLUMNS, metavar="NAME")
    item_col: str | None = option("Column of items.", None, COLUMNS, metavar="NAME")
    time_col: str | None = option("Column of times: numbers since 1970, or ISO dates.", None, COLUMNS, metavar="NAME")
    rating_col: str | None = option("Column of ratings, for --min-rating.", None, COLUMNS, metavar="NAME")
    item_id_col: str | None = option("Column of the items' keys in --items.", None, COLUMNS, metavar="NAME")
    text_col: list[str] | None = option(
        "Column of --items that makes the text; may be repeated, in this order (default: all that describe).",
        None,
        COLUMNS,
        metavar="NAME",
    )
    columns: str | None = option("Names of all columns, where FILE… has no header.", None, COLUMNS, metavar="A,B,C")
    missing_keys: Literal["error", "drop"] = option(
        "Rows without a user or an item: stop, or leave them out.", "error", EVENTS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rating_col is not None and self.min_rating is None:
            raise UsageError("--rating-col does nothing without --min-rating", "give both or neither")
        if self.items is None:
            given = {"--item-id-col": self.item_id_col, "--text-col": self.text_col}
            if alone := next((flag for flag, value in given.items() if value), None):
                raise UsageError(f"{alone} is of --items, which is not given", "give --items too")
            if self.missing_text != "key":
                raise UsageError(
                    "no --items, so no item has a text", "give --items, or --missing-text key to take keys as texts"
                )
        if self.column_names is not None and not all(self.column_names):
            raise UsageError("--columns names an empty column", "give names such as user,item,rating,timestamp")
        if self.items in self.events and not self.text_col:
            todo = "name the columns that describe an item with --text-col"
            raise UsageError("--items is a table of events, whose other columns are of events too", todo)

    @property
    def column_names(self) -> list[str] | None:
        return None if self.columns is None else [name.strip() for name in self.columns.split(",")]


def run(options: TableOptions) -> dict[str, Any] | None:
    """Prepare tables.

    Returns:
        The statistics of the data set, as in its stats.json; None where it was finished before.

    Raises:
        IdgrError: a table is broken; nothing is left of it; or the output was made otherwise.
    """
    return write_data_set("prep table", options, lambda: _prepared(options))


def _prepared(options: TableOptions) -> Prepared:
    from idgr.corpus.metadata import describe_items
    from idgr.corpus.sources.table import Columns, read_entries, read_events

    columns = Columns(options.user_col, options.item_col, options.time_col, options.rating_col, options.column_names)
    items = [] if options.items is None else [options.items]
    return prepare_events(
        lambda: read_events(
            options.events,
            columns,
            min_rating=options.min_rating,
            drop_missing=options.missing_keys == "drop",
            tell=log,
        ),
        lambda wanted: describe_items(
            read_entries(items, options.item_id_col, options.text_col, like=options.item_col, tell=log),
            wanted,
            duplicates=options.items in options.events,
            whole=options.text_col is not None,
        ),
        options,
    )
