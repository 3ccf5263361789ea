"""Results user by user, brought into one order, and each held against a reference.

Shape letters: U users, M metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idgr.errors import IdgrError
from idgr.evaluation.significance import PairedTests, Resampling, corrected, paired_tests
from idgr.formats.records import UserFigures, read_user_figures
from idgr.progress import progress


@dataclass(frozen=True)
class Results:
    """Several systems' figures for the same users.

    Attributes:
        metrics: M names.
        users: U keys, in the order of the first file.
        values: [U, M] by the system's name, which is its file.
        left_out: users that not all files hold.
    """

    metrics: list[str]
    users: list[str]
    values: dict[str, NDArray[np.float64]]
    left_out: int


def read_results(files: Sequence[str], metrics: Sequence[str], *, common: bool = False) -> Results:
    """Read per-user files.

    Args:
        files: the first one gives the order of the users.
        common: whether users that not all files hold are left out, instead of refused.

    Raises:
        IdgrError: a line is wrong, the files hold different users, or a user has another target in another file.
    """
    rows = {file: {row.user_id: row for row in read_user_figures(file, metrics)} for file in files}
    first = rows[files[0]]
    shared = set(first).intersection(*rows.values())
    everyone = set(first).union(*rows.values())
    if not common:
        for file in files[1:]:
            _check_same_users(files[0], first, file, rows[file])
    for file in files[1:]:
        for user, row in rows[file].items():
            if user in shared and None not in (row.target, first[user].target) and row.target != first[user].target:
                raise IdgrError(
                    f"user {user!r} has the target {row.target!r}, but {first[user].target!r} in {files[0]}",
                    "compare results on the same truth",
                    where=file,
                )
    users = [user for user in first if user in shared]
    if len(users) < 2:
        raise IdgrError(
            f"shares {len(users)} users with the others, and a test needs two",
            "compare results of the same users",
            where=files[0],
        )
    values = {file: np.array([rows[file][user].values for user in users]) for file in files}
    return Results(list(metrics), users, values, len(everyone) - len(shared))


def compare_results(results: Results, reference: str, how: Resampling, correction: str) -> list[dict[str, Any]]:
    """A row for every system but the reference and every metric: means, difference, interval, p-values.

    Each p-value stands as it is and corrected (`…_corrected`) for all rows of that test.
    """
    pairs = [
        (system, metric, column)
        for system in results.values
        if system != reference
        for column, metric in enumerate(results.metrics)
    ]
    rows = []
    found: list[PairedTests] = []
    for system, metric, column in progress(pairs, "compare", unit="tests"):
        ours, theirs = results.values[system][:, column], results.values[reference][:, column]
        tests = paired_tests(theirs, ours, how)
        found.append(tests)
        base = float(theirs.mean())
        rows.append(
            {
                "system": system,
                "metric": metric,
                "mean": float(ours.mean()),
                "reference_mean": base,
                "difference": tests.difference,
                "relative": tests.difference / base if base else None,
                "interval": list(tests.interval),
                "better": int((ours > theirs).sum()),
                "worse": int((ours < theirs).sum()),
                "t": tests.t,
                "p_t_test": tests.t_test,
                "p_randomisation": tests.randomisation,
            }
        )
    for name, p_values in (
        ("p_t_test", [tests.t_test for tests in found]),
        ("p_randomisation", [tests.randomisation for tests in found]),
    ):
        for row, p in zip(rows, corrected(p_values, correction), strict=True):
            row[f"{name}_corrected"] = p
    return rows


def _check_same_users(
    first: str, its_users: dict[str, UserFigures], second: str, theirs: dict[str, UserFigures]
) -> None:
    for here, users, there, others in ((second, theirs, first, its_users), (first, its_users, second, theirs)):
        missing = [user for user in others if user not in users]
        if missing:
            raise IdgrError(
                f"lacks {len(missing)} users of {there}, such as {missing[0]!r}",
                "compare results on the same truth, or give --common to test on the users that all files hold",
                where=here,
            )
