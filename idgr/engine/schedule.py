"""Which instances make a batch, which batches a step, and how fast a step goes.

Everything here follows from the options, the epoch and the instances' costs alone, so that a training that is taken up
again, or spread over several processes, goes the same way.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from idgr.engine.options import TrainingOptions

Ints = npt.NDArray[np.int64]

# Batches are made of instances of similar length, among so many batches' worth of shuffled instances.
_BUCKET_BATCHES = 50


def learning_rate(step: int, steps: int, options: TrainingOptions) -> float:
    """The rate of a step, from 0, of so many in all: a linear warm-up, then the schedule."""
    warmup = round(options.warmup * steps)
    if step < warmup:
        return options.lr * (step + 1) / (warmup + 1)
    left = (steps - step) / max(1, steps - warmup)
    if options.schedule == "linear":
        return options.lr * left
    if options.schedule == "cosine":
        return options.lr * (1 - math.cos(math.pi * left)) / 2
    return options.lr


def epoch_batches(lengths: Ints, epoch: int, options: TrainingOptions) -> list[Ints]:
    """The batches of an epoch, as instance numbers: shuffled, then of similar length, then shuffled again.

    Args:
        lengths: [N] what an instance of a batch costs, such as its number of tokens.
    """
    random = np.random.default_rng([options.seed, epoch])
    order = random.permutation(len(lengths))
    if options.epoch_instances:
        order = order[: options.epoch_instances]
    if lengths.max(initial=0) <= np.iinfo(np.uint16).max:
        lengths = lengths.astype(np.uint16)  # which NumPy sorts in an eighth of the time
    stretch = options.batch_size * _BUCKET_BATCHES
    batches = []
    for begin in range(0, len(order), stretch):
        chunk = order[begin : begin + stretch]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        cuts = _cuts(lengths[chunk], options)
        batches += [chunk[i:j] for i, j in zip(cuts, [*cuts[1:], len(chunk)], strict=True)]
    return [batches[i] for i in random.permutation(len(batches))]


def _cuts(ascending: Ints, options: TrainingOptions) -> list[int]:
    """Where batches begin, given the costs of instances in ascending order."""
    if not options.max_tokens_per_batch:
        return list(range(0, len(ascending), options.batch_size))
    costs, cuts = ascending.tolist(), [0]
    while True:
        # The padded tokens of the next n instances grow with n, so the first n that is too many is found by halving.
        begin = cuts[-1]
        counts = range(1, min(options.batch_size, len(costs) - begin) + 1)
        fitting = bisect_right(counts, options.max_tokens_per_batch, key=lambda n: n * costs[begin + n - 1])
        end = begin + max(fitting, 1)
        if end >= len(costs):
            return cuts
        cuts.append(end)


def first_steps(lengths: Ints, options: TrainingOptions) -> list[int]:
    """The number of steps before each epoch, and at the end that of all steps."""
    # Without a bound on tokens every epoch has as many batches as the first.
    epochs = range(options.epochs if options.max_tokens_per_batch else 1)
    steps = [math.ceil(len(epoch_batches(lengths, epoch, options)) / options.accumulate) for epoch in epochs]
    return [0, *accumulate((steps * options.epochs)[: options.epochs])]
