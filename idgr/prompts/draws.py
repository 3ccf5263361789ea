"""Random numbers of a training by counter: what a number is drawn for decides it, not what was drawn before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]


def draws(seed: int, epoch: int, numbers: npt.NDArray[np.int64]) -> Words:
    """[N] 64 random bits for each number in an epoch."""
    return _mix(_mix(_mix(np.uint64(seed)) ^ np.uint64(epoch)) ^ numbers.astype(np.uint64))


def _mix(state: Words | np.uint64) -> Words:
    """One step of splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        mixed = np.asarray(state, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
