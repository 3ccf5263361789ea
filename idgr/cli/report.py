"""`idgr report`: one page with plots, from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idgr.errors import UsageError, check_utf8
from idgr.formats.claims import check_folder
from idgr.formats.jsonl import STDIN, STDOUT, replace_folder
from idgr.formats.run_info import RunInfo
from idgr.progress import log

PAGE = "report.md"


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="Folders with outputs of idgr, at any depth, and their records.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder for the page and its plots.")],
    data: Annotated[
        str | None, typer.Option("--data", help="The prepared folder of the runs (default: the one they were made of).")
    ] = None,
    no_audit: Annotated[bool, typer.Option("--no-audit", help="Leave out the audit's verdict.")] = False,
) -> None:
    """Write a page with results, curves, IDs, the audit's verdict and every command of run folders.

    Example: idgr report runs/beauty/ -o report/
    """
    if STDIN in (*runs, data):
        raise UsageError("report reads folders, not standard input", "give the names of folders")
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise UsageError("a folder is named twice", "give each run once")
    if output == STDOUT:
        raise UsageError("-o - cannot hold a folder", "give the name of a folder to -o")
    place = Path(output)
    check_utf8("names in the output", *runs, data)
    check_folder(output, "report", [*runs, data])

    from idgr.evaluation.report.plots import check_packages, draw

    check_packages()

    from idgr.cli.reproduce import command_line
    from idgr.evaluation.report.gathering import gather
    from idgr.evaluation.report.page import page

    given: dict[str, str | None] = {f"runs-{number}": run for number, run in enumerate(runs, 1)}
    info = RunInfo("report", {"no-audit": no_audit}, {**given, "data": data}, outputs=[output])
    found = gather([Path(run) for run in runs], None if data is None else Path(data), audit=not no_audit)
    with replace_folder(output, "report", [*runs, data]) as folder:
        plots = draw(found, folder)
        text = page(found, plots, lambda made: command_line(made.record, made.outputs))
        (folder / PAGE).write_text(text, encoding="utf-8")
        info.write(place, folder)
    log(f"report: {place / PAGE}, {len(list(place.glob('*.png')))} plots")
