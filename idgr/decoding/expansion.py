"""The log-probabilities of the children of tree nodes: what every search over the tree asks of the model.

Legend: B users, K prefixes of a user, L tokens of a block, Q query tokens of a user in one pass, R queries or rows that
are no padding, C slots, N candidates of all users, P candidates of a user, D width of the model, E excluded items.

A node with a single child begins a chain: no choice is left until the chain ends in a node with several children or in
a leaf. The tokens of a chain can be evaluated in one pass, as a block. Under the softmax over the whole vocabulary
(Eq. 2) each forced token costs something, so a block is evaluated where a search reaches its beginning, and only if the
search is sure to follow it to its end; else it goes token by token. Under the softmax over the valid children a forced
token costs nothing, so a block is evaluated only where its end is reached and there is a choice, and tails never.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from idgr.decoding.decoder import Decoder, Memory
from idgr.decoding.trie import Trie

NEVER = float("-inf")
# So many rows of the head are gathered at a time, which bounds the memory at wide nodes.
_GATHER_CHUNK = 1 << 15


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
        self.first_child = torch.tensor(trie.first_child, device=device)
        self.item_lo = torch.tensor(trie.item_lo, device=device)
        self.item_hi = torch.tensor(trie.item_hi, device=device)
        self.tail = torch.tensor(trie.tail, device=device)
        self.chain = torch.tensor(_chains(trie), device=device)
        self.crown = len(trie.item_lo)
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
        return self.token[node] == self.eos

    def n_children(self, node: torch.Tensor) -> torch.Tensor:
        crown = node.clamp(max=self.crown - 1)
        several = self.first_child[crown + 1] - self.first_child[crown]
        return torch.where((node < self.crown) & (several > 0), several, ~self.is_leaf(node)).long()

    def first(self, node: torch.Tensor) -> torch.Tensor:
        """The first child; anything at a leaf."""
        crown = node.clamp(max=self.crown - 1)
        first, after = self.first_child[crown], self.first_child[crown + 1]
        of_crown = torch.where(after > first, first, self.tail[self.item_lo[crown].long()])
        return torch.where(node < self.crown, of_crown, node + 1).clamp(max=len(self.token) - 1).long()

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


@dataclass
class Prefixes:
    """K prefixes of each of B users, each at a node of the tree.

    Attributes:
        node: [B, K] the node.
        live: [B, K] whether there is a prefix at this place.
        begin: [B, K] the first node of the block that holds the node.
        slot: [B, K] the node's slot in the decoder's memory; -1 if it has not been evaluated.
        ahead: [B, K] how many tokens of the block beyond the node have been evaluated.
        sees: [B, K, C] the slots of the node's path, the whole of its block among them.
        at_root: whether all nodes are the root.
    """

    node: torch.Tensor
    live: torch.Tensor
    begin: torch.Tensor
    slot: torch.Tensor
    ahead: torch.Tensor
    sees: torch.Tensor
    at_root: bool = False


@dataclass
class Children:
    """The children of a user's prefixes, side by side and filled up.

    Attributes:
        node: [B, P] the child; 0 where there is none.
        parent: [B, P] which of the K prefixes it continues.
        log_prob: [B, P] of the child given its parent, in float32; minus infinity where there is none.
    """

    node: torch.Tensor
    parent: torch.Tensor
    log_prob: torch.Tensor


class Expansion:
    """The model over a batch of users, asked for the children of prefixes of their answers.

    `evaluated` counts the tokens that went through the decoder.

    Args:
        full: the softmax over the whole vocabulary (Eq. 2 and 3) instead of one over the valid children.
    """

    def __init__(self, decoder: Decoder, tree: Tree, prompts: Sequence[Sequence[int]], *, full: bool) -> None:
        self.decoder, self.tree, self.full = decoder, tree, full
        self.memory: Memory = decoder.encode(prompts)
        self.n_users = len(prompts)
        self.evaluated = 0
        device = decoder.device
        # By slot: the log-normaliser, and the log-probability of the only child.
        self.normaliser = torch.zeros(self.n_users, 0, device=device)
        self.forced = torch.zeros(self.n_users, 0, device=device)

    def root(self) -> Prefixes:
        """The empty prefix of every user."""
        device, shape = self.decoder.device, (self.n_users, 1)
        zeros = torch.zeros(shape, dtype=torch.long, device=device)
        return Prefixes(
            node=zeros,
            live=torch.ones(shape, dtype=torch.bool, device=device),
            begin=zeros,
            slot=zeros - 1,
            ahead=zeros,
            sees=torch.zeros(*shape, 0, dtype=torch.bool, device=device),
            at_root=True,
        )

    def follow(
        self, prefixes: Prefixes, parent_BK: torch.Tensor, node_BK: torch.Tensor, live_BK: torch.Tensor
    ) -> Prefixes:
        """The prefixes that continue some of `prefixes` by one token each, to the nodes `node_BK`."""
        slot, ahead = prefixes.slot.gather(1, parent_BK), prefixes.ahead.gather(1, parent_BK)
        single = self.tree.n_children(prefixes.node).gather(1, parent_BK) == 1
        known = (slot >= 0) & (ahead > 0)
        waiting = (slot < 0) & single
        C = prefixes.sees.shape[-1]
        return Prefixes(
            node=node_BK,
            live=live_BK,
            begin=torch.where(known | waiting, prefixes.begin.gather(1, parent_BK), node_BK),
            slot=torch.where(known, slot + 1, -1),
            ahead=torch.where(known, ahead - 1, 0),
            sees=prefixes.sees.gather(1, parent_BK[..., None].expand(-1, -1, C)),
        )

    def children(self, prefixes: Prefixes, depth_BK: torch.Tensor, settled_B: torch.Tensor) -> Children:
        """The children of every live prefix, evaluating what has not been evaluated.

        Args:
            prefixes: changed in place where blocks are evaluated.
            depth_BK: the depths of their nodes.
            settled_B: whose prefixes will all be followed to their ends, so that whole chains can be evaluated at once.
        """
        n_children = self.tree.n_children(prefixes.node) * prefixes.live
        needed = (prefixes.slot < 0) & ((n_children > 0) if self.full else (n_children > 1))
        if bool(needed.any()):
            self._evaluate(prefixes, needed, depth_BK, settled_B)
        return self._score(prefixes, n_children)

    def _evaluate(
        self, prefixes: Prefixes, needed: torch.Tensor, depth_BK: torch.Tensor, settled_B: torch.Tensor
    ) -> None:
        memory, tree = self.memory, self.tree
        (B, K), device, used = needed.shape, needed.device, memory.used
        length_BK = tree.block(prefixes.begin) * needed
        if self.full:
            length_BK = torch.where(settled_B[:, None], length_BK, length_BK.clamp(max=1))
        L = int(length_BK.max())
        steps = [prefixes.begin]
        for _ in range(L - 1):
            steps.append(tree.first(steps[-1]))
        node_BKL = torch.stack(steps, dim=-1)
        exists = torch.arange(L, device=device) < length_BK[..., None]
        # Each user's tokens lie side by side in the order of prefix and place.
        place = exists.flatten(1).cumsum(1) - 1
        Q = int(place.max()) + 1
        row_R = exists.flatten().nonzero().squeeze(1)
        cell_R = row_R // (K * L) * Q + place.flatten()[row_R]
        prefix_R = row_R // L % K
        node_R = node_BKL.flatten()[row_R]
        # Under the full softmax a block begins at the prefix's node, else it ends there.
        first_BK = depth_BK if self.full else depth_BK - length_BK + 1

        def spread(values_R: torch.Tensor, padding: int) -> torch.Tensor:
            return values_R.new_full((B * Q,), padding).index_copy_(0, cell_R, values_R).view(B, Q)

        prefix_BQ = spread(prefix_R, -1)
        position_R = first_BK.flatten()[row_R // L] + row_R % L
        own_BQQ = (prefix_BQ[:, :, None] == prefix_BQ[:, None, :]).tril_()
        past_BQC = prefixes.sees.gather(1, prefix_BQ.clamp(min=0)[..., None].expand(-1, -1, used))
        hidden_RD = self.decoder.extend(
            memory,
            spread(tree.token[node_R].long(), self.decoder.start),
            spread(position_R, 0),
            torch.cat([past_BQC, own_BQQ], dim=-1),
            cell_R,
        )
        self.evaluated += len(row_R)
        if self.full:
            normaliser_R = self.decoder.log_normaliser(hidden_RD)
            only_R = tree.token[tree.first(node_R)].long()
            forced_R = (hidden_RD.float() * self.decoder.head_VD[only_R].float()).sum(-1) - normaliser_R
            self.normaliser = torch.cat([self.normaliser, spread(normaliser_R, 0)], dim=1)
            self.forced = torch.cat([self.forced, spread(forced_R, 0)], dim=1)

        block_BKQ = prefix_BQ[:, None, :] == torch.arange(K, device=device)[:, None]
        prefixes.sees = torch.cat([prefixes.sees, block_BKQ], dim=-1)
        first_slot = used + place.view(B, K, L)[:, :, 0]
        offset = 0 if self.full else length_BK - 1
        prefixes.slot = torch.where(needed, first_slot + offset, prefixes.slot)
        prefixes.ahead = torch.where(needed, length_BK - 1 - offset, prefixes.ahead)

    def _score(self, prefixes: Prefixes, n_children_BK: torch.Tensor) -> Children:
        tree, memory, head_VD = self.tree, self.memory, self.decoder.head_VD
        (B, K), device = n_children_BK.shape, n_children_BK.device
        count = n_children_BK.flatten()
        n_user = n_children_BK.sum(1)
        P, N = int(n_user.max()), int(n_user.sum())
        row_N = torch.repeat_interleave(count, output_size=N)
        among_N = torch.arange(N, device=device) - (count.cumsum(0) - count)[row_N]
        child_N = tree.first(prefixes.node.flatten())[row_N] + among_N
        user_N = row_N // K
        cell_N = user_N * P + torch.arange(N, device=device) - (n_user.cumsum(0) - n_user)[user_N]

        slot = prefixes.slot.clamp(min=0)
        if prefixes.at_root and memory.used:  # all users ask for the same children
            log_prob_N = (memory.hidden[:, 0] @ head_VD[tree.token[1 : P + 1].long()].T).float().flatten()
            normaliser = self.normaliser[:, :1] if self.full else log_prob_N.view(B, P).logsumexp(1, keepdim=True)
            log_prob_N = (log_prob_N.view(B, P) - normaliser).flatten()
        else:
            forced = self.forced.gather(1, slot) if self.full else torch.zeros_like(prefixes.node, dtype=torch.float32)
            log_prob_N = forced.flatten()[row_N]
            choice = (count[row_N] > 1).nonzero().squeeze(1)
            if len(choice):
                row = row_N[choice]
                cell = (row // K) * memory.hidden.shape[1] + slot.flatten()[row]
                logit = _products(memory.hidden.flatten(0, 1), cell, head_VD, tree.token[child_N[choice]].long())
                if self.full:
                    logit -= self.normaliser.gather(1, slot).flatten()[row]
                else:
                    logit -= _log_sums(logit, row, count)
                log_prob_N[choice] = logit

        return Children(
            node=child_N.new_zeros(B * P).index_copy_(0, cell_N, child_N).view(B, P),
            parent=row_N.new_zeros(B * P).index_copy_(0, cell_N, row_N % K).view(B, P),
            log_prob=log_prob_N.new_full((B * P,), NEVER).index_copy_(0, cell_N, log_prob_N).view(B, P),
        )


def _products(hidden: torch.Tensor, row: torch.Tensor, head_VD: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """The logits of pairs of a hidden state and a token, in float32."""
    parts = [
        (hidden[rows].float() * head_VD[tokens].float()).sum(-1)
        for rows, tokens in zip(torch.split(row, _GATHER_CHUNK), torch.split(token, _GATHER_CHUNK), strict=True)
    ]
    return torch.cat(parts)


def _log_sums(logit: torch.Tensor, row: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """For each logit, the logarithm of the sum of exponentials over the logits of its row, which lie side by side."""
    lengths = torch.where(count > 1, count, 0)
    top = torch.segment_reduce(logit, "max", lengths=lengths, initial=NEVER, unsafe=True)
    total = torch.segment_reduce((logit - top[row]).exp(), "sum", lengths=lengths, unsafe=True)
    return (top + total.log())[row]
