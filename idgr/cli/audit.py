"""`idgr audit`: a verdict on leakage, order and IDs, with the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idgr.errors import IdgrError, UsageError, check_utf8
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, write_json
from idgr.formats.run_info import RunInfo
from idgr.options import MOST_INT
from idgr.progress import log

if TYPE_CHECKING:
    from idgr.evaluation.audit.checks import Check


def audit(
    path: Annotated[
        str,
        typer.Argument(
            metavar="DATA|RUN", help="A folder of prep, alternate or single stages, or the published files."
        ),
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="The prepared folder of a run (default: the one its stages read).")
    ] = None,
    mutate: Annotated[
        bool, typer.Option("--mutate", help="Also train twice, with other held-out items, and compare every byte.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_INT, help="Of the items put in by --mutate.")] = 0,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="The checks as JSON; - is standard output.")
    ] = None,
) -> None:
    """Check a data set, a run or foreign data for leaks, wrong order and broken IDs.

    Example: idgr audit runs/beauty/ --data data/beauty/ -o audit.json
    """
    if STDIN in (path, data):
        raise UsageError("audit reads folders, not standard input", "give the name of a folder")
    check_utf8("names in the output", path, data)
    if output is not None:
        check_file(output)
    root, prepared = Path(path), None if data is None else Path(data)
    run = RunInfo("audit", {"mutate": mutate}, {"path": path, "data": data}, seed, outputs=[output])

    from idgr.evaluation.audit.data import is_data

    for folder in (root, *([prepared] if prepared is not None else [])):
        if not folder.is_dir():
            raise IdgrError("there is no such folder", "give a folder, such as `idgr prep` writes", where=folder)
    if prepared is not None and not is_data(prepared):
        raise IdgrError("holds no items.jsonl and train.jsonl", "give a folder that `idgr prep` wrote", where=prepared)

    from idgr.evaluation.audit.verdict import all_checks

    checks, found = all_checks(root, prepared)
    if mutate:
        from idgr.stages.mutation import mutation_checks

        if found is None:
            raise IdgrError("no prepared folder to train on", "name one with --data", where=root)
        checks += mutation_checks(found, seed)
    _show(checks, root)
    failed = [check for check in checks if check.verdict == "FAIL"]
    if output is not None:
        verdict = "FAIL" if failed else "PASS"
        run.check_unchanged()
        write_json(output, {"path": path, "verdict": verdict, "checks": [check.row() for check in checks]})
        if output != STDOUT:
            run.write(output)
    counts = {
        verdict: sum(check.verdict == verdict for check in checks) for verdict in ("PASS", "FAIL", "SKIP", "WARN")
    }
    told = [f"{count} {verdict}" for verdict, count in counts.items() if count or verdict != "WARN"]
    log(f"audit: {', '.join(told)}")
    if failed:
        raise IdgrError(
            f"{len(failed)} of {len(checks)} checks failed, the first of them: {failed[0].name}",
            "see the evidence above",
            where=root,
        )


def _show(checks: list[Check], root: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    table = Table("", "check", "where", "evidence", show_lines=False)
    for check in checks:
        subject = Path(check.subject)
        inside = subject.is_relative_to(root) and subject != root
        shown = subject.relative_to(root).as_posix() if inside else check.subject
        table.add_row(*(_plain(text) for text in (check.verdict, check.name, shown, check.evidence)))
    console.print(table)


def _plain(text: str) -> str:
    """What data put into a text must not move the cursor or turn the line around."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
