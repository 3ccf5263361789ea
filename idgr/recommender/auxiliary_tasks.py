"""What a causal model is taught beside recommending (LLM-BS): what items are, and what a user likes, in words.

Semantic reconstruction: an item's text to its ID, and its ID to its text. Preference reconfiguration: a training
history's summary to its IDs, and its IDs to the summary. A summary is made by a rule: the words that tell the shown
items' texts from others, those first that several of the items share. Half of a task's instances go either way.

A sequence of a task is made of blocks, each behind an EOS as items are in a history. It begins with a cue of a few
words, since a history begins with an item; the text follows its cue at once, or the items after it:

    EOS item named: TEXT EOS ID                     EOS words for: EOS ID EOS TEXT
    EOS history told: SUMMARY EOS ID EOS ID ...     EOS summed up: EOS ID EOS ID ... EOS SUMMARY

IDs cost what they cost as targets of a recommendation. A text's tokens cost cross-entropy over the whole vocabulary:
each is a term of the loss where those of an ID are (`full`); where an ID is one term (`trie`), so is a text, by their
mean.

Legend: B sequences, S tokens, L tokens of the longest ID with EOS, M IDs that are targets, P tokens of texts.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.decoding.trie import Trie
from idgr.engine.task import TrainingTask, figure
from idgr.errors import UsageError
from idgr.ids.keyphrase import telling, words_of
from idgr.ids.spelling import fold
from idgr.models.device import to_device
from idgr.models.llama import item_slots, pad_token, position_ids
from idgr.models.padding import IGNORED, causal_mask, pad_labels, padded
from idgr.models.tokenizer import encode
from idgr.recommender.objectives import find_branches, full_loss, target_tokens, trees_loss, wanted_logits
from idgr.recommender.sequences import Windows

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

    from idgr.models.backbone import Backbone

Ints = npt.NDArray[np.int64]
Loss = Callable[[Ints, int], tuple[Tensor, int]]

RECONSTRUCTION, PREFERENCE = "reconstruction", "preference"
# What stands before a text that leads to IDs, and before IDs that lead to a text.
CUES = {RECONSTRUCTION: ("item named:", "words for:"), PREFERENCE: ("history told:", "summed up:")}
TEXT_TOKENS = 48  # of a text, without its cue; the rest is left out
SUMMARY_WORDS = 8


@dataclass(frozen=True)
class AuxiliaryTaskOptions:
    """How much is taught beside recommending.

    Attributes:
        reconstruction, preference: instances of the task for each window of the training sequences.
        texts: the items' plain texts, by item number; none are needed where both are 0.
    """

    reconstruction: float = 0.0
    preference: float = 0.0
    texts: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in (RECONSTRUCTION, PREFERENCE):
            if not 0 <= getattr(self, name) < np.inf:
                raise UsageError(f"--{name} {getattr(self, name)}", "give a number of at least 0")

    def words(self) -> list[str]:
        """The texts that a vocabulary shall spell where there are tasks, with their cues."""
        return [*self.texts, *(cue for cues in CUES.values() for cue in cues)] if self.texts else []


@dataclass(frozen=True)
class Pair:
    """A text, as tokens, and the numbers of the items that it goes with."""

    text: list[int]
    items: list[int]


@dataclass(frozen=True)
class Task:
    """A task as a part of `TrainingTask`.

    Attributes:
        lengths: [N] about how many tokens its instances have, at most.
        loss_of: as that of `TrainingTask`, for its own instances from 0.
        names: as that of `TrainingTask`.
    """

    name: str
    lengths: Ints
    loss_of: Loss
    names: Callable[[Ints], list[str]]


def make_tasks(
    backbone: Backbone,
    trie: Trie,
    windows: Windows,
    objective: str,
    options: AuxiliaryTaskOptions,
    seed: int,
) -> list[Task]:
    """The tasks that are wanted; `seed` orders items and windows, each of which has its turn before one has another."""
    tokenizer = backbone.tokenizer
    pairs_of = {
        RECONSTRUCTION: (options.reconstruction, partial(item_pairs, tokenizer)),
        PREFERENCE: (options.preference, partial(history_pairs, tokenizer, windows=windows)),
    }
    longest_ID = (target_tokens(trie) != IGNORED).sum(axis=1).max()
    most_items = {RECONSTRUCTION: 1, PREFERENCE: int((windows.end - windows.begin).max(initial=0))}
    found = []
    for number, (name, (ratio, make)) in enumerate(pairs_of.items()):
        n = round(ratio * len(windows.begin))
        if not n:
            continue
        n_pairs, pairs = make(options.texts)
        cues = encode(tokenizer, CUES[name])
        turn = Turns(np.random.default_rng([seed, number, n_pairs]).permutation(n_pairs), n)
        length = max(map(len, cues)) + TEXT_TOKENS + 2 + most_items[name] * int(longest_ID)
        found.append(
            Task(
                name,
                np.full(n, length, dtype=np.int64),
                pair_loss(backbone.model, trie, turn, pairs, cues, objective),
                partial(_called, name),
            )
        )
    return found


def _called(task: str, batch: Ints) -> list[str]:
    return [f"a text ({task})"] * len(batch)


@dataclass(frozen=True)
class Turns:
    """Which pair an instance is of in an epoch, and which way it goes.

    Attributes:
        order: the pairs, by number, as they have their turn: all epochs together go round and round.
        n: the instances of an epoch.
    """

    order: Ints
    n: int

    def of(self, batch: Ints, epoch: int) -> tuple[list[int], list[bool]]:
        """The pair of each instance, and whether its text comes first; a pair's two ways follow each other."""
        turn = epoch * self.n + batch
        return self.order[turn // 2 % len(self.order)].tolist(), (turn % 2 == 0).tolist()


def item_pairs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[int, Callable[[Sequence[int]], list[Pair]]]:
    """How many pairs of an item and its text there are, and what gives those of some numbers."""
    rows = encode(tokenizer, texts, max_tokens=TEXT_TOKENS)
    return len(rows), lambda numbers: [Pair(rows[number], [number]) for number in numbers]


def history_pairs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], windows: Windows
) -> tuple[int, Callable[[Sequence[int]], list[Pair]]]:
    """How many pairs of a window and its summary there are, and what gives those of some numbers."""
    summary = summaries(texts)

    def pairs(numbers: Sequence[int]) -> list[Pair]:
        items = [windows.items[windows.begin[number] : windows.end[number]].tolist() for number in numbers]
        rows = encode(tokenizer, [" ".join(summary(row)) for row in items], max_tokens=TEXT_TOKENS)
        return [Pair(*pair) for pair in zip(rows, items, strict=True)]

    return len(windows.begin), pairs


