"""The prefix tree on a device, for searches of many users at once.

Legend: B users, P nodes of a user, E excluded items of a user, I items, M nodes of the crown.

Answers what `idgr.decoding.trie.Trie` answers, for tensors of nodes and without asking the host, and which nodes lead
to items that may be returned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idgr.decoding.trie import Trie


class Tree:
    """The tree on a device, and the subset of the items that may be returned.

    Args:
        trie: the tree of all IDs.
        start: the token that decoding starts with, which stands at the root.
        allowed: [I] which items may be returned; None for all.
    """

    def __init__(self, trie: Trie, start: int, allowed: npt.NDArray[np.bool_] | None, device: torch.device) -> None:
        self.eos = trie.eos
        self.token = torch.tensor(trie.token, device=device)
        self.token[0] = start
        self.crown = len(trie.item_lo)
        self.open = torch.from_numpy(trie.token != trie.eos).to(device)  # whether a node is no leaf
        crown = np.arange(self.crown)

        def table(of_crown: npt.NDArray[Any], of_tails: int | list[int]) -> torch.Tensor:
            """What is known of each node of the crown and, in one more entry, of all nodes of tails."""
            return torch.from_numpy(np.concatenate([of_crown, [of_tails]]).astype(np.int32)).to(device)

        # How many children a node has, how far off the first is (anything at a leaf), and how many items are below it.
        self.count = table(trie.n_children(crown), 1)
        self.step = table(trie.first(crown) - crown, 1)
        self.size = table(trie.item_hi - trie.item_lo, 1)
        # The ranks below it. In a tail, which is as alive as its head, all of them: where no item of the user is left,
        # its head is not asked for either.
        self.span = table(np.stack([trie.item_lo, trie.item_hi], 1), [0, len(trie.item)])
        # On the CPU these are the tree's own arrays, which may be mapped from a file that other processes share.
        self.item_lo = torch.from_numpy(trie.item_lo).to(device)
        self.tail = torch.from_numpy(trie.tail).to(device)
        self.chain = torch.from_numpy(_chains(trie)).to(device)
        self.item = trie.item
        self.depth, self.least_depth = trie.depth, int(trie.lengths.min())
        self.rank = np.empty(len(trie.item), dtype=np.int64)
        self.rank[trie.item] = np.arange(len(trie.item))
        self.allowed = None if allowed is None else np.asarray(allowed, dtype=bool)[trie.item]
        self.n_allowed: torch.Tensor | None = None
        if self.allowed is not None:
            self.n_allowed = torch.from_numpy(np.concatenate([[0], np.cumsum(self.allowed)])).to(device)

    def barred(self, excluded: Sequence[Collection[int]]) -> torch.Tensor | None:
        """[B, E] the sorted ranks of each user's excluded items, filled up with the number of items."""
        n_items = len(self.rank)
        user = np.repeat(np.arange(len(excluded)), [len(items) for items in excluded])
        ranks = self.rank[np.fromiter(chain.from_iterable(excluded), dtype=np.int64, count=len(user))]
        pairs = user * n_items + ranks
        user, ranks = np.divmod(np.unique(pairs if self.allowed is None else pairs[self.allowed[ranks]]), n_items)
        if len(user) == 0:
            return None
        counts = np.bincount(user, minlength=len(excluded))
        table = np.full((len(excluded), counts.max()), n_items, dtype=np.int64)
        table[user, np.arange(len(user)) - (counts.cumsum() - counts)[user]] = ranks
        return torch.from_numpy(table).to(self.token.device)

    def alive(self, node_BP: torch.Tensor, barred_BE: torch.Tensor | None) -> torch.Tensor | None:
        """[B, P] whether any item below a node may be returned to the user; None if all may.

        The nodes of a tail are as alive as its head, which is always asked for first; of them it is not known again.
        """
        if self.n_allowed is None and barred_BE is None:
            return None
        lo_hi = self.span.index_select(0, self._entry(node_BP).flatten()).long().view(len(node_BP), -1)
        below = lo_hi if self.n_allowed is None else self.n_allowed.take(lo_hi)
        if barred_BE is not None:
            below = below - torch.searchsorted(barred_BE, lo_hi)
        below = below.view(*node_BP.shape, 2)
        return below[..., 1] > below[..., 0]

    def _entry(self, node: torch.Tensor) -> torch.Tensor:
        """Where a node stands in the tables."""
        return node.clamp(max=self.crown)

    def is_leaf(self, node: torch.Tensor) -> torch.Tensor:
        return ~self.open.take(node)

    def n_children(self, node: torch.Tensor) -> torch.Tensor:
        return (self.count.take(self._entry(node)) * self.open.take(node)).long()

    def first(self, node: torch.Tensor) -> torch.Tensor:
        """The first child; anything at a leaf."""
        return (node + self.step.take(self._entry(node))).clamp(max=len(self.token) - 1)

    def n_items(self, node: torch.Tensor) -> torch.Tensor:
        return self.size.take(self._entry(node))

    def rank_of(self, node: torch.Tensor) -> torch.Tensor:
        """The first rank below a node."""
        behind = torch.searchsorted(self.tail, node.int(), right=True) - 1
        return torch.where(node < self.crown, self.item_lo.take(node.clamp(max=self.crown - 1)), behind)

    def block(self, node: torch.Tensor) -> torch.Tensor:
        """The tokens from a node to the end of the chain that it begins: 1 at a node with several children, and 0 at a
        leaf, whose EOS needs no evaluation."""
        after = torch.searchsorted(self.tail, node.int(), right=True)
        of_crown = self.chain.take(node.clamp(max=self.crown - 1))
        return torch.where(node < self.crown, of_crown, self.tail.take(after) - node - 1)


def _chains(trie: Trie) -> npt.NDArray[np.int32]:
    """[M] for each node of the crown, the tokens from it to the end of the chain that it begins."""
    several = np.diff(trie.first_child)
    lengths = np.ones(len(several), dtype=np.int32)
    heads = several == 0
    lengths[heads] = np.diff(trie.tail)[trie.item_lo[heads]]
    for first, last in reversed(trie.levels()):
        single = first + np.flatnonzero(several[first:last] == 1)
        lengths[single] = 1 + lengths[trie.first_child[single]]
    return lengths
