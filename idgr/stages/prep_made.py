"""`idgr prep demo` and `idgr prep fuse`: data sets that no dump is read for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import UsageError, check_utf8
from idgr.options import option
from idgr.stages.options import DataFolders
from idgr.stages.prep import DataSetOptions, write_data_set

if TYPE_CHECKING:
    from idgr.corpus.preparation import Prepared


@dataclass(frozen=True, kw_only=True)
class DemoOptions(DataSetOptions):
    """Make up a shop, its catalogue and its users' histories, and prepare them (leave-one-out, no k-core).

    Example: idgr prep demo --items 1200 --users 3500 --seed 0 -o data/demo/
    """

    items: int = option("Items in the catalogue.", 1200, at_least=20)
    users: int = option("Users.", 3500, at_least=1)
    distracting: bool = option("Begin texts with words that say nothing.", False)


@dataclass(frozen=True, kw_only=True)
class FuseOptions(DataSetOptions):
    """Join prepared data sets into one, with keys such as `beauty/B0042XTB5G`.

    Example: idgr prep fuse data/sports/ data/office/ --max-users 30000 -o data/fused/
    """

    data: DataFolders
    max_users: int | None = option(
        "Of each set keep so many users, chosen at random, and their items.", None, at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.data) < 2:
            raise UsageError("fuse needs two folders or more", "give another one")


def run_demo(options: DemoOptions) -> dict[str, Any] | None:
    """Make up a data set.

    Returns:
        Its statistics, as in its stats.json; None where it was finished before.

    Raises:
        IdgrError: the output was made otherwise.
    """
    return write_data_set("prep demo", options, lambda: _demo(options))


def run_fuse(options: FuseOptions) -> dict[str, Any] | None:
    """Join data sets.

    Returns:
        The statistics of the whole, as in its stats.json; None where it was finished before.

    Raises:
        IdgrError: a folder is no prepared data set, or the output was made otherwise.
    """
    check_utf8("names in the output", *options.data)
    return write_data_set("prep fuse", options, lambda: _fused(options))


def _demo(options: DemoOptions) -> Prepared:
    from idgr.corpus import demo
    from idgr.corpus.events import from_rows
    from idgr.corpus.metadata import Entry, describe_items
    from idgr.corpus.preparation import PrepOptions, prepare

    shop = demo.DemoOptions(options.items, options.users, seed=options.seed, distracting=options.distracting)
    entries = [Entry("demo", place, row["item_id"], row) for place, row in enumerate(demo.metadata(shop), 1)]
    events = from_rows("demo", demo.events(shop))
    return prepare(events, lambda wanted: describe_items(entries, wanted), PrepOptions(k_core=0, keep_all_items=True))


def _fused(options: FuseOptions) -> Prepared:
    from idgr.corpus.fusion import fuse

    return fuse([Path(folder) for folder in options.data], max_users=options.max_users, seed=options.seed)
