"""IDs that begin with words for what an item is bought with; further words tell it apart.

Items that are bought with the same ones make a cluster: some large ones, each divided into small ones. A cluster is
called by a word of its items' texts, which need not be a word of each of them. So the first levels of a prefix tree
say what an item is bought with, which its own text may not.

Legend: N items, D width of their vectors, K clusters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from idgr.ids.assignment import assign
from idgr.ids.schemes.bought_together import bought_vectors
from idgr.ids.schemes.libraries import one_thread
from idgr.ids.schemes.shared_words import surprise, tails, told_words
from idgr.ids.schemes.text_vectors import Floats32
from idgr.ids.schemes.vector_tree import divide
from idgr.ids.spelling import fold

_COMMON = 5  # texts that a word must be part of to stand for a cluster

Ints = npt.NDArray[np.int64]


def cluster_word_ids(
    texts: Sequence[str],
    sequences: Sequence[Sequence[int]],
    *,
    cluster_size: int,
    n_telling: int,
    seed: int,
) -> list[str]:
    """An ID for each item: the words of its two clusters, the larger first, then its most telling words.

    Args:
        texts: the items' plain texts, `key: value; key: value`.
        sequences: of places in `texts`, oldest first; of training alone.
        cluster_size: items of a small cluster, about; there are about the root of their number of large ones.
        n_telling: words of an item's own text behind those of its clusters.
        seed: of the vectors' decomposition and of k-means.
    """
    import faiss  # noqa: F401 - before `one_thread`, as is this
    import sklearn.utils.extmath  # noqa: F401

    words, frequency, telling = told_words(texts)
    with one_thread():
        levels = nested_clusters(bought_vectors(sequences, len(texts), seed), cluster_size, seed)
    named = _cluster_words(levels, words, frequency)
    firsts = [[word for word in chosen if word] for chosen in zip(*named, strict=True)]

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        return [_phrases(firsts[place], telling[place], n_telling) for place, _ in wanted]

    return [chosen.text for chosen in assign(range(len(texts)), propose, 1, lambda ids: [True] * len(ids))]


def nested_clusters(vectors_ND: Floats32, cluster_size: int, seed: int) -> tuple[Ints, Ints]:
    """[N] the number of each item's large cluster, and [N] that of its small one, no number in both.

    Call it within `one_thread`, with faiss imported before.
    """
    n_items = len(vectors_ND)
    n_large = max(1, round(math.sqrt(n_items / cluster_size)))
    large_N = divide(vectors_ND, n_large, n_items, seed)
    small_N = np.zeros_like(large_N)
    following = int(large_N.max()) + 1
    for number in range(following):
        members = np.flatnonzero(large_N == number)
        parts = divide(vectors_ND[members], max(1, round(len(members) / cluster_size)), len(members), seed + 1)
        small_N[members] = parts + following
        following += int(parts.max()) + 1
    return large_N, small_N


def _cluster_words(levels: tuple[Ints, Ints], words: list[list[str]], frequency: Counter[str]) -> list[list[str]]:
    """For each level the word of each item's cluster, "" for a cluster that no word is left for.

    The largest cluster chooses first, and no word stands for two: the one that most of its items' texts have more often
    than texts on the whole, p log(p / q), of its share p among them and its share q among all.
    """
    taken: set[str] = set()
    named = []
    for level_N in levels:
        members: dict[int, list[int]] = {}
        for item, cluster in enumerate(level_N.tolist()):
            members.setdefault(cluster, []).append(item)
        word_of: dict[int, str] = {}
        for cluster in sorted(members, key=lambda cluster: (-len(members[cluster]), cluster)):
            found = Counter(word for item in members[cluster] for word in dict.fromkeys(words[item]))
            ranked = sorted((-surprise(n, len(members[cluster]), frequency[word] / len(words)), word)
                            for word, n in found.items() if _is_common(word, frequency))  # fmt: skip
            best = next((word for score, word in ranked if score < 0 and fold(word) not in taken), "")
            taken.add(fold(best))
            word_of[cluster] = best
        named.append([word_of[cluster] for cluster in level_N.tolist()])
    return named


def _is_common(word: str, frequency: Counter[str]) -> bool:
    return frequency[word] >= _COMMON and len(word) > 1 and not any(character.isdigit() for character in word)


def _phrases(firsts: list[str], telling: list[tuple[int, str]], n_telling: int) -> list[str]:
    """Phrases in the order of preference, those of fewer words last.

    Args:
        telling: an item's words with their places, the most telling first; chosen ones stand in the order of the text.
    """
    had = set(map(fold, firsts))
    rest = [(place, word) for place, word in telling if fold(word) not in had]
    fewer = [rest[:count] for count in range(n_telling - 1, -1, -1)]
    phrases = [[*firsts, *_in_order(tail)] for tail in tails(rest, n_telling) + fewer]
    return list(dict.fromkeys(" ".join(phrase) for phrase in phrases if phrase))


def _in_order(words: list[tuple[int, str]]) -> list[str]:
    return [word for _, word in sorted(words)]
