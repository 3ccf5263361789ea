"""The attempts of Algorithm 1: which diversity penalty and which lengths each one searches with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from idgr.errors import UsageError
from idgr.ids.schemes.options import TEXTUAL, SchemeOption
from idgr.options import StageOptions


@dataclass(frozen=True)
class Limits:
    """How one search goes: its diversity penalty, and lengths in [min_tokens, max_tokens), EOS counted."""

    penalty: float
    min_tokens: int
    max_tokens: int


_MOST_PENALTIES = 1000
_attempts = partial(SchemeOption, schemes=(TEXTUAL,))


@dataclass(frozen=True)
class Schedule(StageOptions):
    """The order of attempts: the penalty rises from start to stop, then the lengths move on and it starts again.

    With the paper's numbers that is 0.1 to 1.0 by 0.1 for IDs of [1, 10) tokens, then for [10, 20), and so on; the
    paper names no end.
    """

    penalty_start: Annotated[float, _attempts("First diversity penalty.", at_least=0)] = 0.1
    penalty_step: Annotated[float, _attempts("What a further attempt adds to it.", above=0)] = 0.1
    penalty_stop: Annotated[float, _attempts("Last diversity penalty.", at_most=1000)] = 1.0
    length_step: Annotated[
        int, _attempts("IDs of [1, step) tokens, then [step, 2·step), and so on.", at_least=2, at_most=1000)
    ] = 10
    max_length_rounds: Annotated[int, _attempts("Ranges of lengths that are tried.", at_least=1, at_most=1000)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty_stop < self.penalty_start:
            raise UsageError("--penalty-stop is below --penalty-start", "give a stop of at least the start")
        if (self.penalty_stop - self.penalty_start) / self.penalty_step > _MOST_PENALTIES:
            raise UsageError(f"--penalty-step {self.penalty_step} makes too many penalties", "the paper has 0.1")

    @property
    def penalties(self) -> list[float]:
        """The penalties of one range of lengths; rounded, so that the third of the paper's is 0.3."""
        steps = math.floor((self.penalty_stop - self.penalty_start) / self.penalty_step + 1e-9)
        return [round(self.penalty_start + step * self.penalty_step, 10) for step in range(steps + 1)]

    @property
    def n_attempts(self) -> int:
        return len(self.penalties) * self.max_length_rounds

    def limits(self, attempt: int) -> Limits:
        """Those of an attempt, counted from 1."""
        length_round, place = divmod(attempt - 1, len(self.penalties))
        low = length_round * self.length_step
        return Limits(self.penalties[place], max(1, low), low + self.length_step)
