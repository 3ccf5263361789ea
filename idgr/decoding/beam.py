"""Beam search over the prefix tree of item IDs.

Legend: B users, K beams, C children of a node, D width of the model, I items, E excluded items of a user.

The beams of a user are at one depth of the tree at a time. Its rules are those of `transformers` 5 (`generate` with
`num_beams`, `prefix_allowed_tokens_fn`, `do_sample=False` and `early_stopping="never"`): of the best 2 K continuations,
those that end an ID and are among the best K finish, and the best K of the others go on. Nothing that could still enter
the result is ever stopped. Knows nothing of item keys, prompts' text or files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from idgr.decoding.decoder import Decoder, Memory
from idgr.decoding.trie import Trie
from idgr.errors import IdgrError, UsageError

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

_DEAD = float("-inf")


@dataclass(frozen=True)
class SearchOptions:
    """How to search and what to return.

    Attributes:
        k: how many items to return.
        beams: how many prefixes to follow, at least k.
        length_penalty: p in score = sum of log-probabilities / (number of tokens with EOS) ** p.
        normalize: "full" for the softmax over the whole vocabulary (Eq. 2), "trie" for one over the valid children.

    Raises:
        UsageError: a number or name is out of range, or k is above beams.
    """

    k: int = 10
    beams: int = 20
    length_penalty: float = 0.0
    normalize: str = "full"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"-k {self.k} is below 1", "ask for at least one item")
        if self.beams < self.k:
            raise UsageError(f"--beams {self.beams} is below -k {self.k}", f"give --beams {self.k} or more")
        if self.normalize not in ("full", "trie"):
            raise UsageError(f"--normalize {self.normalize!r} is unknown", "give full or trie")


@dataclass(frozen=True)
class Ranking:
    """Items by index, best first, with their scores; shorter than k where there are fewer valid items."""

    items: list[int]
    scores: list[float]


def beam_search(
    model: T5ForConditionalGeneration,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    options: SearchOptions | None = None,
    *,
    excluded: Sequence[Collection[int]] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    batch_size: int = 32,
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

    Returns:
        A ranking for each prompt, in their order. Equal scores are in the order of the IDs' tokens.

    Raises:
        IdgrError: the tree holds tokens that the model does not know.
    """
    options = options or SearchOptions()
    if int(trie.token.max()) >= model.config.vocab_size:
        raise IdgrError("the IDs hold tokens that the model does not have", "give the tokenizer that the model has")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            tree = _Tree(trie, allowed, model.device)
            decoder = Decoder(model, trie.depth)
            results: list[Ranking | None] = [None] * len(prompts)
            by_length = sorted(range(len(prompts)), key=lambda user: -len(prompts[user]))
            for first in range(0, len(prompts), batch_size):
                users = by_length[first : first + batch_size]
                barred = tree.barred([excluded[user] if excluded is not None else () for user in users])
                found = _search(decoder, tree, [prompts[user] for user in users], barred, options)
                for user, ranking in zip(users, found, strict=True):
                    results[user] = ranking
    finally:
        model.train(was_training)
    return [ranking for ranking in results if ranking is not None]


class _Tree:
    """The tree on the model's device, and the subset of the items that may be returned."""

    def __init__(self, trie: Trie, allowed: npt.NDArray[np.bool_] | None, device: torch.device) -> None:
        self.token = torch.from_numpy(trie.token).to(device)
        self.first_child = torch.from_numpy(trie.first_child).to(device)
        self.item_lo = torch.from_numpy(trie.item_lo).to(device)
        self.item_hi = torch.from_numpy(trie.item_hi).to(device)
        self.item = trie.item
        self.depth = trie.depth
        self.rank = np.empty(len(trie.item), dtype=np.int64)
        self.rank[trie.item] = np.arange(len(trie.item))
        self.allowed = None if allowed is None else allowed[trie.item]
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

    def alive(self, node_BN: torch.Tensor, barred_BE: torch.Tensor | None) -> torch.Tensor | None:
        """[B, N] whether any item below a node may be returned to the user; None if all may."""
        if self.n_allowed is None and barred_BE is None:
            return None
        lo, hi = self.item_lo[node_BN].long(), self.item_hi[node_BN].long()
        left = hi - lo if self.n_allowed is None else self.n_allowed[hi] - self.n_allowed[lo]
        if barred_BE is not None:
            left = left - (torch.searchsorted(barred_BE, hi) - torch.searchsorted(barred_BE, lo))
        return left > 0


