"""Any number of made-up IDs in the shape of given ones: lengths, tokens and what follows what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idgr.errors import UsageError

# So often a token is drawn from all IDs instead of from those that follow the token before it. It makes enough
# different sequences for catalogues that are much larger than the given one.
_FRESH = 0.02


def synthetic_ids(source: Sequence[Sequence[int]], n_items: int, seed: int) -> list[list[int]]:
    """`n_items` different token sequences, by a chain over the token pairs of `source`.

    Raises:
        UsageError: there are not so many of these tokens in these lengths.
    """
    rng = np.random.default_rng(seed)
    lengths = np.array([len(row) for row in source])
    flat = np.concatenate([np.asarray(row, dtype=np.int64) for row in source])
    ends = np.zeros(len(flat), dtype=bool)
    ends[np.cumsum(lengths) - 1] = True
    begins = np.roll(ends, 1)
    before, after = flat[:-1][~ends[:-1]], flat[1:][~ends[:-1]]
    order = np.argsort(before, kind="stable")
    before, after = before[order], after[order]
    place_of = np.searchsorted(before, np.arange(flat.max() + 2))

    n_first, n_tokens = len(np.unique(flat[begins])), len(np.unique(flat))
    if n_items > sum(n_first * n_tokens ** (length - 1) for length in set(lengths.tolist())):
        what = f"--items {n_items}, of which the given IDs cannot make so many different ones"
        raise UsageError(what, "give more IDs, or fewer --items")

    width, fresh = int(lengths.max()), _FRESH
    found = np.zeros((0, width), dtype=np.int64)
    while len(found) < n_items:
        size = n_items - len(found) + 1000
        rows = np.full((size, width), -1, dtype=np.int64)
        length = rng.choice(lengths, size=size)
        rows[:, 0] = rng.choice(flat[begins], size=size)
        for t in range(1, width):
            going = np.flatnonzero(length > t)
            newest = rows[going, t - 1]
            first, count = place_of[newest], place_of[newest + 1] - place_of[newest]
            chained = (count > 0) & (rng.random(len(going)) >= fresh)
            step = after[np.minimum(first + (rng.random(len(going)) * count).astype(np.int64), len(after) - 1)]
            rows[going, t] = np.where(chained, step, rng.choice(flat, size=len(going)))
        n_found = len(found)
        found = np.unique(np.concatenate([found, rows]), axis=0)
        if len(found) == n_found:
            fresh *= 2  # the chain hardly makes any others
        found = found[rng.permutation(len(found))][:n_items]
    return [row[:length] for row, length in zip(found.tolist(), (found >= 0).sum(axis=1).tolist(), strict=True)]
