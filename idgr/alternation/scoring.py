"""What another ID of an item would be worth to a frozen recommender, by contexts drawn from training.

An item stands in contexts in two ways: it is the target, and a candidate's cost is that of reaching it; or it is shown
in the history, and what counts is the cost of the item that followed. Either is the cost in the whole tree with the
candidate in the item's place, that of all other items as they are (`idgr.alternation.renamed_tree`). The recommender is
a T5 or a Llama (`idgr.alternation.states`).

Which contexts are drawn is decided by the user's key and the place in the sequence, so neither the order of the lines
nor that of the items matters. Batches are made of the contexts alone, and mean gains are rounded: the last bits of a
product of matrices depend on its shape.

Legend: N instances, P pairs of an item and an instance, R rows, T tokens of an answer, D width, K candidates.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from idgr.alternation.renamed_tree import RenamedTree, choice_costs
from idgr.alternation.states import Row, causal_states, t5_states
from idgr.decoding.trie import build_trie
from idgr.models.device import to_device
from idgr.models.padding import pad_labels
from idgr.prompts.draws import draws
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.objectives import ranges, wanted_logits
from idgr.recommender.training import Instances

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

ROWS = 128  # answers in a batch
DIGITS = 4  # of the mean gain of a context, in nats


@dataclass(frozen=True)
class Contexts:
    """The contexts of one item.

    Attributes:
        target: instances whose target it is, some of `n_target`.
        history: instances that show it, some of `n_history`.
    """

    target: list[int]
    n_target: int
    history: list[int]
    n_history: int


def instance_marks(instances: Instances, users: Sequence[str], sequences: Sequence[Sequence[int]], seed: int) -> Words:
    """[N] random bits for each instance, by the key of its user and its place in the user's sequence."""
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    starts = np.repeat(np.cumsum(lengths) - lengths, np.maximum(lengths - 1, 0))
    of_user = np.array([int.from_bytes(hashlib.sha256(user.encode()).digest()[:6], "big") for user in users], np.int64)
    mixed = np.repeat(of_user, np.maximum(lengths - 1, 0)) * 8191 + (instances.end - starts)
    return draws(seed, 0, mixed)


