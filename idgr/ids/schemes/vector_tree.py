"""Trees over vectors by hierarchical k-means: near vectors share the beginning of a path, and no two share all of it.

LLM-BS (EAGER-LLM; Hong et al. 2025) divides a catalogue by k-means, and each part again, until a part holds one item.
Its trees are as deep as they turn out; here every path has the same length, since a part may hold no more than the
levels below it can tell apart. At the last level every vector of a part has a code of its own. Call it within
`one_thread`, with faiss imported before.

Legend: N vectors, D their width, K centres, L levels.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]

_ITERATIONS = 25
_POINTS = 256  # vectors per centre that k-means looks at, where there are more
# Paths for every vector. With one or two, parts of Beauty's texts at two levels were more than a codebook of 256 can
# hold and had to give some away; with four, the largest of 221 has 203.
_ROOM = 4


def usual_branches(n_vectors: int, levels: int, codebook: int) -> int:
    """The children of a node by which `levels` levels have about four paths a vector; at most `codebook`."""
    return max(2, min(codebook, math.ceil(math.pow(_ROOM * n_vectors, 1 / levels))))


def tree_paths(vectors_ND: Floats32, levels: int, codebook: int, branches: int, seed: int) -> Ints:
    """[N, L] a path for each vector, all different, each code below `codebook`.

    Children are numbered by the first of their vectors. Equal vectors, and what else stands together at the last
    level, are numbered in their order. So the order of the vectors should be one that tells nothing.

    Args:
        levels: L; with it there are at least N paths, codebook ** L.
        branches: the children of a node, but at the last level; more where fewer could not hold its vectors. At most
            `codebook`.
    """
    paths_NL = np.zeros((len(vectors_ND), levels), dtype=np.int64)
    waiting = [(np.arange(len(vectors_ND)), 0)]
    while waiting:
        members, level = waiting.pop()
        below = levels - level - 1
        if below == 0:
            paths_NL[members, level] = np.arange(len(members))
        elif len(members) > 1:
            parts = divide(vectors_ND[members], branches, codebook**below, seed + level)
            paths_NL[members, level] = parts
            waiting += [(members[parts == part], level + 1) for part in range(parts.max() + 1)]
    return paths_NL


def divide(vectors_ND: Floats32, parts: int, most: int, seed: int) -> Ints:
    """[N] the part of each vector, numbered by the first vector of each; no part holds more than `most`.

    Where k-means gives a centre more vectors than that, it keeps the nearest and is full, and the others go to the
    nearest centre that is not, until none has too many.

    Args:
        parts: how many there are at most, unless more are needed to hold all vectors. Fewer different vectors make
            fewer parts.
    """
    least = math.ceil(len(vectors_ND) / most)
    centres_KD = centres(vectors_ND, max(parts, least), seed)
    if len(centres_KD) < least:  # too few different vectors: the same place for several parts
        centres_KD = np.resize(centres_KD, (least, centres_KD.shape[1]))
    taken = nearest(vectors_ND, centres_KD)[0]
    open_K = np.ones(len(centres_KD), dtype=bool)
    while (crowded := np.flatnonzero(np.bincount(taken, minlength=len(centres_KD)) > most)).size:
        loose = []
        for centre in crowded.tolist():
            members = np.flatnonzero(taken == centre)
            distances = ((vectors_ND[members] - centres_KD[centre]) ** 2).sum(1)
            loose.append(members[np.argsort(distances, kind="stable")[most:]])
        open_K[crowded] = False
        # A centre that is just full is open still: it would then be crowded, keep the nearest and be closed.
        moved, still = np.concatenate(loose), np.flatnonzero(open_K)
        taken[moved] = still[nearest(vectors_ND[moved], centres_KD[still])[0]]
    first: dict[int, int] = {}
    return np.array([first.setdefault(part, len(first)) for part in taken.tolist()], dtype=np.int64)


def centres(vectors_ND: Floats32, count: int, seed: int) -> Floats32:
    """[K, D] the centres that k-means finds: `count`, or one for each different vector where those are fewer."""
    import faiss

    different_UD = np.unique(vectors_ND, axis=0)
    if len(different_UD) <= count:
        return different_UD
    means = faiss.Kmeans(
        vectors_ND.shape[1],
        count,
        niter=_ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS,
    )
    means.train(np.ascontiguousarray(vectors_ND))
    return np.asarray(means.centroids, dtype=np.float32)


def nearest(vectors_ND: Floats32, centres_KD: Floats32) -> tuple[Ints, Floats32]:
    """[N] the number of the nearest centre, the first of equally near ones, and [N, K] squared distances but for what
    is the same for all centres of a vector."""
    scores_NK = (centres_KD**2).sum(1) - 2 * (vectors_ND @ centres_KD.T)
    return scores_NK.argmin(1), scores_NK
