"""`idgr report`: one page with plots, from run folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idgr.errors import UsageError, check_utf8
from idgr.formats.claims import check_folder
from idgr.formats.jsonl import STDIN, replace_folder
from idgr.options import Role, StageOptions, argument, option, output_option
from idgr.progress import log
from idgr.stages.options import refuse_stream, run_info

if TYPE_CHECKING:
    from idgr.evaluation.report.gathering import Made

PAGE = "report.md"


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Write a page with results, curves, IDs, the audit's verdict and every command of run folders.

    Example: idgr report runs/beauty/ -o report/
    """

    runs: list[str] = argument("Folders with outputs of idgr, at any depth, and their records.", "RUN…")
    output: str = output_option("Folder for the page and its plots.")
    data: str | None = option(
        "The prepared folder of the runs (default: the one they were made of).", None, role=Role.INPUT
    )
    no_audit: bool = option("Leave out the audit's verdict.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if STDIN in (*self.runs, self.data):
            raise UsageError("report reads folders, not standard input", "give the names of folders")
        if len({Path(run).resolve() for run in self.runs}) < len(self.runs):
            raise UsageError("a folder is named twice", "give each run once")
        refuse_stream(self.output, "a folder")


def run(options: Options, command_line: Callable[[Made], list[str]]) -> Path:
    """Write a report.

    Args:
        command_line: the words that a user would type to run a command again.

    Returns:
        The page.

    Raises:
        IdgrError: a folder holds nothing that idgr made, a file is broken, or matplotlib is not installed.
    """
    place, inputs = Path(options.output), [*options.runs, options.data]
    check_utf8("names in the output", *inputs)
    check_folder(place, "report", inputs)

    from idgr.evaluation.report.plots import check_packages, draw

    check_packages()

    from idgr.evaluation.report.gathering import gather
    from idgr.evaluation.report.page import page

    info = run_info("report", options)
    data = None if options.data is None else Path(options.data)
    found = gather([Path(folder) for folder in options.runs], data, audit=not options.no_audit)
    with replace_folder(place, "report", inputs) as folder:
        text = page(found, draw(found, folder), command_line)
        (folder / PAGE).write_text(text, encoding="utf-8")
        info.write(place, folder)
    log(f"report: {place / PAGE}, {len(list(place.glob('*.png')))} plots")
    return place / PAGE
