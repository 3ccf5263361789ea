"""The prefix tree of all item IDs, as flat arrays.

Legend: N nodes, I items. Nodes are numbered breadth first from the root, 0, so the children of a node are
neighbours, sorted by token. Items are ranked by their token sequences, so the items below a node are a range of ranks.
Knows token sequences only; the text of an ID and the search over the tree live elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from idgr.errors import IdgrError

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Trie:
    """A prefix tree in which each item's ID, ended by EOS, is a path from the root to a leaf of its own.

    Attributes:
        token: [N] the token on the edge into a node; -1 for the root.
        first_child: [N + 1] the children of node n are the nodes first_child[n] to first_child[n + 1] - 1.
        item_lo: [N] the first rank below a node.
        item_hi: [N] one past the last rank below a node.
        item: [I] rank to item, in the order in which the sequences were given.
    """

    token: Ints
    first_child: Ints
    item_lo: Ints
    item_hi: Ints
    item: Ints

    def __len__(self) -> int:
        return len(self.token)

    def levels(self) -> list[tuple[int, int]]:
        """The first node of each depth and one past its last, from the root's on."""
        bounds = [(0, 1)]
        while (below := (int(self.first_child[bounds[-1][0]]), int(self.first_child[bounds[-1][1]])))[0] < below[1]:
            bounds.append(below)
        return bounds

    @property
    def depth(self) -> int:
        """The number of tokens of the longest ID, EOS among them."""
        return len(self.levels()) - 1

    def paths(self) -> Ints:
        """[I, L] for each item, in the order in which the sequences were given, the nodes from below the root to its
        leaf; -1 fills up the shorter ones."""
        levels = self.levels()[1:]
        path = np.full((len(self.item), len(levels)), -1, dtype=np.int32)
        for t, (first, last) in enumerate(levels):
            nodes = np.arange(first, last, dtype=np.int32)
            n_items = self.item_hi[first:last] - self.item_lo[first:last]
            # The ranks below this level's nodes: ranges that ascend, with gaps where IDs have ended before.
            ends = np.cumsum(n_items)
            ranks = np.arange(ends[-1]) + np.repeat(self.item_lo[first:last] - (ends - n_items), n_items)
            path[self.item[ranks], t] = np.repeat(nodes, n_items)
        return path


def build_trie(ids: Sequence[Sequence[int]], eos: int) -> Trie:
    """Build the tree of `ids`, to each of which EOS is added as a real edge. Sorting aside, linear in tokens.

    Args:
        ids: the token sequence of each item, without EOS.
        eos: the end-of-sequence token.

    Raises:
        IdgrError: there are no IDs, one is empty or holds EOS, or two are the same.
    """
    if not ids:
        raise IdgrError("no IDs to build a prefix tree from", "give at least one")
    lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids)) + 1
    if lengths.min() < 2:
        raise IdgrError(f"the ID of item {int(lengths.argmin())} has no tokens", "generate the IDs again")
    width = int(lengths.max())
    rows = np.full((len(ids), width), -1, dtype=np.int32)
    filled = np.arange(width) < lengths[:, None] - 1
    rows[filled] = np.fromiter((token for row in ids for token in row), dtype=np.int32, count=int(filled.sum()))
    if (rows == eos).any():
        raise IdgrError("an ID holds the end-of-sequence token", "generate the IDs again")
    rows[np.arange(len(ids)), lengths - 1] = eos

    order = np.lexsort(rows.T[::-1]).astype(np.int32)
    rows = rows[order]
    # starts[i, t]: the first t + 1 tokens of row i differ from those of the row before.
    starts = np.ones(rows.shape, dtype=bool)
    np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1, out=starts[1:])
    if not starts[:, -1].all():
        same = int(np.flatnonzero(~starts[:, -1])[0])
        first, second = sorted((int(order[same - 1]), int(order[same])))
        raise IdgrError(f"items {first} and {second} have the same ID tokens", "generate the IDs again")

    tokens, los, his, counts = [np.array([-1])], [np.array([0])], [np.array([len(ids)])], []
    for t in range(width):
        begins = np.flatnonzero(starts[:, t])
        ends = np.append(begins[1:], len(ids))
        alive = rows[begins, t] >= 0
        begins, ends = begins[alive], ends[alive]
        parents = np.searchsorted(los[-1], begins, side="right") - 1
        counts.append(np.bincount(parents, minlength=len(los[-1])))
        tokens.append(rows[begins, t])
        los.append(begins)
        his.append(ends)
    counts.append(np.zeros(len(los[-1]), dtype=np.int64))
    first_child = np.concatenate([[1], 1 + np.cumsum(np.concatenate(counts))])
    return Trie(
        token=np.concatenate(tokens).astype(np.int32),
        first_child=first_child.astype(np.int32),
        item_lo=np.concatenate(los).astype(np.int32),
        item_hi=np.concatenate(his).astype(np.int32),
        item=order,
    )
