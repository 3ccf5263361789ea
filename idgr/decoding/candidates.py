"""Items by two scores: those that beam search finds and those that a second score puts first, each scored by both.

The second score is one of all items at once, given the state behind which an ID begins. What it puts first and the
beams have not found is scored by its ID too: the tokens of all such IDs are evaluated in one pass, those that several
IDs begin with once.

Legend: B users, K beams, I items, L tokens of the longest ID with EOS, D width of the model, R nodes that are
evaluated, U users of a group, Q nodes of one of them at most, S states, N children of nodes, E edges that cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from idgr.decoding.beam import BeamSearch, Ranking, best_places, ranking
from idgr.decoding.closing import groups_of
from idgr.decoding.expansion import NEVER, Expansion, log_sums, products, runs, spread

if TYPE_CHECKING:
    from idgr.decoding.trie import Trie

Second = Callable[[torch.Tensor, Sequence[Sequence[int]]], torch.Tensor]

# Pairs of a state and a child at one node from which a product of matrices pays; measured on a CPU.
_WIDE = 64


@dataclass(frozen=True)
class Candidates:
    """A user's candidates, in the order of their IDs' tokens.

    Attributes:
        items: by index.
        first: the score of the ID, as beam search has it.
        second: the other score.
        by_beams: which of them beam search has found.
    """

    items: npt.NDArray[np.int64]
    first: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]
    by_beams: npt.NDArray[np.bool_]

    def best(self, weight: float, k: int) -> Ranking:
        """The best k by `first` + `weight` · `second`; with no weight what beam search gives, as it gives it.

        Equal scores are in the order of the IDs' tokens.
        """
        items, score = self.items, self.first + np.float32(weight) * self.second
        if not weight:
            items, score = items[self.by_beams], self.first[self.by_beams]
        order = np.argsort(-score, kind="stable")[:k]
        return ranking(items[order].tolist(), score[order].tolist())


class CandidateSearch:
    """Beam search beside a second score; the candidates are the items of the beams and as many by that score.

    Args:
        search: its options, tree and model are used.
        trie: the tree that it searches.
        second: given the states [B, D] behind which IDs begin, and the prompts before them, the log-probabilities
            [B, I] of all items, in float32.
    """

    def __init__(self, search: BeamSearch, trie: Trie, second: Second) -> None:
        self.search, self.second = search, second
        device = search.tree.token.device
        self.item_I = torch.from_numpy(trie.item.astype(np.int64)).to(device)
        self.path_IL = torch.from_numpy(trie.paths()[trie.item]).to(device)  # by rank

    def candidates(
        self,
        prompts: Sequence[Sequence[int]],
        excluded: Sequence[Collection[int]] | None = None,
        *,
        batch_size: int = 32,
        advance: Callable[[int], object] | None = None,
    ) -> list[Candidates]:
        """Those of each prompt, in their order; the arguments and errors are those of `beam_search`."""
        options = self.search.options
        self.search.options = replace(options, k=options.beams)
        try:
            return self.search.in_batches(self._batch, prompts, excluded, batch_size=batch_size, advance=advance)
        finally:
            self.search.options = options

    def _batch(self, prompts: Sequence[Sequence[int]], barred_BE: torch.Tensor | None) -> list[Candidates]:
        options = self.search.options
        expansion, rank_BK, first_BK = self.search.finished(prompts, barred_BE)
        found_BK = first_BK > NEVER
        second_BI = self.second(root_states(expansion), prompts)[:, self.item_I]
        expansion.watch(second_BI)
        place_I = torch.arange(second_BI.shape[1], device=second_BI.device)
        open_BI = self._open(second_BI, barred_BE)
        best_BK = best_places(open_BI, place_I, options.beams)
        own_BK = open_BI.gather(1, best_BK) > NEVER
        known_BK = rank_BK.masked_fill(~found_BK, -1)
        own_BK &= ~(best_BK[:, :, None] == known_BK[:, None]).any(-1)
        log_prob_BK, length_BK = id_log_probs(expansion, self.path_IL, best_BK, own_BK)
        expansion.check()
        self.search.evaluated += expansion.evaluated
        rank = torch.cat([rank_BK, best_BK], 1)
        there = torch.cat([found_BK, own_BK], 1).cpu().numpy()
        first = torch.cat([first_BK, log_prob_BK / length_BK**options.length_penalty], 1).cpu().numpy()
        second = second_BI.gather(1, rank).cpu().numpy()
        return [
            self._of_user(ranks[mask], firsts[mask], seconds[mask], np.flatnonzero(mask) < found_BK.shape[1])
            for ranks, firsts, seconds, mask in zip(rank.cpu().numpy(), first, second, there, strict=True)
        ]

    def _open(self, second_BI: torch.Tensor, barred_BE: torch.Tensor | None) -> torch.Tensor:
        """The scores of the items that may be returned, by rank; minus infinity for the others."""
        tree = self.search.tree
        open_BI = second_BI
        if tree.allowed is not None:
            open_BI = open_BI.masked_fill(~torch.from_numpy(tree.allowed).to(open_BI.device), NEVER)
        if barred_BE is not None:  # filled up with the number of items
            barred_BI = torch.zeros(len(open_BI), open_BI.shape[1] + 1, dtype=torch.bool, device=open_BI.device)
            open_BI = open_BI.masked_fill(barred_BI.scatter_(1, barred_BE, True)[:, :-1], NEVER)
        return open_BI

    def _of_user(
        self,
        ranks: npt.NDArray[np.int64],
        first: npt.NDArray[np.float32],
        second: npt.NDArray[np.float32],
        by_beams: npt.NDArray[np.bool_],
    ) -> Candidates:
        order = np.argsort(ranks)
        items = self.search.tree.item[ranks[order]].astype(np.int64)
        return Candidates(items, first[order], second[order], by_beams[order])


def prompt_states(search: BeamSearch, prompts: Sequence[Sequence[int]], batch_size: int = 32) -> torch.Tensor:
    """[N, D] the states behind which each prompt's next ID begins."""

    def answer(some: Sequence[Sequence[int]], _: torch.Tensor | None) -> list[torch.Tensor]:
        return list(root_states(Expansion(search.decoder, search.tree, some, full=search.options.normalize == "full")))

    return torch.stack(search.in_batches(answer, prompts, None, batch_size=batch_size, advance=None))