def _search(
    decoder: Decoder,
    tree: _Tree,
    prompts: Sequence[Sequence[int]],
    barred_BE: torch.Tensor | None,
    options: SearchOptions,
) -> list[Ranking]:
    memory: Memory = decoder.encode(prompts)
    device, B = decoder.device, len(prompts)
    node_BK = torch.zeros(B, 1, dtype=torch.long, device=device)
    score_BK = torch.zeros(B, 1, device=device)
    token_BK = torch.full((B, 1), decoder.start, dtype=torch.long, device=device)
    sees_BKC = torch.ones(B, 1, 0, dtype=torch.bool, device=device)
    done_score = torch.full((B, options.k), _DEAD, device=device)
    done_node = torch.zeros(B, options.k, dtype=torch.long, device=device)

    for depth in range(tree.depth):
        K = node_BK.shape[1]
        own = torch.eye(K, dtype=torch.bool, device=device).expand(B, K, K)
        sees_BKC = torch.cat([sees_BKC, own], dim=-1)
        hidden_BKD = decoder.extend(memory, token_BK, torch.full_like(token_BK, depth), sees_BKC)

        first = tree.first_child[node_BK].long()
        n_children = tree.first_child[node_BK + 1].long() - first
        place_C = torch.arange(int(n_children.max()), device=device)
        exists = place_C < n_children[..., None]
        child_BKC = torch.where(exists, first[..., None] + place_C, 0)
        token_BKC = tree.token[child_BKC].long().clamp_(min=0)
        logit_BKV = (hidden_BKD @ decoder.head_VD.T).float()
        logit_BKC = logit_BKV.gather(-1, token_BKC).masked_fill(~exists, _DEAD)
        of = logit_BKC if options.normalize == "trie" else logit_BKV
        total_BKC = score_BK[..., None] + logit_BKC - of.logsumexp(-1, keepdim=True)
        total_BN = total_BKC.flatten(1).masked_fill(~exists.flatten(1), _DEAD)
        node_BN = child_BKC.flatten(1)
        alive = tree.alive(node_BN, barred_BE)
        if alive is not None:
            total_BN = total_BN.masked_fill(~alive, _DEAD)

        best = _best(total_BN, node_BN, 2 * options.beams)
        score, node = total_BN.gather(1, best), node_BN.gather(1, best)
        live = score > _DEAD
        ends = live & (tree.first_child[node] == tree.first_child[node + 1])

        finishing = ends.clone()
        finishing[:, options.beams :] = False
        normal = (score / (depth + 1) ** options.length_penalty).masked_fill(~finishing, _DEAD)
        pool_score, pool_node = torch.cat([done_score, normal], 1), torch.cat([done_node, node], 1)
        kept = _best(pool_score, tree.item_lo[pool_node].long(), options.k)
        done_score, done_node = pool_score.gather(1, kept), pool_node.gather(1, kept)

        going = (ends | ~live).to(torch.int8).sort(dim=1, stable=True).indices[:, : options.beams]
        score_BK = score.gather(1, going).masked_fill((ends | ~live).gather(1, going), _DEAD)
        # A beam whose best possible end is below the worst of k results cannot change them.
        longest = tree.depth if options.length_penalty > 0 else depth + 1
        hopeless = score_BK / longest**options.length_penalty < done_score[:, -1:]
        score_BK = score_BK.masked_fill(hopeless, _DEAD)
        if not bool((score_BK > _DEAD).any()):
            break
        node_BK = node.gather(1, going).masked_fill(score_BK == _DEAD, 0)
        parent = (best // len(place_C)).gather(1, going)
        sees_BKC = sees_BKC.gather(1, parent[..., None].expand(-1, -1, sees_BKC.shape[-1]))
        token_BK = tree.token[node_BK].long().clamp_(min=0)

    items = tree.item[tree.item_lo[done_node].cpu().numpy()].tolist()
    return [
        Ranking(
            [item for item, score in zip(items_K, scores_K, strict=True) if score > _DEAD],
            [score for score in scores_K if score > _DEAD],
        )
        for items_K, scores_K in zip(items, done_score.tolist(), strict=True)
    ]


def _best(score_BN: torch.Tensor, order_BN: torch.Tensor, n: int) -> torch.Tensor:
    """The places of the n best scores, best first; equal scores in ascending `order`, so that ties are settled."""
    bits = score_BN.float().contiguous().view(torch.int32).long()
    # IEEE floats as integers of the same order: those of negative numbers count down.
    rising = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    key = (rising << 32) - order_BN
    return key.topk(min(n, key.shape[1]), dim=1).indices
