"""The order of attempts."""

from __future__ import annotations

import math

import pytest

from idgr.errors import UsageError
from idgr.ids.schedule import Limits, Schedule


def test_the_papers_schedule() -> None:
    schedule = Schedule()
    assert schedule.penalties == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert schedule.n_attempts == 30
    assert schedule.limits(1) == Limits(0.1, 1, 10)
    assert schedule.limits(10) == Limits(1.0, 1, 10)
    assert schedule.limits(11) == Limits(0.1, 10, 20)
    assert schedule.limits(30) == Limits(1.0, 20, 30)


def test_a_stop_between_steps_is_not_passed() -> None:
    assert Schedule(penalty_start=1, penalty_step=4, penalty_stop=8.5).penalties == [1, 5]


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"penalty_start": -0.1}, "--penalty-start"),
        ({"penalty_step": 0.0}, "--penalty-step"),
        ({"penalty_stop": 0.05}, "--penalty-stop"),
        ({"penalty_stop": math.nan}, "--penalty-stop nan"),
        ({"length_step": 1}, "--length-step"),
        ({"max_length_rounds": 0}, "--max-length-rounds"),
        ({"penalty_stop": 1e308}, "--penalty-stop 1e"),
        ({"penalty_step": 1e-300}, "--penalty-step 1e-300 makes too many"),
        ({"length_step": 10**12}, "--length-step 10{12}"),
        ({"max_length_rounds": 10**12}, "--max-length-rounds 10{12}"),
    ],
)
def test_errors_name_the_flag(options: dict[str, float], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        Schedule(**options)
