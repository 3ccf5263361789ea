"""Beam search over the prefix tree of item IDs.

Legend: B users, K beams, C children of a node, D width of the model, I items, E excluded items of a user.

The beams of a user are at one depth of the tree at a time. Its rules are those of `transformers` 5 (`generate` with
`num_beams`, `prefix_allowed_tokens_fn`, `do_sample=False` and `early_stopping="never"`): of the best 2 K continuations,
those that end an ID and are among the best K finish, and the best K of the others go on. Nothing that could still enter
the result is ever stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from idgr.decoding.closing import items_below
from idgr.decoding.decoder import Decoder
from idgr.decoding.expansion import NEVER, Expansion
from idgr.decoding.kv_cache import Told
from idgr.decoding.options import SearchOptions as SearchOptions
from idgr.decoding.tree import Tree
from idgr.decoding.trie import Trie
from idgr.errors import IdgrError

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

T = TypeVar("T")

# So many attention weights of a layer may be asked for in a step; with more, fewer users are searched at a time.
_MOST_WEIGHTS = 1 << 28


@dataclass(frozen=True)
class Ranking:
    """Items by index, best first, with their scores; shorter than k where there are fewer valid items.

    `expansions` is the number of prefixes that an exact search had to look beyond; None from beam search.
    """

    items: list[int]
    scores: list[float]
    expansions: int | None = None


def beam_search(
    model: T5ForConditionalGeneration,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    options: SearchOptions | None = None,
    *,
    excluded: Sequence[Collection[int]] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    batch_size: int = 32,
    advance: Callable[[int], object] | None = None,
) -> list[Ranking]:
    """The best items of each user, by the score of their IDs given the user's prompt.

    Args:
        model: a T5; its device and precision are used, and its training mode is left as it was.
        trie: the IDs under the model's tokenizer.
        prompts: the encoder's tokens of each user, ended by EOS.
        options: see `SearchOptions`.
        excluded: for each user, items that must not be returned.
        allowed: [I] which items may be returned at all.
        batch_size: users at a time; the result does not depend on it but for rounding.
        advance: told the number of users of each batch that is done.

    Returns:
        A ranking for each prompt, in their order. Equal scores are in the order of the IDs' tokens.

    Raises:
        IdgrError: the tree holds tokens that the model does not know, or the model's scores are not finite numbers.
        torch.OutOfMemoryError: the device has not the memory for a single user.
    """
    search = BeamSearch(model, trie, options, allowed=allowed)
    return search.search(prompts, excluded, batch_size=batch_size, advance=advance)


class BeamSearch:
    """A model and a tree made ready once for many searches; see `beam_search` for the arguments.

    `evaluated` counts the tokens that went through the decoder.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        trie: Trie,
        options: SearchOptions | None = None,
        *,
        allowed: npt.NDArray[np.bool_] | None = None,
        told: Told | None = None,
    ) -> None:
        check_tokens(model, trie)
        self.model = model
        self.options = options or SearchOptions()
        self.evaluated = 0
        with torch.inference_mode():
            self.decoder = Decoder(model, trie.depth, trie.eos, told, compile=self.options.compile)
            self.tree = Tree(trie, self.decoder.start, allowed, model.device)

    def search(
        self,
        prompts: Sequence[Sequence[int]],
        excluded: Sequence[Collection[int]] | None = None,
        *,
        batch_size: int = 32,
        advance: Callable[[int], object] | None = None,
    ) -> list[Ranking]:
        """A ranking for each prompt, in their order; see `beam_search`."""
        return self.in_batches(self._batch, prompts, excluded, batch_size=batch_size, advance=advance)

    def in_batches(
        self,
        answer: Callable[[Sequence[Sequence[int]], torch.Tensor | None], list[T]],
        prompts: Sequence[Sequence[int]],
        excluded: Sequence[Collection[int]] | None,
        *,
        batch_size: int,
        advance: Callable[[int], object] | None,
    ) -> list[T]:
        """What `answer` gives for prompts and the items barred (`Tree.barred`), asked of a batch at a time."""
        results: list[T | None] = [None] * len(prompts)
        by_length = sorted(range(len(prompts)), key=lambda user: -len(prompts[user]))
        batch_size = min(batch_size, self._most_users())
        first = 0
        with evaluating(self.model):
            while first < len(prompts):
                users = by_length[first : first + batch_size]
                barred = self.tree.barred([excluded[user] if excluded is not None else () for user in users])
                found = _if_there_is_room(answer, [prompts[user] for user in users], barred)
                if found is None:
                    torch.cuda.empty_cache()  # what the batch held has no names any more
                    batch_size = len(users) // 2
                    continue
                for user, one in zip(users, found, strict=True):
                    results[user] = one
                first += len(users)
                if advance is not None:
                    advance(len(users))
        return [one for one in results if one is not None]

    def _most_users(self) -> int:
        """So many users at a time at most; far more than any batch but where there are hundreds of beams."""
        K = self.options.beams
        return max(1, _MOST_WEIGHTS // (K * K * self.tree.depth * self.decoder.n_heads))

    def _batch(self, prompts: Sequence[Sequence[int]], barred_BE: torch.Tensor | None) -> list[Ranking]:
        expansion, done_rank, done_score = self.finished(prompts, barred_BE)
        self.evaluated += expansion.evaluated
        expansion.check()
        items = self.tree.item[done_rank.cpu().numpy()].tolist()
        found = zip(items, done_score.tolist(), strict=True)
        return [ranking(items_k, scores_k) for items_k, scores_k in found]

    def finished(
        self, prompts: Sequence[Sequence[int]], barred_BE: torch.Tensor | None
    ) -> tuple[Expansion, torch.Tensor, torch.Tensor]:
        """What has been evaluated for some users, and the items [B, k] that are found, by rank, best first, with their
        scores; minus infinity where there is none."""
        options, tree, K = self.options, self.tree, self.options.beams
        expansion = Expansion(self.decoder, tree, prompts, full=options.normalize == "full")
        prefixes = expansion.root(K)
        B, device = len(prompts), self.decoder.device
        place_K = torch.arange(K, device=device)
        score_BK = torch.zeros(B, K, device=device).masked_fill(~prefixes.live, NEVER)
        done_score = torch.full((B, options.k), NEVER, device=device)
        done_rank = torch.zeros(B, options.k, dtype=torch.long, device=device)
        for depth in range(tree.depth):
            # With no more items below its prefixes than beams, a user's prefixes compete no longer and wait where they
            # are for the end, when all that is below them is scored at once.
            settled_B1 = (tree.n_items(prefixes.node) * prefixes.live).sum(1, keepdim=True) <= K
            children = expansion.children(prefixes, prefixes.live & ~settled_B1, least=2 * K)
            if children.n == 0:
                break
            total_BP = score_BK.gather(1, children.parent) + children.log_prob
            best, score = best_alive(tree, total_BP, children.node, barred_BE, 2 * K)
            node = children.node.gather(1, best)
            live = score > NEVER
            ends = live & tree.is_leaf(node)
            if depth + 1 >= tree.least_depth:
                final = score[:, :K].masked_fill(~ends[:, :K], NEVER)
                done_score, done_rank = self._finish(done_score, done_rank, final, node[:, :K], depth + 1)

            stops = ends | ~live
            going = stops.to(torch.int8).sort(dim=1, stable=True).indices[:, :K]
            moved = score.gather(1, going).masked_fill(stops.gather(1, going), NEVER)
            # A prefix whose best possible end is below the worst of k results cannot change them.
            longest = tree.depth if options.length_penalty > 0 else depth + 1
            hopeless = moved / longest**options.length_penalty < done_score[:, -1:]
            score_BK = torch.where(settled_B1, score_BK, moved.masked_fill(hopeless, NEVER))
            live_BK = score_BK > NEVER
            node_BK = torch.where(settled_B1, prefixes.node, node.gather(1, going)) * live_BK
            parent_BK = torch.where(settled_B1, place_K, children.parent.gather(1, best).gather(1, going))
            prefixes = expansion.follow(prefixes, parent_BK, node_BK, live_BK, depth + 1)

        node, score, length = items_below(expansion, prefixes, score_BK, barred_BE)
        done_score, done_rank = self._finish(done_score, done_rank, score, node, length)
        return expansion, done_rank, done_score

    def _finish(
        self,
        done_score: torch.Tensor,
        done_rank: torch.Tensor,
        score_BN: torch.Tensor,
        leaf_BN: torch.Tensor,
        length: torch.Tensor | int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best k of those done so far and of some more leaves, whose IDs have so many tokens."""
        pool_score = torch.cat([done_score, score_BN / length**self.options.length_penalty], 1)
        pool_rank = torch.cat([done_rank, self.tree.rank_of(leaf_BN)], 1)
        kept = best_places(pool_score, pool_rank, self.options.k)
        return pool_score.gather(1, kept), pool_rank.gather(1, kept)


def _if_there_is_room(
    answer: Callable[[Sequence[Sequence[int]], torch.Tensor | None], list[T]],
    prompts: Sequence[Sequence[int]],
    barred_BE: torch.Tensor | None,
) -> list[T] | None:
    """None where the device has not the memory for several users. The fault and its traceback, which hold on to all
    that the batch has made, are gone by then."""
    try:
        return answer(prompts, barred_BE)
    except torch.OutOfMemoryError:
        if len(prompts) == 1:
            raise
        return None


def ranking(items: list[int], scores: list[float], expansions: int | None = None) -> Ranking:
    """The ranking of items that are sorted already; those that score minus infinity are none."""
    n = len(scores) - scores.count(NEVER)
    return Ranking(items[:n], scores[:n], expansions)


def check_tokens(model: T5ForConditionalGeneration, trie: Trie) -> None:
    """Raise `IdgrError` where the tree holds tokens that the model does not know."""
    if int(trie.token.max()) >= model.config.vocab_size:
        raise IdgrError("the IDs hold tokens that the model does not have", "give the tokenizer that the model has")


@contextmanager
def evaluating(model: T5ForConditionalGeneration) -> Iterator[None]:
    """Without gradients and dropout; the model's training mode is put back at the end."""
    was_training = model.training
    if was_training:  # else neither is any part of it; to go through all parts takes a millisecond
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()


def best_alive(
    tree: Tree, score_BP: torch.Tensor, node_BP: torch.Tensor, barred_BE: torch.Tensor | None, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of the n best of some nodes at one depth that lead to items that may be returned, and their scores,
    best first; minus infinity where there are fewer."""
    E = 0
    if tree.n_allowed is not None:
        alive = tree.alive(node_BP, barred_BE)
        score_BP = score_BP if alive is None else score_BP.masked_fill(~alive, NEVER)
    elif barred_BE is not None:
        # A node that has only barred items has one at least, and nodes at one depth share none: so many more will do.
        E = barred_BE.shape[1]
    best = best_places(score_BP, node_BP, n + E)
    score = score_BP.gather(1, best)
    alive = tree.alive(node_BP.gather(1, best), barred_BE) if E else None
    if alive is not None:
        order = alive.sort(dim=1, descending=True, stable=True).indices[:, :n]
        best, score = best.gather(1, order), score.masked_fill(~alive, NEVER).gather(1, order)
    return best, score


def best_places(score_BN: torch.Tensor, order_BN: torch.Tensor, n: int) -> torch.Tensor:
    """The places of the n best scores, best first; equal scores in ascending `order`, so that ties are settled."""
    bits = (score_BN.float() + 0.0).contiguous().view(torch.int32)  # of the two zeros only the positive one
    # IEEE floats as integers of the same order: those of negative numbers count down.
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = (rising.long() << 32) - order_BN
    return key.topk(min(n, key.shape[1]), dim=1).indices
