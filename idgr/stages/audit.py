"""`idgr audit`: a verdict on leakage, order and IDs, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idgr.errors import IdgrError, UsageError, check_utf8
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, write_json
from idgr.options import Role, StageOptions, argument, option, output_option
from idgr.stages.options import run_info

if TYPE_CHECKING:
    from idgr.evaluation.audit.checks import Check


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Check a data set, a run or foreign data for leaks, wrong order and broken IDs.

    Example: idgr audit runs/beauty/ --data data/beauty/ -o audit.json
    """

    path: str = argument("A folder of prep, alternate or single stages, or the published files.", "DATA|RUN")
    data: str | None = option("The prepared folder of a run (default: the one its stages read).", None, role=Role.INPUT)
    mutate: bool = option("Also train twice, with other held-out items, and compare every byte.", False)
    seed: int = option("Of the items put in by --mutate.", 0, role=Role.RUN, at_least=0)
    output: str | None = output_option("The checks as JSON; - is standard output.", None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if STDIN in (self.path, self.data):
            raise UsageError("audit reads folders, not standard input", "give the name of a folder")


def run(options: Options) -> list[Check]:
    """Audit a folder.

    Returns:
        The checks; one that failed is no exception.

    Raises:
        IdgrError: a folder is not there or not of idgr, or nothing is there to train on for `mutate`.
    """
    check_utf8("names in the output", options.path, options.data)
    if options.output is not None:
        check_file(options.output)
    info = run_info("audit", options)
    checks = _checks(options)
    if options.output is not None:
        failed = any(check.verdict == "FAIL" for check in checks)
        info.check_unchanged()
        told = {"path": options.path, "verdict": "FAIL" if failed else "PASS"}
        write_json(options.output, {**told, "checks": [check.row() for check in checks]})
        if options.output != STDOUT:
            info.write(options.output)
    return checks


def _checks(options: Options) -> list[Check]:
    from idgr.evaluation.audit.data import is_data
    from idgr.evaluation.audit.verdict import all_checks

    root, prepared = Path(options.path), None if options.data is None else Path(options.data)
    for folder in (root, *([prepared] if prepared is not None else [])):
        if not folder.is_dir():
            raise IdgrError("there is no such folder", "give a folder, such as `idgr prep` writes", where=folder)
    if prepared is not None and not is_data(prepared):
        raise IdgrError("holds no items.jsonl and train.jsonl", "give a folder that `idgr prep` wrote", where=prepared)
    checks, found = all_checks(root, prepared)
    if not options.mutate:
        return checks
    from idgr.stages.mutation import mutation_checks

    if found is None:
        raise IdgrError("no prepared folder to train on", "name one with --data", where=root)
    return checks + mutation_checks(found, options.seed)
