"""IDs of trees (LLM-BS, also EAGER-LLM; Hong et al. 2025): the path of an item as a word of each level.

A tree is of what items say or of how they are used; a dual ID has the path in the one and then the path in the other.
Each path alone is unique, so there are no conflicts to tell apart. Where a dual ID is so short that a path cannot be,
the behaviour code makes up for it: see `dual_paths`. Call it within `one_thread`, with faiss imported before.

Legend: N items, L levels, K centres.
"""

from __future__ import annotations

import numpy as np

from idgr.errors import UsageError
from idgr.ids.schemes.code_words import code_word, width_of
from idgr.ids.schemes.vector_tree import Floats32, Ints, centres, divide, nearest, tree_paths, usual_branches


def check_room(n_items: int, levels: int, codebook: int, *, dual: bool) -> None:
    """Raise `UsageError` where `single_paths` or `dual_paths` would have too few paths for so many items."""
    if dual and levels < 2:
        raise UsageError(f"--levels {levels} of a dual ID", "give at least 2, one of each source")
    unique = levels
    if dual and levels > 2 and codebook < n_items:
        unique = max(2, levels // 2)
    if codebook**unique < n_items:
        named = f"{unique} of the {levels} levels" if unique < levels else f"{levels} levels"
        raise UsageError(
            f"--codebook {codebook} has {codebook**unique:,} paths of {named} for {n_items:,} items",
            "raise --codebook or --levels",
        )


def single_paths(vectors: Floats32, levels: int, codebook: int, branches: int, seed: int) -> Ints:
    """[N, L] the path of each item in the tree of its vectors, which must have room: see `check_room`.

    Args:
        vectors: [N, width].
        branches: as `tree_paths` has them; 0 for `usual_branches`.
    """
    branches = branches or usual_branches(len(vectors), levels, codebook)
    return tree_paths(vectors, levels, codebook, branches, seed)


def dual_paths(semantic: Floats32, behavior: Floats32, levels: int, codebook: int, branches: int, seed: int) -> Ints:
    """[N, L] a semantic path, then a behaviour path, each half the levels; of an odd number, the semantic one has more.

    Where one level of behaviour is left and has fewer codes than there are items, behaviour has no path but the
    nearest of `codebook` centres. With two levels the semantic half is no path either, but the nearest of as many,
    none with more than `codebook` items; these take different behaviour codes, so that their distances to the centres
    are the least in sum.

    Args:
        semantic, behavior: [N, width of each], of length 1.
    """
    n_items = len(semantic)
    last = levels // 2
    if last > 1 or codebook >= n_items:
        first_NL = single_paths(semantic, levels - last, codebook, branches, seed)
        return np.concatenate([first_NL, single_paths(behavior, last, codebook, branches, seed)], axis=1)
    if levels > 2:
        first_NL = single_paths(semantic, levels - last, codebook, branches, seed)
    else:
        first_NL = divide(semantic, codebook, codebook, seed)[:, None]
    return np.concatenate([first_NL, _different_codes(behavior, first_NL, codebook, seed)[:, None]], axis=1)


def _different_codes(vectors: Floats32, group_NL: Ints, codebook: int, seed: int) -> Ints:
    """[N] the number of a near one of `codebook` centres, different among the items of a group."""
    from scipy.optimize import linear_sum_assignment

    _, group_N = np.unique(group_NL, axis=0, return_inverse=True)
    group_N = group_N.ravel()
    centres_KD = centres(vectors, codebook, seed)
    # Different vectors may be too few: further codes stand for the same places.
    centres_KD = np.resize(centres_KD, (codebook, centres_KD.shape[1]))
    codes_N, scores_NK = nearest(vectors, centres_KD)
    order = np.argsort(group_N, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group_N[order])) + 1):
        if len(members) > 1:
            codes_N[members] = linear_sum_assignment(scores_NK[members])[1]
    return codes_N


def path_words(paths_NL: Ints, codebook: int) -> list[str]:
    """The words of each path, such as "aar bab" for 17 and then 1: the first letter of a word tells its level."""
    width = width_of(codebook)
    return [" ".join(code_word(level, code, width) for level, code in enumerate(path)) for path in paths_NL.tolist()]
