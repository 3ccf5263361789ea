"""`idgr stats`: data sets beside each other, by density."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idgr.errors import UsageError, check_utf8
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, dump_line
from idgr.options import StageOptions, output_option
from idgr.stages.options import DataFolders, run_info

if TYPE_CHECKING:
    from idgr.corpus.density import DataFigures


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Print users, items, interactions, density and density group of data sets (Tables 2 and 3).

    Of three sets and more the sparsest third is the group `sparse`, the next `medium`, the rest `dense`.

    Example: idgr stats data/beauty/ data/sports/ data/yelp/ -o stats.jsonl
    """

    data: DataFolders
    output: str = output_option("A line per data set, sparsest first.", STDOUT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if STDIN in self.data:
            raise UsageError("stats reads folders, not standard input", "give the names of folders")


def run(options: Options) -> list[DataFigures]:
    """Count what is in data sets.

    Returns:
        The figures of each, sparsest first.

    Raises:
        IdgrError: a folder is no prepared data set.
    """
    check_file(options.output)
    check_utf8("names in the output", *options.data)
    info = run_info("stats", options)

    from idgr.corpus.density import data_figures, grouped

    rows = grouped([data_figures(Path(folder)) for folder in options.data])
    with info.replace_file(options.output) as written:
        written.writelines(dump_line(row.row()) for row in rows)
    return rows