def summaries(texts: Sequence[str]) -> Callable[[Sequence[int]], list[str]]:
    """What gives at most `SUMMARY_WORDS` words for items, given by number, from the most telling on.

    A word counts for what it tells in all the items' texts together. Words that two or more of the items share come
    first, and others only fill up.
    """
    words = [[fold(word) for word in words_of(text)] for text in texts]
    frequency = Counter(word for row in words for word in set(row))
    told: list[dict[str, float]] = []
    for row in words:
        first = {word: place for place, word in reversed(list(enumerate(row)))}
        told.append({word: telling(word, place, frequency, len(texts)) for word, place in first.items()})

    def summary(items: Sequence[int]) -> list[str]:
        weight: defaultdict[str, float] = defaultdict(float)
        shared: Counter[str] = Counter()
        for item in dict.fromkeys(items):
            for word, value in told[item].items():
                weight[word] += value
                shared[word] += 1
        return sorted(weight, key=lambda word: (shared[word] < 2, -weight[word], word))[:SUMMARY_WORDS]

    return summary


def pair_loss(
    model: LlamaForCausalLM,
    trie: Trie,
    turns: Turns,
    pairs: Callable[[Sequence[int]], list[Pair]],
    cues: Sequence[Sequence[int]],
    objective: str,
) -> Loss:
    """The summed loss of a task's instances in an epoch, as the loop wants it; for its terms see the module.

    Args:
        pairs: gives the pairs of some numbers.
        cues: the tokens that lead from a text to IDs, and those that lead from IDs to a text.
    """
    id_rows = [row[row != IGNORED][:-1].tolist() for row in target_tokens(trie)]
    branches = find_branches(trie) if objective == "trie" else None
    slots, device = item_slots(model), model.device

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        numbers, text_first = turns.of(batch, epoch)
        rows, labels, targets = [], [], []
        for number, (pair, forth) in enumerate(zip(pairs(numbers), text_first, strict=True)):
            ids = [id_rows[item] for item in pair.items]
            known = [[*cues[0], *pair.text]] if forth else [cues[1], *ids]
            row = [token for block in known for token in (trie.eos, *block)]
            answer = len(row)
            for item, block in zip(pair.items, ids, strict=True) if forth else [(None, pair.text)]:
                if item is not None:
                    targets.append((item, number, len(row)))
                row += [trie.eos, *block]
            of_ids = forth and branches is not None
            labels.append([IGNORED] * (len(row) if of_ids else answer))
            labels[-1] += [] if of_ids else [*row[answer + 1 :], trie.eos]
            rows.append(row)
        tokens_BS, labels_BS = padded(rows, pad_token(model))[0], pad_labels(labels)
        read_BS = to_device(tokens_BS, device)
        hidden_BSD = model.model(
            input_ids=read_BS,
            position_ids=to_device(position_ids(tokens_BS, trie.eos, slots), device),
            attention_mask=causal_mask(model, read_BS),
            use_cache=False,
        )[0]
        head_VD = model.lm_head.weight
        if branches is None:
            return full_loss(hidden_BSD, head_VD, labels_BS)
        loss, terms = mean_text_loss(hidden_BSD, head_VD, labels_BS)
        if targets:
            loss = loss + trees_loss(hidden_BSD, head_VD, [branches], *np.array(targets, dtype=np.int64).T)
            terms += len(targets)
        return loss, terms

    return loss_of


