"""The log-probabilities of the children of tree nodes: what every search over the tree asks of the model.

Legend: B users, K prefixes of a user, L tokens of a block, Q query tokens of a user in one pass, R tokens of all users,
C slots, P children of a user's prefixes, N children of all users' prefixes, D width of the model.

A node with a single child begins a chain: no choice is left until the chain ends in a node with several children or in
a leaf. Under the softmax over the whole vocabulary (Eq. 2) each token of it costs something, so every node is evaluated
when its children are asked for. Under the softmax over the valid children a forced token costs nothing, so a chain is
evaluated in one pass, as a block, where its end is reached and there is a choice, and tails never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from idgr.decoding.decoder import Decoder
from idgr.decoding.kv_cache import KVCache
from idgr.decoding.tree import Tree
from idgr.errors import IdgrError

NEVER = float("-inf")
# So many rows of the head are gathered at a time, which bounds the memory at wide nodes. On a CPU as many as stay in
# its cache; a GPU is the slower the more often it is asked.
_GATHERED, _GATHERED_ON_CPU = 1 << 15, 1 << 10


@dataclass
class Prefixes:
    """K prefixes of each of B users, each at a node of the tree.

    Attributes:
        node: [B, K] the node.
        live: [B, K] whether there is a prefix at this place.
        begin: [B, K] the first node on the way to this one that has not been evaluated; the node itself if none.
        begin_depth: [B, K] the depth of that node.
        slot: [B, K] the node's slot in the decoder's memory; -1 if it has not been evaluated.
        sees: [B, K, C] the slots of the node's path that have been evaluated.
        at_root: whether all live nodes are the root.
    """

    node: torch.Tensor
    live: torch.Tensor
    begin: torch.Tensor
    begin_depth: torch.Tensor
    slot: torch.Tensor
    sees: torch.Tensor
    at_root: bool = False


@dataclass
class Children:
    """The children of a user's prefixes, side by side and filled up.

    Attributes:
        node: [B, P] the child; 0 where there is none.
        parent: [B, P] which of the K prefixes it continues.
        log_prob: [B, P] of the child given its parent, in float32; minus infinity where there is none.
        n: how many there are.
    """

    node: torch.Tensor
    parent: torch.Tensor
    log_prob: torch.Tensor
    n: int


class Expansion:
    """The model over a batch of users, asked for the children of prefixes of their answers.

    Attributes:
        evaluated: the tokens that went through the decoder.
        broken: [] whether the model gave scores that are not finite numbers.

    Args:
        full: the softmax over the whole vocabulary (Eq. 2 and 3) instead of one over the valid children.
    """

    def __init__(self, decoder: Decoder, tree: Tree, prompts: Sequence[Sequence[int]], *, full: bool) -> None:
        self.decoder, self.tree, self.full = decoder, tree, full
        self.cache: KVCache = decoder.read(prompts)
        self.n_users = len(prompts)
        self.evaluated = 0
        self.broken = torch.zeros((), dtype=torch.bool, device=decoder.device)
        # By slot, the log-normaliser.
        self.normaliser = torch.zeros(self.n_users, 0, device=decoder.device)

    def root(self, width: int) -> Prefixes:
        """Places for `width` prefixes of every user, of which the first is the empty one."""
        device, shape = self.decoder.device, (self.n_users, width)
        zeros = torch.zeros(shape, dtype=torch.long, device=device)
        return Prefixes(
            node=zeros,
            live=(torch.arange(width, device=device) == 0).expand(shape),
            begin=zeros,
            begin_depth=zeros,
            slot=zeros - 1,
            sees=torch.zeros(*shape, 0, dtype=torch.bool, device=device),
            at_root=True,
        )

    def follow(
        self, prefixes: Prefixes, parent_BK: torch.Tensor, node_BK: torch.Tensor, live_BK: torch.Tensor, depth: int
    ) -> Prefixes:
        """The prefixes that go from `prefixes` to nodes at `depth`, by one token each or, to the same node, none."""
        waiting = (prefixes.slot < 0).gather(1, parent_BK)
        C = prefixes.sees.shape[-1]
        return Prefixes(
            node=node_BK,
            live=live_BK,
            begin=torch.where(waiting, prefixes.begin.gather(1, parent_BK), node_BK),
            begin_depth=torch.where(waiting, prefixes.begin_depth.gather(1, parent_BK), depth),
            slot=torch.full_like(node_BK, -1),
            sees=prefixes.sees.gather(1, parent_BK[..., None].expand(-1, -1, C)),
        )

    def children(self, prefixes: Prefixes, active_BK: torch.Tensor, least: int = 0) -> Children:
        """The children of some prefixes, after the evaluation of what has not been evaluated.

        Args:
            prefixes: changed in place where blocks are evaluated.
            active_BK: of which prefixes.
            least: there is place for so many children at least.

        Raises:
            IdgrError: what was asked before has given scores that are not finite numbers.
        """
        n_children = self.tree.n_children(prefixes.node) * active_BK
        several = n_children * (n_children > 1)
        length_BK = (n_children > 0).long() if self.full else self.tree.block(prefixes.begin) * (several > 0)
        # All sizes of this step, and how the last one went, in the only question that it asks the device.
        of_users = torch.stack([length_BK, n_children, several]).sum(-1)
        L, broken, Q, P, _, R, N, n_choices = torch.cat(
            [length_BK.max()[None], self.broken[None], of_users.amax(-1), of_users.sum(-1)]
        ).tolist()
        if broken:
            self.check()
        if R:
            self._evaluate(prefixes, length_BK, L, Q, R)
        return self._score(prefixes, n_children, max(P, least), N, N if self.full else n_choices)

    def check(self) -> None:
        """Raise `IdgrError` if the scores were not finite numbers. It waits for the device."""
        if bool(self.broken):
            raise IdgrError("the model's scores are not numbers", "train it again, with a lower learning rate")

    def watch(self, log_prob_N: torch.Tensor) -> None:
        """Note whether all of some log-probabilities are finite, without waiting for the device.

        A node whose log-probability is minus infinity would vanish with all items below it, and nobody would know.
        """
        self.broken |= ~log_prob_N.sum().isfinite()  # a sum with a number that is not finite is none either

    def root_logits(self, state_BD: torch.Tensor, n: int) -> torch.Tensor:
        """[B, n] the logits of the root's n children, given the states behind which IDs begin.

        In float32 whatever the model's precision: bfloat16 would round logits to a sixteenth and more.
        """
        return state_BD.float() @ self.decoder.head_VD.index_select(0, self.tree.token[1 : n + 1]).float().T

    def _evaluate(self, prefixes: Prefixes, length_BK: torch.Tensor, L: int, Q: int, R: int) -> None:
        cache, tree = self.cache, self.tree
        (B, K), device, used = length_BK.shape, length_BK.device, cache.used
        steps = [prefixes.begin]
        for _ in range(L - 1):
            steps.append(tree.first(steps[-1]))
        # Each user's tokens lie side by side in the order of prefix and place; what is beyond them belongs to prefix K.
        end_BK = length_BK.cumsum(1)
        place_BQ = torch.arange(Q, device=device).repeat(B, 1)
        prefix_BQ = torch.searchsorted(end_BK, place_BQ, right=True)
        owner_BQ = prefix_BQ.clamp(max=K - 1)
        among_BQ = (place_BQ - (end_BK - length_BK).gather(1, owner_BQ)).clamp(max=L - 1)
        node_BQ = torch.cat(steps, 1).gather(1, among_BQ * K + owner_BQ)
        n_tokens = end_BK[:, -1]
        shift_B = torch.arange(0, B * Q, Q, device=device) - (n_tokens.cumsum(0) - n_tokens)
        cell_R = torch.repeat_interleave(shift_B, n_tokens, output_size=R) + torch.arange(R, device=device)

        own_BQQ = (prefix_BQ[:, :, None] == prefix_BQ[:, None, :]).tril_()
        past_BQC = prefixes.sees.gather(1, owner_BQ[..., None].expand(-1, -1, used))
        hidden_RD = self.decoder.extend(
            cache,
            tree.token.take(node_BQ).long(),
            prefixes.begin_depth.gather(1, owner_BQ) + among_BQ,
            torch.cat([past_BQC, own_BQQ], dim=-1),
            cell_R,
        )
        self.evaluated += R
        if self.full:
            normaliser_BQ = spread(self.decoder.log_normaliser(hidden_RD), 0, cell_R, (B, Q))
            self.normaliser = torch.cat([self.normaliser, normaliser_BQ], dim=1)
        block_BKQ = prefix_BQ[:, None, :] == torch.arange(K, device=device)[:, None]
        prefixes.sees = torch.cat([prefixes.sees, block_BKQ], dim=-1)
        prefixes.slot = torch.where(length_BK > 0, used + end_BK - 1, prefixes.slot)

    def _score(self, prefixes: Prefixes, n_children_BK: torch.Tensor, P: int, N: int, n_scored: int) -> Children:
        if prefixes.at_root:
            return self._score_root(n_children_BK.shape[0], P, N, n_scored)
        tree, cache, (B, K), device = self.tree, self.cache, n_children_BK.shape, n_children_BK.device
        count = n_children_BK.flatten()
        start = count.cumsum(0) - count
        user_B1 = torch.arange(B, device=device)[:, None]
        row_N, along_N = torch.repeat_interleave(count, output_size=N), torch.arange(N, device=device)
        # The children of a node are neighbours in the tree, among all children and among those of their user: from one
        # place to the other it is as far for all of them.
        child_N = (tree.first(prefixes.node).flatten() - start).index_select(0, row_N) + along_N
        shift_BK = (user_B1 * P - start.view(B, K)[:, :1]).expand(B, K)
        cell_N = shift_BK.flatten().index_select(0, row_N) + along_N
        parent_N = torch.arange(K, device=device).repeat(B).index_select(0, row_N)

        slot_BK = prefixes.slot.clamp(min=0)
        log_prob_N = child_N.new_zeros(N, dtype=torch.float32)
        if n_scored:
            row, place, child = row_N, None, child_N
            if n_scored < N:
                row, among = runs(count * (count > 1), n_scored)
                place = start.index_select(0, row) + among
                child = child_N.index_select(0, place)
            cell = (user_B1 * cache.hidden.shape[1] + slot_BK).flatten().index_select(0, row)
            token = tree.token.index_select(0, child).long()
            logit = products(cache.hidden.flatten(0, 1), cell, self.decoder.head_VD, token)
            if self.full:
                logit -= self.normaliser.gather(1, slot_BK).flatten().index_select(0, row)
            else:
                logit -= log_sums(logit, row, B * K)
            self.watch(logit)
            log_prob_N = logit if place is None else log_prob_N.index_copy_(0, place, logit)

        return Children(
            node=child_N.new_zeros(B * P).index_copy_(0, cell_N, child_N).view(B, P),
            parent=row_N.new_zeros(B * P).index_copy_(0, cell_N, parent_N).view(B, P),
            log_prob=log_prob_N.new_full((B * P,), NEVER).index_copy_(0, cell_N, log_prob_N).view(B, P),
            n=N,
        )

    def _score_root(self, B: int, P: int, N: int, n_scored: int) -> Children:
        """The children of the root, which are the same for all users: the nodes from 1 on."""
        n, device = N // B, self.decoder.device
        log_prob_BN = torch.zeros(B, n, device=device)
        if n_scored:
            logit_BN = self.root_logits(self.cache.hidden[:, 0], n)
            log_prob_BN = logit_BN - (self.normaliser[:, :1] if self.full else logit_BN.logsumexp(1, keepdim=True))
            self.watch(log_prob_BN)
        return Children(
            node=F.pad(torch.arange(1, n + 1, device=device), (0, P - n)).expand(B, P),
            parent=torch.zeros(B, P, dtype=torch.long, device=device),
            log_prob=F.pad(log_prob_BN, (0, P - n), value=NEVER),
            n=N,
        )


def spread(values_R: torch.Tensor, padding: int, cell_R: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """[B, Q] of a shape with values at their places, flattened, and padding elsewhere."""
    return values_R.new_full((shape[0] * shape[1],), padding).index_copy_(0, cell_R, values_R).view(shape)


def runs(count: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `total` elements in runs of `count` elements, its run and its place there."""
    run = torch.repeat_interleave(count, output_size=total)
    return run, torch.arange(total, device=count.device) - (count.cumsum(0) - count).index_select(0, run)