def draw_contexts(instances: Instances, marks_N: Words, n_items: int, most: int) -> list[Contexts]:
    """At most `most` contexts of each kind for each item: those with the lowest marks.

    One in which the item is asked for and shown too counts as its target alone, since its cost tells of both.
    """
    targets_N = instances.items[instances.end]
    target = _lowest(targets_N, np.arange(len(targets_N)), marks_N, n_items, most)
    place_P, instance_P = ranges(instances.begin, instances.end - instances.begin)
    item_P = instances.items[place_P]
    other_P = item_P != targets_N[instance_P]
    pair_P = np.unique(item_P[other_P] * len(instances.end) + instance_P[other_P])
    history = _lowest(pair_P // len(instances.end), pair_P % len(instances.end), marks_N, n_items, most)
    return [Contexts(*one, *other) for one, other in zip(target, history, strict=True)]


def _lowest(item_P: Ints, instance_P: Ints, marks_N: Words, n_items: int, most: int) -> list[tuple[list[int], int]]:
    """For each item the instances with the lowest marks, and how many it has."""
    order = np.lexsort([marks_N[instance_P], item_P])
    counts = np.bincount(item_P, minlength=n_items)
    begins = (np.cumsum(counts) - counts).tolist()
    return [
        (instance_P[order[begin : begin + min(count, most)]].tolist(), count)
        for begin, count in zip(begins, counts.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Context:
    """An instance in which an item has each of some names, the first of which is its own.

    Attributes:
        shown: whether it is asked for as shown, not as the target.
    """

    item: int
    instance: int
    names: list[Sequence[int]]
    shown: bool


class Scorer:
    """Scores candidates for the items' names.

    Args:
        model: the frozen recommender, on its device.
        renderer: for its tokenizer, with the IDs of all items.
        instances: of its training.
        marks_N: see `instance_marks`; they choose the templates too.
        objective: the recommender's own, "full" or "trie".
        rows: answers in a batch.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration | LlamaForCausalLM,
        renderer: PromptRenderer | HistoryRenderer,
        instances: Instances,
        marks_N: Words,
        objective: str,
        rows: int = ROWS,
    ) -> None:
        self.model, self.instances, self.rows = model, instances, rows
        self.trie = build_trie(renderer.id_tokens, renderer.end)
        self.tree = RenamedTree(self.trie)
        self.is_trie, self.is_causal = objective == "trie", isinstance(renderer, HistoryRenderer)
        network: Any = model
        self._states = partial(causal_states, network, renderer.end) if self.is_causal else partial(t5_states, network)
        self.n_items = len(renderer.id_tokens)
        self.templates_N = (marks_N % np.uint64(renderer.n_templates)).astype(np.int64)
        # The names that are tried stand behind those of the items, under numbers of their own.
        self.renderer = copy.copy(renderer)
        self.renderer.id_tokens = list(renderer.id_tokens)

    def gains(
        self,
        candidates: Sequence[Sequence[Sequence[int]]],
        contexts: Sequence[Contexts],
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[Floats]:
        """[K] for each item: by how many nats an epoch over the instances would cost less with each candidate.

        An estimate: the mean over the drawn contexts of a kind, times how many there are.

        Args:
            candidates: token rows for each item, none of them an item's name.
            advance: is told of contexts that are done.
        """
        asked = self.asked(candidates, contexts)
        found = self.costs(asked, advance)
        gains = [np.zeros(len(names)) for names in candidates]
        sums: dict[tuple[int, bool], Floats] = {}
        for one, cost in zip(asked, found, strict=True):
            saved = cost[0] - cost[1:]
            sums[one.item, one.shown] = sums.get((one.item, one.shown), np.zeros(len(saved))) + saved
        for (item, shown), total in sums.items():
            mine = contexts[item]
            drawn, all_of_them = (mine.history, mine.n_history) if shown else (mine.target, mine.n_target)
            gains[item] = np.round(gains[item] + np.round(total / len(drawn), DIGITS) * all_of_them, DIGITS)
        return [gain + 0.0 for gain in gains]  # no zero is negative

    def asked(self, candidates: Sequence[Sequence[Sequence[int]]], contexts: Sequence[Contexts]) -> list[Context]:
        """The contexts of the items that have candidates, with the items' own names before these."""
        asked: list[Context] = []
        for item, (names, mine) in enumerate(zip(candidates, contexts, strict=True)):
            if names:
                tried = [self.renderer.id_tokens[item], *names]
                asked += [Context(item, instance, tried, shown=False) for instance in mine.target]
                asked += [Context(item, instance, tried, shown=True) for instance in mine.history]
        return asked

    def costs(self, asked: Sequence[Context], advance: Callable[[int], object] = lambda _: None) -> list[Floats]:
        """For each context the cost of its target with each of the item's names."""
        found: list[Floats] = [np.zeros(len(one.names)) for one in asked]
        batch: list[int] = []
        n_rows = 0
        for unit in self._units(asked):
            n_more = max(len(asked[place].names) for place in unit)
            if batch and n_rows + n_more > self.rows:
                self._fill(found, asked, batch)
                advance(len(batch))
                batch, n_rows = [], 0
            batch += unit
            n_rows += n_more
        if batch:
            self._fill(found, asked, batch)
            advance(len(batch))
        return found

    def _units(self, asked: Sequence[Context]) -> list[list[int]]:
        """The places of contexts that are read together, such as have like sizes one after the other.

        A T5 reads each context by itself. A Llama that reads a sequence with a name in an item's place has on the way
        what it says of all that follows there.
        """
        instances = self.instances
        units: dict[tuple[int, ...], list[int]] = {}
        sizes: dict[tuple[int, ...], tuple[int, int]] = {}
        for place, one in enumerate(asked):
            begin, end = int(instances.begin[one.instance]), int(instances.end[one.instance])
            key: tuple[int, ...] = (place,)
            size = (0, end - begin)
            if self.is_causal:
                shown = np.flatnonzero(instances.items[begin:end] == one.item)
                first = begin + int(shown[0]) if len(shown) else end
                key, size = (one.item, begin, first), (end - first, first - begin)
            units.setdefault(key, []).append(place)
            sizes[key] = max(size, sizes.get(key, size))
        return [units[key] for key in sorted(units, key=lambda key: (sizes[key], units[key][0]))]

    def _fill(self, found: list[Floats], asked: Sequence[Context], places: Sequence[int]) -> None:
        """The costs of a batch of contexts."""
        histories: list[list[int]] = []
        templates: list[int] = []
        rows: list[Row] = []
        instances, tried = self.instances, self.renderer.id_tokens
        for place in places:
            one = asked[place]
            begin, end = int(instances.begin[one.instance]), int(instances.end[one.instance])
            history, target = instances.items[begin:end].tolist(), int(instances.items[end])
            for number, name in enumerate(one.names):
                if number == 0 or one.item in history:  # else the prompt stays as it is: it is encoded once
                    renamed = history
                    if number:
                        renamed = [len(tried) if item == one.item else item for item in history]
                        tried.append(list(name))
                    histories.append(renamed)
                    templates.append(int(self.templates_N[one.instance]))
                rows.append(Row(len(histories) - 1, target, one.item, name, place, number))
        prompts = [prompt.tokens for prompt in self.renderer.render_all(histories, templates)]
        del tried[self.n_items :]
        for row, cost in zip(rows, self._row_costs(prompts, rows), strict=True):
            found[row.context][row.place] = cost

    @torch.inference_mode()
    def _row_costs(self, prompts: Sequence[Sequence[int]], rows: Sequence[Row]) -> list[float]:
        """[R] the cost of each row."""
        end = self.renderer.end
        paths = [[*row.name, end] if row.target == row.item else self.tree.names[row.target] for row in rows]
        head_VD = self.model.lm_head.weight
        if self.is_trie:  # behind the last choice nothing costs
            choices = [self.tree.choices(row.target, row.item, row.name) for row in rows]
            longest = [max((choice.position for choice in some), default=0) + 1 for some in choices]
            paths = [path[:length] for path, length in zip(paths, longest, strict=True)]
            return choice_costs(self._states(prompts, rows, paths), head_VD, self.trie, choices).tolist()
        logits_PV, labels_P, row_P = wanted_logits(self._states(prompts, rows, paths), head_VD, pad_labels(paths))
        cost_P = F.cross_entropy(logits_PV, labels_P, reduction="none").double()
        cost_R = torch.zeros(len(rows), dtype=torch.float64, device=head_VD.device)
        costs: list[float] = cost_R.index_add(0, to_device(row_P, head_VD.device), cost_P).tolist()
        return costs
