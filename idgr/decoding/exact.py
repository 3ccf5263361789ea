"""The exact best items: best-first search over the prefix tree, with proof.

Legend: K nodes expanded at a time, F open nodes, C slots of the decoder's memory, P children.

Log-probabilities only fall along a path, so a node's score bounds that of every item below it. The search ends when no
open node's bound reaches the worst of the k items found; no other item can then score higher. It is the oracle against
which beams are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from idgr.decoding.beam import Ranking, best_places, check_tokens, evaluating, ranking
from idgr.decoding.decoder import Decoder
from idgr.decoding.expansion import NEVER, Expansion, Prefixes
from idgr.decoding.kv_cache import Told
from idgr.decoding.options import SearchOptions
from idgr.decoding.tree import Tree
from idgr.decoding.trie import Trie

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

# The best so many open nodes are expanded in one pass.
_NODES_AT_A_TIME = 64


@dataclass
class _Open:
    """Nodes that have been scored and not been expanded, [F] each.

    Attributes:
        score: the sum of the path's log-probabilities.
        node, depth: where.
        begin: the first node of the chain that ends at the node and has not been evaluated.
        begin_depth: its depth.
        above: the slot of the last token before it; -1 at the root.
    """

    score: torch.Tensor
    node: torch.Tensor
    depth: torch.Tensor
    begin: torch.Tensor
    begin_depth: torch.Tensor
    above: torch.Tensor

    def take(self, places: torch.Tensor) -> _Open:
        return _Open(*(getattr(self, field.name)[places] for field in fields(self)))

    def join(self, other: _Open) -> _Open:
        return _Open(*(torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)))


class ExactSearch:
    """A model and a tree made ready once for many exact searches; the arguments are those of beam search.

    `options.beams` has no part in it. `expanded` counts the nodes that were expanded.
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
        self.expanded = 0
        with torch.inference_mode():
            self.decoder = Decoder(model, trie.depth, trie.eos, told, compile=self.options.compile)
            self.tree = Tree(trie, self.decoder.start, allowed, model.device)

    def search(
        self,
        prompts: Sequence[Sequence[int]],
        excluded: Sequence[Collection[int]] | None = None,
        *,
        batch_size: int = 1,
        advance: Callable[[int], object] | None = None,
    ) -> list[Ranking]:
        """A ranking for each prompt, in their order, with the number of nodes expanded.

        Users are searched one after the other, whatever `batch_size`, since each needs passes of its own; `advance` is
        told of each.
        """
        found = []
        with evaluating(self.model):
            for user, prompt in enumerate(prompts):
                found.append(self._user(prompt, self.tree.barred([excluded[user] if excluded is not None else ()])))
                if advance is not None:
                    advance(1)
        return found

    def _user(self, prompt: Sequence[int], barred_BE: torch.Tensor | None) -> Ranking:
        k, tree = self.options.k, self.tree
        expansion = Expansion(self.decoder, tree, [prompt], full=self.options.normalize == "full")
        device = self.decoder.device
        zero = torch.zeros(1, dtype=torch.long, device=device)
        opened = _Open(torch.zeros(1, device=device), zero, zero, zero, zero, zero - 1)
        done_score = torch.full((k,), NEVER, device=device)
        done_node = torch.zeros(k, dtype=torch.long, device=device)
        past = expansion.cache
        slot_above = zero[:0]
        expansions = 0
        while True:
            bound = self._bound(opened.score, opened.depth).sort(descending=True, stable=True)
            n = int(((bound.values >= done_score[-1]) & (bound.values > NEVER)).sum())
            if not n:
                break
            at_root = not expansions
            node = opened.take(bound.indices[: min(n, _NODES_AT_A_TIME)])
            opened = opened.take(bound.indices[len(node.node) : n])
            expansions += len(node.node)

            # Of all that has been evaluated a pass needs only what lies above its own nodes.
            slots, sees = _ancestors(node.above, slot_above, tree.depth)
            expansion.cache = self.decoder.with_slots(past, slots)
            expansion.normaliser = expansion.normaliser.new_zeros(1, len(slots))
            prefixes = Prefixes(
                node=node.node[None],
                live=torch.ones(1, len(node.node), dtype=torch.bool, device=device),
                begin=node.begin[None],
                begin_depth=node.begin_depth[None],
                slot=torch.full((1, len(node.node)), -1, device=device),
                sees=sees[None],
                at_root=at_root,
            )
            children = expansion.children(prefixes, prefixes.live)
            new_slot = prefixes.slot[0] + (past.used - len(slots))
            if expansion.cache.used > len(slots):
                slot_above = torch.cat([slot_above, _blocks_above(prefixes, node.above, len(slots), past.used)])
                self.decoder.append(past, expansion.cache, len(slots))

            parent, child = children.parent[0], children.node[0]
            score = node.score[parent] + children.log_prob[0]
            depth = node.depth[parent] + 1
            alive = tree.alive(children.node, barred_BE)
            reached = self._bound(score, depth) >= done_score[-1]
            reached &= (score > NEVER) if alive is None else (score > NEVER) & alive[0]
            leaf = tree.is_leaf(child)
            final = (score / depth**self.options.length_penalty).masked_fill(~(reached & leaf), NEVER)
            pool_score, pool_node = torch.cat([done_score, final]), torch.cat([done_node, child])
            kept = best_places(pool_score[None], tree.rank_of(pool_node)[None], k)[0]
            done_score, done_node = pool_score[kept], pool_node[kept]

            waiting = prefixes.slot[0][parent] < 0  # in a chain whose tokens cost nothing
            begin = torch.where(waiting, node.begin[parent], child)
            begin_depth = torch.where(waiting, node.begin_depth[parent], depth)
            above = torch.where(waiting, node.above[parent], new_slot[parent])
            # What is not open gets a score that is left out when the next nodes are chosen: that counts them anyway.
            opened = opened.join(
                _Open(score.masked_fill(~reached | leaf, NEVER), child, depth, begin, begin_depth, above)
            )
        expansion.check()
        self.expanded += expansions
        items = tree.item[tree.rank_of(done_node).cpu().numpy()].tolist()
        return ranking(items, done_score.tolist(), expansions)

    def _bound(self, score: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """The best score that an item below a node can have."""
        penalty = self.options.length_penalty
        return score / (self.tree.depth**penalty if penalty > 0 else depth.clamp(min=1) ** penalty)


def _ancestors(above_K: torch.Tensor, slot_above_C: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The slots on the ways from the root down to the slots `above_K`, ascending, and [K, slots] which are on which.

    Args:
        slot_above_C: the slot above each slot; -1 above the first of a way.
        depth: no way is longer.
    """
    above_C = F.pad(slot_above_C, (0, 1), value=-1)  # what -1 asks for
    ways = [above_K]
    for _ in range(depth - 1):
        ways.append(above_C[ways[-1]])
    way_KT = torch.stack(ways, dim=1)
    # A -1 before them, so that the first of the slots is none, and not just perhaps.
    slots, place = torch.unique(F.pad(way_KT.flatten(), (1, 0), value=-1), return_inverse=True)
    sees = torch.zeros(len(above_K), len(slots), dtype=torch.bool, device=above_K.device)
    sees.scatter_(1, place[1:].view_as(way_KT), True)
    return slots[1:], sees[:, 1:]


def _blocks_above(prefixes: Prefixes, above_K: torch.Tensor, given: int, used: int) -> torch.Tensor:
    """For each slot that an expansion filled behind the `given` ones, the slot of the token before it.

    Args:
        above_K: the slots that the blocks of the prefixes hang from.
        used: the number that the first filled slot gets.
    """
    own_KQ = prefixes.sees[0][:, given:]
    slot_Q = torch.arange(used, used + own_KQ.shape[1], device=above_K.device)
    prefix_Q = own_KQ.to(torch.int8).argmax(0)
    first_Q = own_KQ.to(torch.int8).argmax(1)[prefix_Q] + used == slot_Q
    return torch.where(first_Q, above_K[prefix_Q], slot_Q - 1)
