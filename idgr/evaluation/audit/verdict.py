"""All checks of a folder, whatever it holds: prepared data, a run, single outputs, or the published layout."""

from __future__ import annotations

from pathlib import Path

from idgr.evaluation.audit.checks import Check
from idgr.evaluation.audit.data import data_checks, read_data
from idgr.evaluation.audit.made_ids import ids_checks
from idgr.evaluation.audit.models import model_checks
from idgr.evaluation.audit.provenance import look_at, recorded_check
from idgr.evaluation.audit.published import is_published, published_checks
from idgr.evaluation.audit.results import result_checks


def all_checks(root: Path, data: Path | None = None) -> tuple[list[Check], Path | None]:
    """Everything that can be checked, and the prepared folder, if there is one.

    Args:
        data: the prepared folder; None for the one below `root`, or the one that its stages have read.

    Raises:
        IdgrError: there is nothing to look at, or a file is broken.
    """
    if is_published(root):
        return published_checks(root), None
    findings = look_at(root, data)
    checks = data_checks(read_data(findings.data)) if findings.data is not None else []
    if findings.outputs and findings.data != root:
        checks.append(recorded_check(findings))
    checks += ids_checks(findings) + model_checks(findings)
    if findings.data != root or len(findings.outputs) > 1:
        checks += result_checks(findings)
    return checks, findings.data
