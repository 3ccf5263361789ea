"""Diverse beam search (Vijayakumar et al. 2016) with Hamming diversity between groups, for a batch of sources.

Returns what `generate(num_beams=, num_beam_groups=, diversity_penalty=, min_length=, max_length=)` of transformers 4.46
returned, by group. Each result has a margin: the smallest difference in score that decided anything in its search. A
caller that wants the same result from every batch repeats narrow searches in double precision.

The model is behind `Batch`, so that a T5 and a causal model are searched by the same lines.

Legend: B sources, G groups, M beams of a group, K = G·M beams, R different rows among the B·K, C candidate tokens of a
beam, J = 2·M + 1 ranked continuations of a group, L tokens at most, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.ids.options import BeamOptions
from idgr.ids.own_words import OwnWords, outside
from idgr.ids.schedule import Limits

# Leaving finished sources in the batch costs their share of the work; taking them out copies the rest.
_LEAVE_BELOW = 0.75
_NOT_A_BEAM = -1e9


class Batch(Protocol):
    """Sources that a model has read and answers step by step, in one precision on one device.

    Attributes:
        size: B, when the search begins.
        start: the token that stands before every answer and counts as one of its tokens; -1 for none.
        eos: the one token that ends an answer.
        pad: what stands in answers that are done; -1 for a token that nothing else is.
    """

    @property
    def size(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def eos(self) -> int: ...
    @property
    def pad(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...

    def begin(self, n_beams: int, n_steps: int) -> None:
        """Make room for the steps of so many beams a source."""

    def step(self, tokens_R: Tensor, rows_BK: Tensor, first_R: Tensor, step: int) -> Tensor:
        """The logits [R, V] of what follows; beams with the same tokens of the same source are one row.

        Args:
            tokens_R: the newest token of each row, at step 0 `start`.
            rows_BK: the row of each beam.
            first_R: a beam of each row, counted through B and K.
            step: how many tokens of an answer have been chosen.
        """

    def keep(self, rows: Tensor) -> None:
        """Let all other sources leave."""

    def reorder(self, parent_BK: Tensor) -> None:
        """Make each beam the continuation of another one of its source."""


@dataclass(frozen=True)
class Found:
    """The result for one source.

    Attributes:
        tokens: the sequences, without start token and EOS: group by group, within a group best first.
        scores: their scores, the diversity penalties included, over length to the power of the length penalty.
        margin: the smallest difference between two scores whose order mattered.
    """

    tokens: list[list[int]]
    scores: list[float]
    margin: float


@dataclass
class _Hypotheses:
    """The best M sequences that each group of each source has finished; a score of minus infinity is a free place."""

    tokens_BGML: Tensor
    length_BGM: Tensor
    score_BGM: Tensor

    def add(self, g: int, adding_B: Tensor, tokens_BL: Tensor, length: int, score_B: Tensor) -> Tensor:
        """Put a sequence in the place of the worst one, where it beats it; return [B] by how much that was decided."""
        worst_B, place_B = self.score_BGM[:, g].min(-1)
        # A group of one beam is decided by its first finished sequence, and a free place takes anything.
        margin_B = torch.where(adding_B & (worst_B > -torch.inf), (score_B - worst_B).abs(), torch.inf)
        rows = torch.nonzero(adding_B & (score_B > worst_B)).squeeze(1)
        places = place_B[rows]
        self.tokens_BGML[rows, g, places] = tokens_BL[rows]
        self.length_BGM[rows, g, places] = length
        self.score_BGM[rows, g, places] = score_B[rows]
        return margin_B


@dataclass
class _State:
    """The search of the sources that are still in the batch."""

    which_B: Tensor  # the place of each source in the call
    penalty_B: Tensor
    min_tokens_B: Tensor
    max_tokens_B: Tensor
    tokens_BGML: Tensor
    score_BGM: Tensor
    done_BG: Tensor
    equal_BK: Tensor  # the first beam of the source that has the same tokens, or any for a beam that is done
    told_B: Tensor  # whether the result was taken down
    margin_B: Tensor
    finished: _Hypotheses

    def keep(self, rows: Tensor) -> None:
        """Let all other sources leave."""
        for name in ("which_B", "penalty_B", "min_tokens_B", "max_tokens_B"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("tokens_BGML", "score_BGM", "done_BG", "equal_BK", "told_B", "margin_B"):
            setattr(self, name, getattr(self, name)[rows])
        hypotheses = self.finished
        self.finished = _Hypotheses(
            hypotheses.tokens_BGML[rows], hypotheses.length_BGM[rows], hypotheses.score_BGM[rows]
        )


@torch.inference_mode()
def diverse_beam_search(
    batch: Batch, limits: Sequence[Limits], options: BeamOptions, words: Sequence[OwnWords] | None = None
) -> list[Found]:
    """Search from each source under its own limits.

    Args:
        batch: the sources as the model has read them; it is used up.
        limits: those of each source.
        words: those that the answers to each source are made of; None for any.

    Returns:
        A result for each source, in their order.
    """
    B, L = len(limits), max(limit.max_tokens for limit in limits) - 1
    G, M = options.groups, options.beams // options.groups
    score_BGM = torch.full((B, G, M), _NOT_A_BEAM, dtype=batch.dtype, device=batch.device)
    score_BGM[:, :, 0] = 0.0

    def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=batch.device)

    def no_tokens() -> Tensor:
        return torch.full((B, G, M, L), batch.pad, device=batch.device)

    state = _State(
        which_B=torch.arange(B, device=batch.device),
        penalty_B=column([limit.penalty for limit in limits], batch.dtype),
        min_tokens_B=column([limit.min_tokens for limit in limits], torch.long),
        max_tokens_B=column([limit.max_tokens for limit in limits], torch.long),
        tokens_BGML=no_tokens(),
        score_BGM=score_BGM,
        done_BG=torch.zeros((B, G), dtype=torch.bool, device=batch.device),
        equal_BK=torch.zeros((B, G * M), dtype=torch.long, device=batch.device),
        told_B=torch.zeros((B,), dtype=torch.bool, device=batch.device),
        margin_B=torch.full((B,), torch.inf, dtype=torch.double, device=batch.device),
        finished=_Hypotheses(
            no_tokens(),
            torch.zeros((B, G, M), dtype=torch.long, device=batch.device),
            torch.full((B, G, M), -torch.inf, dtype=torch.double, device=batch.device),
        ),
    )
    batch.begin(G * M, L)
    found: list[Found | None] = [None] * B
    for step in range(L):
        _advance(batch, state, step, options, words)
        ended_B = ~state.told_B & (state.done_BG.all(1) | (step + 2 >= state.max_tokens_B))
        if ended_B.any():
            for place, result in _collect(state, ended_B, step + 1, options.length_penalty):
                found[place] = result
            state.told_B |= ended_B
            staying = torch.nonzero(~state.told_B).squeeze(1)
            if not len(staying):
                break
            if len(staying) <= _LEAVE_BELOW * len(state.told_B):
                batch.keep(staying)
                state.keep(staying)
    return [result for result in found if result is not None]


def _advance(batch: Batch, state: _State, step: int, options: BeamOptions, words: Sequence[OwnWords] | None) -> None:
    """Add a token to every beam; the groups take turns, each penalized for the tokens of those before it (Eq. 5)."""
    B, G, M, _ = state.tokens_BGML.shape
    K = G * M
    newest_BK = (
        state.tokens_BGML[..., step - 1].reshape(B, K) if step else torch.full((B, K), batch.start).to(batch.device)
    )
    rows_BK, first_R = _rows(state)
    logits_RV = batch.step(newest_BK.flatten()[first_R], rows_BK, first_R, step)
    V = logits_RV.shape[1]
    # As in transformers, the start token, where there is one, is one of a sequence's tokens.
    rows_RL = F.pad(state.tokens_BGML[..., :step].reshape(B * K, step)[first_R], (1, 0), value=batch.start)
    if words is not None:
        which_R = state.which_B[first_R // K].tolist()
        answers = zip(which_R, rows_RL[:, 1:].tolist(), strict=True)
        allowed = [words[source].following(tokens) for source, tokens in answers]
        logits_RV = logits_RV + outside(allowed, V, batch.device, batch.dtype)
    n = options.no_repeat_ngram
    barred_RN = _repeats(rows_RL, n) if 0 < n <= step + 1 else rows_RL[:, :0]
    # A penalty only lowers scores, there are at most K - M penalized tokens, and EOS and repeats may be ruled out: the
    # best J are among these.
    n_ranked = min(2 * M + 1, V - 1)
    top_RC, token_RC = logits_RV.topk(min(n_ranked + K - M + 1 + barred_RN.shape[1], V))
    most_R1 = top_RC[:, :1].clone()
    total_R1 = most_R1 + logits_RV.sub_(most_R1).exp_().sum(-1, keepdim=True).log_()
    top_RC.masked_fill_((token_RC[:, :, None] == barred_RN[:, None]).any(-1), -torch.inf)
    top_BKC, token_BKC = (top_RC - total_R1)[rows_BK], token_RC[rows_BK]
    too_short_B11 = (step + 1 < state.min_tokens_B)[:, None, None]
    top_BKC.masked_fill_(too_short_B11 & (token_BKC == batch.eos), -torch.inf)
    C = top_BKC.shape[-1]

    chosen_BK = torch.empty((B, 0), dtype=torch.long, device=batch.device)
    parents = []
    for g in range(G):
        ours = slice(g * M, (g + 1) * M)
        token_BMC, logp_BMC = token_BKC[:, ours], top_BKC[:, ours]
        if g > 0:
            used_BMC = (token_BMC[..., None] == chosen_BK[:, None, None]).sum(-1)
            logp_BMC = logp_BMC - state.penalty_B[:, None, None] * used_BMC
        ranked_BJ, at_BJ = (logp_BMC + state.score_BGM[:, g, :, None]).flatten(1).topk(n_ranked)
        chosen_BM, parent_BM = _choose(
            batch, state, g, step, ranked_BJ, token_BMC.flatten(1).gather(1, at_BJ), at_BJ // C, options.length_penalty
        )
        chosen_BK = torch.cat([chosen_BK, chosen_BM], 1)
        parents.append(g * M + parent_BM)
    parent_BK = torch.cat(parents, 1)
    if M > 1:
        batch.reorder(parent_BK)
        state.tokens_BGML = _reordered(state.tokens_BGML, parent_BK)
    state.tokens_BGML[..., step] = chosen_BK.view(B, G, M)
    _note_equals(state, parent_BK, chosen_BK)


def _choose(
    batch: Batch,
    state: _State,
    g: int,
    step: int,
    ranked_BJ: Tensor,
    token_BJ: Tensor,
    parent_BJ: Tensor,
    length_penalty: float,
) -> tuple[Tensor, Tensor]:
    """The next tokens of group `g` and the beams that they continue, [B, M] each; EOS among the best M finishes one."""
    M = state.score_BGM.shape[2]
    going_B = ~state.done_BG[:, g]
    ends_BJ = token_BJ == batch.eos
    # Of the best 2·M continuations at most M end, one a beam, so M that go on are among them.
    goes_on_BM = ends_BJ[:, : 2 * M].to(torch.uint8).argsort(dim=1, stable=True)[:, :M]
    if ranked_BJ.shape[1] > 1:
        decided_BJ = torch.arange(ranked_BJ.shape[1] - 1, device=batch.device) <= goes_on_BM[:, -1:]
        gap_BJ = (ranked_BJ[:, :-1] - ranked_BJ[:, 1:]).double().masked_fill(~decided_BJ, torch.inf)
        _narrow(state, going_B, gap_BJ.min(1).values)

    normalizer = (step + 1) ** length_penalty
    finished_BJ = ranked_BJ.double() / normalizer
    for rank in range(M):
        ending_B = going_B & ends_BJ[:, rank]
        parent_B = parent_BJ[:, rank]
        tokens_BL = state.tokens_BGML[torch.arange(len(parent_B), device=batch.device), g, parent_B]
        _narrow(state, ending_B, state.finished.add(g, ending_B, tokens_BL, step, finished_BJ[:, rank]))

    # A group is done when its worst finished sequence is no worse than its best continuation (early_stopping=False).
    worst_B, best_B = state.finished.score_BGM[:, g].min(1).values, finished_BJ[:, 0]
    full_B = going_B & (worst_B > -torch.inf)
    itself_B = ends_BJ[:, 0] & (worst_B == best_B)  # the best continuation just ended and is that worst one
    _narrow(state, full_B & ~itself_B, (worst_B - best_B).abs())
    state.done_BG[:, g] |= full_B & (worst_B >= best_B)

    going_BM = (~state.done_BG[:, g])[:, None]
    state.score_BGM[:, g] = ranked_BJ.gather(1, goes_on_BM).where(going_BM, 0.0)
    # transformers fills a group that is done with padding, and counts that as a used token; so do we.
    chosen_BM = token_BJ.gather(1, goes_on_BM).where(going_B[:, None], batch.pad)
    return chosen_BM, parent_BJ.gather(1, goes_on_BM)


def _repeats(tokens_RL: Tensor, n: int) -> Tensor:
    """[R, N] the tokens that would end a run of `n` tokens that stands in the row already; -1 for none."""
    runs_RNn = tokens_RL.unfold(1, n, 1)
    newest_R1n = tokens_RL[:, None, tokens_RL.shape[1] - n + 1 :]
    return runs_RNn[..., -1].masked_fill((runs_RNn[..., :-1] != newest_R1n).any(-1), -1)


def _rows(state: _State) -> tuple[Tensor, Tensor]:
    """The row of each beam, [B, K], and a beam of each row, [R], counted through B and K."""
    B, K = state.equal_BK.shape
    beams_K = torch.arange(K, device=state.equal_BK.device)
    is_first_X = (state.equal_BK == beams_K).flatten()
    stands_for_BK = state.equal_BK + torch.arange(0, B * K, K, device=state.equal_BK.device)[:, None]
    return (is_first_X.cumsum(0) - 1)[stands_for_BK], is_first_X.nonzero().squeeze(1)


def _note_equals(state: _State, parent_BK: Tensor, chosen_BK: Tensor) -> None:
    """Find for each beam the first beam of its source with the same tokens; beams that are done go with any other."""
    M = state.tokens_BGML.shape[2]
    before_BK = state.equal_BK.gather(1, parent_BK)
    same_BKK = (before_BK[:, :, None] == before_BK[:, None]) & (chosen_BK[:, :, None] == chosen_BK[:, None])
    done_BK = state.done_BG.repeat_interleave(M, 1)
    same_BKK &= ~done_BK[:, None]
    same_BKK |= done_BK[:, :, None] & ~done_BK[:, None]
    state.equal_BK = same_BKK.to(torch.uint8).argmax(2)


def _reordered(tokens_BGML: Tensor, parent_BK: Tensor) -> Tensor:
    """Each beam's tokens are those of the beam that it came from; groups of one beam need no reordering."""
    B, G, M, L = tokens_BGML.shape
    rows_B1 = torch.arange(B, device=parent_BK.device)[:, None]
    return tokens_BGML.view(B, G * M, L)[rows_B1, parent_BK].view(B, G, M, L)


