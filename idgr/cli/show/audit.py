"""What `idgr audit` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from idgr.cli.show.tables import console
from idgr.errors import IdgrError
from idgr.progress import log

if TYPE_CHECKING:
    from idgr.evaluation.audit.checks import Check
    from idgr.stages.audit import Options


def checks(made: list[Check], options: Options) -> None:
    """Every check with its evidence, and the verdict.

    Raises:
        IdgrError: a check failed.
    """
    from rich.table import Table

    root = Path(options.path)
    table = Table("", "check", "where", "evidence", show_lines=False)
    for check in made:
        subject = Path(check.subject)
        inside = subject.is_relative_to(root) and subject != root
        shown = subject.relative_to(root).as_posix() if inside else check.subject
        table.add_row(*(_plain(text) for text in (check.verdict, check.name, shown, check.evidence)))
    console(160).print(table)
    counts = {verdict: sum(check.verdict == verdict for check in made) for verdict in ("PASS", "FAIL", "SKIP", "WARN")}
    told = [f"{count} {verdict}" for verdict, count in counts.items() if count or verdict != "WARN"]
    log(f"audit: {', '.join(told)}")
    if counts["FAIL"]:
        first = next(check.name for check in made if check.verdict == "FAIL")
        what = f"{counts['FAIL']} of {len(made)} checks failed, the first of them: {first}"
        raise IdgrError(what, "see the evidence above", where=root)


def _plain(text: str) -> str:
    """What data put into a text must not move the cursor or turn the line around."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
