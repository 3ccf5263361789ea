"""The attempts of Algorithm 1: which diversity penalty and which lengths each one searches with.

Knows numbers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from idgr.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """How one search goes: its diversity penalty, and lengths in [min_tokens, max_tokens), EOS counted."""

    penalty: float
    min_tokens: int
    max_tokens: int


_MOST_PENALTY, _MOST_PENALTIES, _MOST_TOKENS = 1000, 1000, 1000


@dataclass(frozen=True)
class Schedule:
    """The order of attempts: the penalty rises from start to stop, then the lengths move on and it starts again.

    With the paper's numbers that is 0.1 to 1.0 by 0.1 for IDs of [1, 10) tokens, then for [10, 20), and so on.

    Args:
        penalty_start, penalty_step, penalty_stop: the penalties of a length, `--penalty-start` and so on.
        length_step: the width of a range of lengths in tokens, `--length-step`.
        length_rounds: how many ranges of lengths are tried, `--max-length-rounds`; the paper names no end.
    """

    penalty_start: float = 0.1
    penalty_step: float = 0.1
    penalty_stop: float = 1.0
    length_step: int = 10
    length_rounds: int = 3

    def __post_init__(self) -> None:
        numbers = (self.penalty_start, self.penalty_step, self.penalty_stop)
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError("a penalty is not a finite number", "give --penalty-start, -step and -stop as numbers")
        if self.penalty_start < 0:
            raise UsageError("--penalty-start is negative", "a diversity penalty is 0 or more")
        if self.penalty_step <= 0:
            raise UsageError("--penalty-step is not above 0", "the paper has 0.1")
        if self.penalty_stop < self.penalty_start:
            raise UsageError("--penalty-stop is below --penalty-start", "give a stop of at least the start")
        if self.penalty_stop > _MOST_PENALTY:
            raise UsageError(f"--penalty-stop {self.penalty_stop}", f"give at most {_MOST_PENALTY}; the paper has 1")
        if (self.penalty_stop - self.penalty_start) / self.penalty_step > _MOST_PENALTIES:
            raise UsageError(f"--penalty-step {self.penalty_step} makes too many penalties", "the paper has 0.1")
        if max(self.length_step, self.length_rounds) > _MOST_TOKENS:
            todo = f"give at most {_MOST_TOKENS} of each; the paper has ranges of 10 tokens"
            raise UsageError(f"--length-step {self.length_step}, --max-length-rounds {self.length_rounds}", todo)
        if self.length_step < 2:
            raise UsageError("--length-step is below 2", "an ID and its end need two tokens; the paper has 10")
        if self.length_rounds < 1:
            raise UsageError("--max-length-rounds is below 1", "one round of lengths is the least")

    @property
    def penalties(self) -> list[float]:
        """The penalties of one range of lengths; rounded, so that the third of the paper's is 0.3."""
        steps = math.floor((self.penalty_stop - self.penalty_start) / self.penalty_step + 1e-9)
        return [round(self.penalty_start + step * self.penalty_step, 10) for step in range(steps + 1)]

    def __len__(self) -> int:
        return len(self.penalties) * self.length_rounds

    def limits(self, attempt: int) -> Limits:
        """Those of an attempt, counted from 1."""
        length_round, place = divmod(attempt - 1, len(self.penalties))
        low = length_round * self.length_step
        return Limits(self.penalties[place], max(1, low), low + self.length_step)
