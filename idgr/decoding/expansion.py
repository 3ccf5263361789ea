"""The log-probabilities of the children of tree nodes: what every search over the tree asks of the model.

Legend: B users, K prefixes of a user, L tokens of a block, Q query tokens of a user in one pass, R tokens of all users,
C slots, P children of a user's prefixes, N children of all users' prefixes, D width of the model.

A node with a single child begins a chain: no choice is left until the chain ends in a node with several children or in
a leaf. The tokens of a chain can be evaluated in one pass, as a block. Under the softmax over the whole vocabulary
(Eq. 2) each forced token costs something, so a block is evaluated where a search reaches its beginning, and only if the
search is sure to follow it to its end; else it goes token by token. Under the softmax over the valid children a forced
token costs nothing, so a block is evaluated only where its end is reached and there is a choice, and tails never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from idgr.decoding.decoder import Decoder, Memory
from idgr.decoding.tree import Tree
from idgr.errors import IdgrError

NEVER = float("-inf")
# So many rows of the head are gathered at a time, which bounds the memory at wide nodes.
_GATHER_CHUNK = 1 << 15


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
        length_BK = self.tree.block(prefixes.begin) * needed
        if self.full:
            length_BK = torch.where(settled_B[:, None], length_BK, length_BK.clamp(max=1))
        several = n_children * (n_children > 1)
        # All sizes of this step, in the only question that it asks the device.
        L, Q, R, P, N, n_choices = torch.stack(
            [
                length_BK.max(),
                length_BK.sum(1).max(),
                length_BK.sum(),
                n_children.sum(1).max(),
                n_children.sum(),
                several.sum(),
            ]
        ).tolist()
        if R:
            self._evaluate(prefixes, length_BK, depth_BK, L, Q, R)
        return self._score(prefixes, n_children, P, N, n_choices)

    def _evaluate(
        self, prefixes: Prefixes, length_BK: torch.Tensor, depth_BK: torch.Tensor, L: int, Q: int, R: int
    ) -> None:
        memory, tree = self.memory, self.tree
        (B, K), device, used = length_BK.shape, length_BK.device, memory.used
        steps = [prefixes.begin]
        for _ in range(L - 1):
            steps.append(tree.first(steps[-1]))
        prefix_R, among_R = _runs(length_BK.flatten(), R)
        node_R = torch.stack(steps)[among_R, prefix_R // K, prefix_R % K]
        # Each user's tokens lie side by side in the order of prefix and place.
        start_BK = length_BK.cumsum(1) - length_BK
        cell_R = prefix_R // K * Q + start_BK.flatten()[prefix_R] + among_R
        # Under the full softmax a block begins at the prefix's node, else it ends there.
        first_BK = depth_BK if self.full else depth_BK - length_BK + 1

        def spread(values_R: torch.Tensor, padding: int) -> torch.Tensor:
            return values_R.new_full((B * Q,), padding).index_copy_(0, cell_R, values_R).view(B, Q)

        prefix_BQ = spread(prefix_R % K, -1)
        own_BQQ = (prefix_BQ[:, :, None] == prefix_BQ[:, None, :]).tril_()
        past_BQC = prefixes.sees.gather(1, prefix_BQ.clamp(min=0)[..., None].expand(-1, -1, used))
        hidden_RD = self.decoder.extend(
            memory,
            spread(tree.token[node_R].long(), self.decoder.start),
            spread(first_BK.flatten()[prefix_R] + among_R, 0),
            torch.cat([past_BQC, own_BQQ], dim=-1),
            cell_R,
        )
        self.evaluated += R
        if self.full:
            normaliser_R = self.decoder.log_normaliser(hidden_RD)
            only_R = tree.token[tree.first(node_R)].long()
            forced_R = (hidden_RD.float() * self.decoder.head_VD[only_R].float()).sum(-1) - normaliser_R
            self.normaliser = torch.cat([self.normaliser, spread(normaliser_R, 0)], dim=1)
            self.forced = torch.cat([self.forced, spread(forced_R, 0)], dim=1)

        block_BKQ = prefix_BQ[:, None, :] == torch.arange(K, device=device)[:, None]
        prefixes.sees = torch.cat([prefixes.sees, block_BKQ], dim=-1)
        needed = length_BK > 0
        offset = 0 if self.full else length_BK - 1
        prefixes.slot = torch.where(needed, used + start_BK + offset, prefixes.slot)
        prefixes.ahead = torch.where(needed, length_BK - 1 - offset, prefixes.ahead)

    def _score(self, prefixes: Prefixes, n_children_BK: torch.Tensor, P: int, N: int, n_choices: int) -> Children:
        tree, memory, head_VD = self.tree, self.memory, self.decoder.head_VD
        B, K = n_children_BK.shape
        count = n_children_BK.flatten()
        row_N, among_N = _runs(count, N)
        child_N = tree.first(prefixes.node.flatten())[row_N] + among_N
        before_BK = n_children_BK.cumsum(1) - n_children_BK
        cell_N = row_N // K * P + before_BK.flatten()[row_N] + among_N

        slot_BK = prefixes.slot.clamp(min=0)
        if prefixes.at_root and memory.used:  # all users ask for the same children
            logit_BP = (memory.hidden[:, 0] @ head_VD[tree.token[1 : P + 1].long()].T).float()
            sum_B1 = self.normaliser[:, :1] if self.full else logit_BP.logsumexp(1, keepdim=True)
            log_prob_N = (logit_BP - sum_B1).flatten()
            if bool(log_prob_N.isnan().any()):
                raise IdgrError("the model's scores are not numbers", "train it again, with a lower learning rate")
        else:
            forced = self.forced.gather(1, slot_BK) if self.full else torch.zeros_like(slot_BK, dtype=torch.float32)
            log_prob_N = forced.flatten()[row_N]
            if n_choices:
                several = count * (count > 1)
                row, among = _runs(several, n_choices)
                place = (count.cumsum(0) - count)[row] + among
                cell = row // K * memory.hidden.shape[1] + slot_BK.flatten()[row]
                logit = _products(memory.hidden.flatten(0, 1), cell, head_VD, tree.token[child_N[place]].long())
                if self.full:
                    logit -= self.normaliser.gather(1, slot_BK).flatten()[row]
                else:
                    logit -= _log_sums(logit, row, several)
                log_prob_N.index_copy_(0, place, logit)

        return Children(
            node=child_N.new_zeros(B * P).index_copy_(0, cell_N, child_N).view(B, P),
            parent=row_N.new_zeros(B * P).index_copy_(0, cell_N, row_N % K).view(B, P),
            log_prob=log_prob_N.new_full((B * P,), NEVER).index_copy_(0, cell_N, log_prob_N).view(B, P),
        )


def _runs(count: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `total` elements in runs of `count` elements, its run and its place there."""
    run = torch.repeat_interleave(count, output_size=total)
    return run, torch.arange(total, device=count.device) - (count.cumsum(0) - count)[run]


def _products(hidden: torch.Tensor, row: torch.Tensor, head_VD: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """The logits of pairs of a hidden state and a token, in float32."""
    parts = [
        (hidden[rows].float() * head_VD[tokens].float()).sum(-1)
        for rows, tokens in zip(torch.split(row, _GATHER_CHUNK), torch.split(token, _GATHER_CHUNK), strict=True)
    ]
    return torch.cat(parts)


def _log_sums(logit: torch.Tensor, row: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """For each logit, the logarithm of the sum of exponentials over the logits of its row, which lie side by side."""
    top = torch.segment_reduce(logit, "max", lengths=lengths, initial=NEVER, unsafe=True)
    total = torch.segment_reduce((logit - top[row]).exp(), "sum", lengths=lengths, unsafe=True)
    return (top + total.log())[row]