def root_states(expansion: Expansion) -> torch.Tensor:
    """[B, D] the states behind which IDs begin, evaluated if they have not been yet."""
    cache = expansion.cache
    if not cache.used:
        user_B = torch.arange(expansion.n_users, device=cache.hidden.device)
        start_B1 = torch.full_like(user_B, expansion.decoder.start)[:, None]
        sees_B11 = torch.ones_like(start_B1, dtype=torch.bool)[:, None]
        expansion.decoder.extend(cache, start_B1, torch.zeros_like(start_B1), sees_B11, user_B)
        expansion.evaluated += len(user_B)
    return cache.hidden[:, 0]  # a search begins with the root, or with a chain that does


def id_log_probs(
    expansion: Expansion, path_IL: torch.Tensor, rank_BK: torch.Tensor, wanted_BK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probabilities of given IDs, [B, K] in float32, and their numbers of tokens; anything where not wanted.

    Args:
        expansion: with the root's states.
        path_IL: by rank, the nodes from below the root to the leaf; -1 fills up the shorter ones.
        rank_BK: the IDs, by rank.
        wanted_BK: which of them are.
    """
    tree = expansion.tree
    path_BKL = path_IL[rank_BK].long()
    length_BK = (path_BKL >= 0).sum(-1)
    there_BKL = (path_BKL >= 0) & wanted_BK[..., None]
    path_BKL = path_BKL * there_BKL
    above_BKL = torch.cat([torch.zeros_like(path_BKL[..., :1]), path_BKL[..., :-1]], -1)
    # Under the softmax over the valid children a forced token costs nothing.
    costs_BKL = there_BKL if expansion.full else there_BKL & (tree.n_children(above_BKL) > 1)
    # A node is evaluated where something below it costs.
    left_BKL = costs_BKL.long().flip(-1).cumsum(-1).flip(-1) - costs_BKL.long()
    asked_BKL = left_BKL > 0
    nodes = _nodes(path_BKL, asked_BKL, len(tree.token))
    state_SD = torch.cat([expansion.cache.hidden[:, 0], _states(expansion, nodes)])

    user_E, candidate_E, place_E = costs_BKL.nonzero(as_tuple=True)
    above_E = nodes.row_BKL[user_E, candidate_E, place_E - 1] + len(rank_BK)
    state_E = torch.where(place_E > 0, above_E, user_E)
    chosen_E = tree.token[path_BKL[costs_BKL]].long()
    log_prob_E = products(state_SD, state_E, expansion.decoder.head_VD, chosen_E)
    log_prob_E -= _normalisers(expansion, state_SD, nodes.node_R)[state_E]
    expansion.watch(log_prob_E)
    result = torch.zeros(costs_BKL.shape, device=log_prob_E.device)
    result[costs_BKL] = log_prob_E
    return result.sum(-1), length_BK


@dataclass(frozen=True)
class _Nodes:
    """The nodes that are evaluated, each once a user, by user and then by number, so that none is before those above.

    Attributes:
        node_R: the nodes.
        depth_R: their depths; 1 below the root.
        counts: how many each user has.
        asked_BKL: which places of the paths they stand at.
        row_BKL: which of them stands there.
    """

    node_R: torch.Tensor
    depth_R: torch.Tensor
    counts: torch.Tensor
    asked_BKL: torch.Tensor
    row_BKL: torch.Tensor


def _nodes(path_BKL: torch.Tensor, asked_BKL: torch.Tensor, n_nodes: int) -> _Nodes:
    user, _, place = asked_BKL.nonzero(as_tuple=True)
    key_R, row = torch.unique(user * n_nodes + path_BKL[asked_BKL], return_inverse=True)
    row_BKL = torch.zeros_like(path_BKL)
    row_BKL[asked_BKL] = row
    counts = torch.bincount(key_R // n_nodes, minlength=len(path_BKL))
    return _Nodes(key_R % n_nodes, torch.zeros_like(key_R).scatter_(0, row, place + 1), counts, asked_BKL, row_BKL)


def _states(expansion: Expansion, nodes: _Nodes) -> torch.Tensor:
    """[R, D] the states of nodes, each of which sees the root and the nodes on the way from there."""
    decoder, tree = expansion.decoder, expansion.tree
    root = decoder.with_slots(expansion.cache, torch.zeros(1, dtype=torch.long, device=nodes.node_R.device))
    state_RD = root.hidden.new_empty(len(nodes.node_R), root.hidden.shape[-1])
    start_B = nodes.counts.cumsum(0) - nodes.counts
    L = nodes.row_BKL.shape[-1]
    sizes: list[int] = nodes.counts.tolist()
    for users in groups_of(decoder, sizes, root.used) if len(nodes.node_R) else []:
        U, Q, R = len(users), max(sizes[user] for user in users), sum(sizes[user] for user in users)
        user_R, among_R = runs(nodes.counts[users], R)
        row_R, cell_R = start_B[users][user_R] + among_R, user_R * Q + among_R
        column_UKL = nodes.row_BKL[users] - start_B[users][:, None, None]
        own_UQQ = torch.zeros(U, Q, Q, dtype=torch.bool, device=row_R.device)
        for back in range(L):
            here_UKL = nodes.asked_BKL[users][..., back:]
            own_UQQ[
                here_UKL.nonzero()[:, 0], column_UKL[..., back:][here_UKL], column_UKL[..., : L - back][here_UKL]
            ] = True

        state_RD[row_R] = decoder.extend(
            decoder.only(root, users),
            spread(tree.token[nodes.node_R[row_R]].long(), decoder.start, cell_R, (U, Q)),
            spread(nodes.depth_R[row_R], 0, cell_R, (U, Q)),
            torch.cat([torch.ones_like(own_UQQ[..., :1]), own_UQQ], dim=-1),
            cell_R,
        )
    expansion.evaluated += len(nodes.node_R)
    return state_RD


def _normalisers(expansion: Expansion, state_SD: torch.Tensor, node_R: torch.Tensor) -> torch.Tensor:
    """[S] for the users' roots and then some nodes, the log-normaliser over what the softmax is over."""
    decoder, tree = expansion.decoder, expansion.tree
    if expansion.full:
        return decoder.log_normaliser(state_SD)
    B = len(state_SD) - len(node_R)
    n_root = int(tree.n_children(torch.zeros(1, dtype=torch.long, device=node_R.device)))
    root_B = expansion.root_logits(state_SD[:B], n_root).logsumexp(1)
    result_R = root_B.new_zeros(len(node_R))
    count_R = tree.n_children(node_R)
    narrow_R = torch.ones_like(count_R, dtype=torch.bool)
    if decoder.device.type == "cpu":  # a GPU is the slower the more often it is asked
        node_W, of_R, times_W = torch.unique(node_R, return_inverse=True, return_counts=True)
        first_W, count_W = tree.first(node_W).tolist(), tree.n_children(node_W)
        wide_W = times_W * count_W >= _WIDE
        rows = of_R.argsort(stable=True).split(times_W.tolist())
        for place in wide_W.nonzero().flatten().tolist():
            token_C = tree.token[first_W[place] : first_W[place] + int(count_W[place])].long()
            logits = state_SD[B:][rows[place]] @ decoder.head_VD[token_C].T
            result_R[rows[place]] = logits.float().logsumexp(1)
        narrow_R = ~wide_W[of_R]
    row_N, among_N = runs(count_R * narrow_R, int((count_R * narrow_R).sum()))
    if len(row_N):
        token_N = tree.token[tree.first(node_R)[row_N] + among_N].long()
        logit_N = products(state_SD[B:], row_N, decoder.head_VD, token_N)
        result_R.index_copy_(0, row_N, log_sums(logit_N, row_N, len(node_R)))
    return torch.cat([root_B, result_R])
