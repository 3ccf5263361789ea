"""Collaborative IDs (P5-CID; Hua et al. 2023, section 3): items that are bought together share the words of clusters.

The co-occurrence graph of the training sequences is cut into clusters by spectral clustering, each cluster again, until
one has at most so many items; an ID is the path of clusters and a number within the last. All is sparse: the graph has
at most `WINDOW` pairs per training event, and no matrix of items by items is ever full.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from idgr.ids.schemes.code_words import LEAF, code_word, width_of
from idgr.ids.schemes.libraries import one_thread
from idgr.ids.schemes.order import training_order
from idgr.progress import Progress

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WINDOW = 100  # places of a sequence within which two items count as bought together
_DEEPEST = 8  # levels of spectral clustering; a graph that it cannot divide must come to an end
_DENSE = 256  # items up to which a full matrix costs less than an iteration
_STARTS = 4  # of k-means


@dataclass(frozen=True)
class _Node:
    """Items of one cluster, as places in the training order.

    Attributes:
        members: in ascending order, or as they are to be dealt out.
        path: the clusters that lead here.
        linked: whether the graph has something to say about how to divide them.
    """

    members: Ints
    path: tuple[int, ...]
    linked: bool


def collaborative_ids(
    items: Sequence[str], sequences: Iterable[Sequence[str]], clusters: int, leaf_size: int, seed: int
) -> list[str]:
    """The path of clusters and a number in the last one, such as "aal bac zcb", for each item.

    Where the graph is not connected, its parts of more than `leaf_size` items are clusters, and the rest is dealt
    out in the order of its parts. So are items that training shows alone or never; of the latter, that order is one
    of chance. Numbers and clusters are in the training order, so neither the order of `items` nor a held-out event
    plays a part.

    Args:
        items: the keys of all items.
        sequences: training sequences, oldest first.
        clusters: the children of a cluster at most; 2 or more.
        leaf_size: the items of a cluster that is divided no more at most.
        seed: of k-means, of the start of the eigenvectors' search, and of the order of the unseen.
    """
    rows = [list(sequence) for sequence in sequences]
    order, _ = training_order(items, rows, seed)
    place = {item: number for number, item in enumerate(order)}
    import sklearn.cluster  # noqa: F401 - so that `one_thread` knows their libraries

    graph = co_occurrences([[place[item] for item in row if item in place] for row in rows], len(order))
    cluster_width, leaf_width = width_of(clusters), width_of(leaf_size)
    words: list[str] = [""] * len(order)
    waiting = [_Node(np.arange(len(order)), (), True)]
    with one_thread(), Progress("clusters", total=len(order), unit="items") as shown:
        while waiting:
            node = waiting.pop()
            if len(node.members) > leaf_size:
                waiting += _children(graph, node, clusters, leaf_size, seed)
                continue
            path = [code_word(level, number, cluster_width) for level, number in enumerate(node.path)]
            for number, member in enumerate(node.members.tolist()):
                words[member] = " ".join([*path, code_word(LEAF, number, leaf_width)])
            shown.advance(len(node.members))
    return [words[place[item]] for item in items]


def co_occurrences(sequences: Sequence[Sequence[int]], n_items: int) -> Any:
    """How often two different items stand within `WINDOW` places of one another.

    Returns:
        A symmetric scipy CSR array, [n_items, n_items], float64.
    """
    from scipy.sparse import coo_array, csr_array

    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    items = np.fromiter(chain.from_iterable(sequences), dtype=np.int64, count=int(lengths.sum()))
    users = np.repeat(np.arange(len(sequences)), lengths)
    total = csr_array((n_items, n_items), dtype=np.float64)
    for distance in range(1, min(WINDOW, int(lengths.max(initial=0)) - 1) + 1):
        same = users[distance:] == users[:-distance]
        left, right = items[:-distance][same], items[distance:][same]
        pairs = left != right
        ones = np.ones(int(pairs.sum()))
        total = total + coo_array((ones, (left[pairs], right[pairs])), shape=total.shape).tocsr()
    return (total + total.T).tocsr()


def _children(graph: Any, node: _Node, clusters: int, leaf_size: int, seed: int) -> Iterator[_Node]:
    parts: list[tuple[Ints, bool]] = []
    if node.linked and len(node.path) < _DEEPEST:
        parts = _divide(graph, node.members, clusters, leaf_size, seed)
    if len(parts) < 2:
        count = min(clusters, math.ceil(len(node.members) / leaf_size))
        dealt = parts[0][0] if parts else node.members
        parts = [(part, False) for part in np.array_split(dealt, count)]
    for number, (members, linked) in enumerate(parts):
        yield _Node(members, (*node.path, number), linked)


def _divide(graph: Any, members: Ints, clusters: int, leaf_size: int, seed: int) -> list[tuple[Ints, bool]]:
    """The members in at most `clusters` parts, each with whether it may be divided in the same way; or one part."""
    from scipy.sparse.csgraph import connected_components

    inner = graph[members][:, members]
    _, component = connected_components(inner, directed=False)
    sizes = np.bincount(component)
    large = np.flatnonzero(sizes > leaf_size)
    # The largest first; of equal ones, that whose first item comes first.
    large = large[np.argsort(-sizes[large], kind="stable")]
    if len(large) == len(sizes):
        large = large[:clusters] if len(large) <= clusters else large[: clusters - 1]
    else:
        large = large[: clusters - 1]
    rest = ~np.isin(component, large)
    loose = members[rest][np.argsort(component[rest], kind="stable")]
    if len(large) == 1:
        whole = component == large[0]
        labels = spectral_labels(inner[whole][:, whole], clusters - bool(len(loose)), seed)
        parts = [(members[whole][labels == label], True) for label in range(labels.max() + 1)]
    else:
        parts = [(members[component == label], True) for label in large.tolist()]
    return [*parts, (loose, False)] if len(loose) else parts


def spectral_labels(graph: Any, clusters: int, seed: int) -> Ints:
    """Spectral clustering by the normalised Laplacian (Ng, Jordan and Weiss 2001).

    Args:
        graph: a symmetric sparse array [N, N] without negative weights, connected.
        clusters: how many clusters at most.

    Returns:
        [N] cluster numbers, by the first item of each; fewer than `clusters` where k-means finds no more.
    """
    import scipy.sparse
    from scipy.sparse.linalg import eigsh
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n_items = graph.shape[0]
    clusters = min(clusters, n_items)
    if clusters < 2:
        return np.zeros(n_items, dtype=np.int64)
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel())
    normal = scipy.sparse.diags_array(scale) @ graph @ scipy.sparse.diags_array(scale)
    if n_items <= max(_DENSE, 2 * clusters + 2):
        vectors_NC: Floats = np.linalg.eigh(normal.toarray())[1][:, -clusters:]
    else:
        start = np.random.default_rng(seed).uniform(-1, 1, n_items)
        vectors_NC = eigsh(normal, k=clusters, which="LA", v0=start, tol=1e-4)[1]
    length = np.linalg.norm(vectors_NC, axis=1, keepdims=True)
    rows_NC = vectors_NC / np.where(length > 0, length, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: fewer clusters
        found = KMeans(clusters, n_init=_STARTS, random_state=seed).fit_predict(rows_NC)
    first: dict[int, int] = {}
    return np.array([first.setdefault(int(label), len(first)) for label in found], dtype=np.int64)
