"""A check and its verdict.

PASS and FAIL are said only where the evidence decides; what cannot be decided is SKIP, with the reason. WARN is what is
no fault in itself, but should be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, SKIP, WARN = "PASS", "FAIL", "SKIP", "WARN"


@dataclass(frozen=True)
class Check:
    """A line of the audit.

    Attributes:
        name: what is claimed, such as "users stand once".
        subject: the file or folder.
        verdict: PASS, FAIL, WARN or SKIP.
        evidence: what the verdict rests on; for SKIP why there is none.
    """

    name: str
    subject: str
    verdict: str
    evidence: str

    def row(self) -> dict[str, Any]:
        return asdict(self)


def judged(name: str, subject: object, faults: Sequence[str], evidence: str) -> Check:
    """PASS with the evidence, or FAIL with the number of faults and the first of them."""
    if not faults:
        return Check(name, str(subject), PASS, evidence)
    others = f" (and {len(faults) - 1:,} more)" if len(faults) > 1 else ""
    return Check(name, str(subject), FAIL, f"{faults[0]}{others}")


def skipped(name: str, subject: object, reason: str) -> Check:
    return Check(name, str(subject), SKIP, reason)