def mean_text_loss(hidden_BSD: Tensor, head_VD: Tensor, labels_BS: Ints) -> tuple[Tensor, int]:
    """The sum over rows with labels of the mean cross-entropy of a row's labels, and the number of these rows."""
    logits_PV, labels_P, row_P = wanted_logits(hidden_BSD, head_VD, labels_BS)
    cost_P = F.cross_entropy(logits_PV, labels_P, reduction="none")
    count_B = np.bincount(row_P, minlength=len(labels_BS))
    share_P = to_device((1 / count_B[row_P]).astype(np.float32), cost_P.device)
    return (cost_P * share_P).sum(), int(np.count_nonzero(count_B))


def with_tasks(task: TrainingTask, tasks: Sequence[Task]) -> TrainingTask:
    """Work whose first instances are those of `task`, and whose others are those of tasks, one task after the other.

    The mean loss of each part per term is among its figures: "recommendation" for that of `task`.
    """
    if not tasks:
        return task
    parts: list[tuple[str, Loss]] = [("recommendation", task.loss_of), *((task.name, task.loss_of) for task in tasks)]
    counts = [len(task.lengths), *(len(task.lengths) for task in tasks)]
    begins = np.cumsum([0, *counts])
    own_sizes = np.ones(counts[0], dtype=np.int64) if task.sizes is None else task.sizes
    found: dict[str, Tensor] = {}

    def own(batch: Ints) -> list[Ints]:
        return [batch[(batch >= begin) & (batch < end)] - begin for begin, end in itertools.pairwise(begins)]

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        mine = own(batch)
        costs = [(name, *part(some, epoch)) for (name, part), some in zip(parts, mine, strict=True) if len(some)]
        total = torch.stack([loss for _, loss, _ in costs]).sum()
        none = figure(torch.zeros_like(total), 0.0)
        found.update(dict.fromkeys((name for name, _ in parts), none))
        found.update({name: figure(loss, terms) for name, loss, terms in costs})
        found.update({name: told() if len(mine[0]) else none for name, told in task.figures.items()})
        return total, sum(terms for _, _, terms in costs)

    def names(batch: Ints) -> list[str]:
        called = [task.names, *(task.names for task in tasks)]
        return [name for call, mine in zip(called, own(batch), strict=True) if call for name in call(mine)]

    return replace(
        task,
        lengths=np.concatenate([task.lengths, *(task.lengths for task in tasks)]),
        loss_of=loss_of,
        sizes=np.concatenate([own_sizes, np.ones(sum(counts[1:]), dtype=np.int64)]),
        figures={name: partial(found.__getitem__, name) for name in (*(name for name, _ in parts), *task.figures)},
        names=names,
    )