def products(hidden: torch.Tensor, row: torch.Tensor, head_VD: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """The logits of pairs of a hidden state and a token, in float32."""
    # `index_select` copies whole rows, four times as fast as an index in brackets, and what it is copied to is used
    # again, since a processor is slow to hand out new memory.
    size = _GATHERED_ON_CPU if hidden.device.type == "cpu" else _GATHERED
    shape = (min(len(row), size), hidden.shape[1])
    states, weights = hidden.new_empty(shape), head_VD.new_empty(shape)
    logit = hidden.new_empty(len(row), dtype=torch.float32)
    for rows, tokens, sums in zip(row.split(size), token.split(size), logit.split(size), strict=True):  # type: ignore[no-untyped-call]
        if len(rows) < len(states):
            states, weights = states[: len(rows)], weights[: len(rows)]
        torch.index_select(hidden, 0, rows, out=states)
        torch.index_select(head_VD, 0, tokens, out=weights)
        torch.sum(states.float().mul_(weights), -1, out=sums)
    return logit


def log_sums(logit_N: torch.Tensor, row_N: torch.Tensor, n_rows: int) -> torch.Tensor:
    """For each logit, the logarithm of the sum of exponentials over the logits of its row."""
    top = logit_N.new_full((n_rows,), NEVER).scatter_reduce_(0, row_N, logit_N, "amax")
    total = logit_N.new_zeros(n_rows).index_add_(0, row_N, (logit_N - top.index_select(0, row_N)).exp_())
    return (top + total.log()).index_select(0, row_N)