def _narrow(state: _State, where_B: Tensor, margin_B: Tensor) -> None:
    state.margin_B = torch.where(where_B, torch.minimum(state.margin_B, margin_B), state.margin_B)


def _collect(state: _State, ended_B: Tensor, length: int, length_penalty: float) -> list[tuple[int, Found]]:
    """The results of the sources that have ended, with open beams of `length` tokens counted as finished."""
    G, M = state.done_BG.shape[1], state.score_BGM.shape[2]
    open_BGM = state.score_BGM.double() / length**length_penalty
    for g in range(G):
        adding_B = ended_B & ~state.done_BG[:, g]
        for m in range(M):
            margin_B = state.finished.add(g, adding_B, state.tokens_BGML[:, g, m], length, open_BGM[:, g, m])
            _narrow(state, adding_B, margin_B)
    score_BGM, best_BGM = state.finished.score_BGM.sort(dim=-1, descending=True, stable=True)
    if M > 1:
        _narrow(state, ended_B, (score_BGM[..., :-1] - score_BGM[..., 1:]).flatten(1).min(1).values)
    rows = torch.nonzero(ended_B).squeeze(1)
    best_BGM = best_BGM[rows]
    length_BGM = state.finished.length_BGM[rows].gather(2, best_BGM)
    tokens_BGML = state.finished.tokens_BGML[rows].gather(
        2, best_BGM[..., None].expand(-1, -1, -1, state.tokens_BGML.shape[-1])
    )
    return [
        (place, Found([row[:n] for row, n in zip(tokens, lengths, strict=True)], scores, margin))
        for place, tokens, lengths, scores, margin in zip(
            state.which_B[rows].tolist(),
            tokens_BGML.flatten(1, 2).tolist(),
            length_BGM.flatten(1).tolist(),
            score_BGM[rows].flatten(1).tolist(),
            state.margin_B[rows].tolist(),
            strict=True,
        )
    ]
