"""Semantic IDs (TIGER; Rajput et al. 2023, section 3.1): residual quantisation of the vectors of the items' texts.

Each level has a codebook of centres, found by k-means on what the levels before have left over; a last word tells items
of equal codes apart. TIGER learns its codebooks by an autoencoder (RQ-VAE); plain residual k-means is what that begins
from, and what others compare with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from idgr.ids.schemes.code_words import among_equals, code_word, width_of
from idgr.ids.schemes.libraries import one_thread

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]

_ITERATIONS = 25
_POINTS = 256  # vectors per centre that k-means looks at, where there are more


def semantic_ids(vectors_ND: Floats32, levels: int, codebook: int, seed: int) -> list[str]:
    """`levels` code words and the conflict word for each vector, such as "aej bgf cbz da".

    The conflict word always stands, so that all IDs have equally many words: it is 0 ("da") for the first item, in
    file order, of those with equal codes, and has a meaning among them only.
    """
    codes_NL = residual_codes(vectors_ND, levels, codebook, seed)
    conflicts = among_equals(map(tuple, codes_NL.tolist()))
    width, conflict_width = width_of(codebook), width_of(max(conflicts, default=0) + 1)
    return [
        " ".join(
            [
                *(code_word(level, code, width) for level, code in enumerate(codes)),
                code_word(levels, conflict, conflict_width),
            ]
        )
        for codes, conflict in zip(codes_NL.tolist(), conflicts, strict=True)
    ]


def residual_codes(vectors_ND: Floats32, levels: int, codebook: int, seed: int) -> Ints:
    """[N, levels] the number of the nearest centre at each level, each below `codebook`."""
    import faiss

    residual_ND = np.array(vectors_ND, dtype=np.float32, order="C")
    codes = []
    with one_thread():
        for level in range(levels):
            centres = min(codebook, len(np.unique(residual_ND, axis=0)))
            means = faiss.Kmeans(
                residual_ND.shape[1],
                centres,
                niter=_ITERATIONS,
                seed=seed + level,
                min_points_per_centroid=1,
                max_points_per_centroid=_POINTS,
            )
            means.train(residual_ND)
            nearest = means.assign(residual_ND)[1].astype(np.int64)
            codes.append(nearest)
            centres_KD = np.asarray(means.centroids)
            residual_ND = residual_ND - centres_KD[nearest]
    return np.stack(codes, axis=1)
