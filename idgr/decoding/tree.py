"""The prefix tree on a device, for searches of many users at once.

Legend: B users, P nodes of a user, E excluded items of a user, I items, M nodes of the crown.

Answers what `idgr.decoding.trie.Trie` answers, for tensors of nodes and without asking the host, and which nodes lead
to items that may be returned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
        crown = np.arange(self.crown)
        # Of the nodes of the crown, how many children each has, and the first; anything at a leaf.
        self.count = torch.from_numpy(trie.n_children(crown).astype(np.int32)).to(device)
        first = np.minimum(trie.first(crown), len(trie) - 1)
        self.child = torch.from_numpy(first.astype(np.int32)).to(device)
        # On the CPU these are the tree's own arrays, which may be mapped from a file that other processes share.
        self.item_lo = torch.from_numpy(trie.item_lo).to(device)
        self.item_hi = torch.from_numpy(trie.item_hi).to(device)
        self.tail = torch.from_numpy(trie.tail).to(device)
        self.chain = torch.from_numpy(_chains(trie)).to(device)
        self.item = trie.item
        self.depth = trie.depth
        self.rank = np.empty(len(trie.item), dtype=np.int64)
        self.rank[trie.item] = np.arange(len(trie.item))
        self.allowed = None if allowed is None else np.asarray(allowed, dtype=bool)[trie.item]
        self.n_allowed: torch.Tensor | None = None
        if self.allowed is not None:
            self.n_allowed = torch.from_numpy(np.concatenate([[0], np.cumsum(self.allowed)])).to(device)

    def barred(self, excluded: Sequence[Collection[int]]) -> torch.Tensor | None:
        """[B, E] the sorted ranks of each user's excluded items, filled up with the number of items."""
        rows = []
        for items in excluded:
            ranks = np.unique(self.rank[np.fromiter(items, dtype=np.int64, count=len(items))])
            rows.append(ranks if self.allowed is None else ranks[self.allowed[ranks]])
        width = max(len(row) for row in rows)
        if width == 0:
            return None
        table = np.full((len(rows), width), len(self.rank), dtype=np.int64)
        for index, row in enumerate(rows):
            table[index, : len(row)] = row
        return torch.from_numpy(table).to(self.token.device)

    def alive(self, node_BP: torch.Tensor, barred_BE: torch.Tensor | None) -> torch.Tensor | None:
        """[B, P] whether any item below a node may be returned to the user; None if all may.

        The nodes of a tail are as alive as its head, which is always asked for first.
        """
        if self.n_allowed is None and barred_BE is None:
            return None
        crown = node_BP.clamp(max=self.crown - 1)
        lo, hi = self.item_lo[crown].long(), self.item_hi[crown].long()
        left = hi - lo if self.n_allowed is None else self.n_allowed[hi] - self.n_allowed[lo]
        if barred_BE is not None:
            left = left - (torch.searchsorted(barred_BE, hi) - torch.searchsorted(barred_BE, lo))
        return (left > 0) | (node_BP >= self.crown)

    def is_leaf(self, node: torch.Tensor) -> torch.Tensor:
        return (self.token[node] == self.eos) & (node > 0)  # at the root stands the start token, which may be EOS

    def n_children(self, node: torch.Tensor) -> torch.Tensor:
        of_crown = self.count[node.clamp(max=self.crown - 1)]
        return torch.where(node < self.crown, of_crown, self.token[node] != self.eos).long()

    def first(self, node: torch.Tensor) -> torch.Tensor:
        """The first child; anything at a leaf."""
        of_crown = self.child[node.clamp(max=self.crown - 1)]
        return torch.where(node < self.crown, of_crown, node + 1).clamp(max=len(self.token) - 1)

    def n_items(self, node: torch.Tensor) -> torch.Tensor:
        crown = node.clamp(max=self.crown - 1)
        return torch.where(node < self.crown, self.item_hi[crown] - self.item_lo[crown], 1)

    def rank_of(self, node: torch.Tensor) -> torch.Tensor:
        """The first rank below a node."""
        behind = torch.searchsorted(self.tail, node.int(), right=True) - 1
        return torch.where(node < self.crown, self.item_lo[node.clamp(max=self.crown - 1)], behind)

    def block(self, node: torch.Tensor) -> torch.Tensor:
        """The tokens from a node to the end of the chain that it begins: 1 at a node with several children, and 0 at a
        leaf, whose EOS needs no evaluation."""
        after = torch.searchsorted(self.tail, node.int(), right=True)
        return torch.where(node < self.crown, self.chain[node.clamp(max=self.crown - 1)], self.tail[after] - node - 1)


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
