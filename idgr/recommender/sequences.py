"""A causal recommender's training: a user's whole sequence in one pass, every item of it a target but the first.

What a T5 reads anew for every prefix, a causal model reads once: the state behind any prefix of a sequence is that of
the prefix alone. So an epoch over the same instances takes a fraction of the operations.

Legend: W windows of a batch, S tokens, D width, N items of a batch's windows, M targets of a batch, I items, L tokens
of the longest ID with EOS.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from idgr.decoding.trie import Trie
from idgr.engine.task import figure
from idgr.models.compiling import filled_width
from idgr.models.device import to_device
from idgr.models.llama import item_slots, pad_token, position_ids
from idgr.models.padding import IGNORED, causal_mask
from idgr.prompts.draws import draws
from idgr.prompts.rendering import Prompt
from idgr.recommender.item_head import ItemTargets
from idgr.recommender.near_items import AGES
from idgr.recommender.objectives import (
    Branches,
    find_branches,
    full_loss,
    ranges,
    target_tokens,
    trees_loss,
    trees_tokens,
)
from idgr.recommender.two_names import drawn_names

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from idgr.recommender.contrast import Contrast
    from idgr.recommender.item_head import ItemObjective
    from idgr.recommender.kept_states import KeptStates

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Pieces of training sequences, in which every item but the first of a sequence is a target once.

    Attributes:
        items: the sequences end to end, as item numbers.
        begin: [N] the place in `items` of a window's first item.
        first: the place of its first target; what stands before is shown only.
        end: the place behind its last target.
        sequence: the number of the sequence it is of.
    """

    items: Ints
    begin: Ints
    first: Ints
    end: Ints
    sequence: Ints


def make_windows(
    sequences: Sequence[Sequence[int]], max_history: int, lengths_I: Ints | None = None, room: int = 0
) -> Windows:
    """The windows of sequences of item numbers, oldest first.

    A sequence of at most `max_history` + 1 items is one window. A longer one is cut into windows of that length that
    overlap by about a half, so that a target sees at least half of the `max_history` items before it. Where items have
    lengths, those before a target have no more tokens than there is room, as in serving; a target then sees about half
    of those that have room, or more.

    Args:
        lengths_I: how many tokens each item has with its end (`item_lengths`); none for windows of any length.
        room: for so many tokens.
    """
    size = max_history + 1
    stride = max(1, size // 2)
    rows: list[tuple[int, int, int, int]] = []
    at = 0
    for number, sequence in enumerate(sequences):
        n, first = len(sequence), 1
        before = [] if lengths_I is None else [0, *np.cumsum(lengths_I[np.array(sequence, dtype=np.int64)]).tolist()]
        while first < n:
            begin = 0 if first == 1 else max(0, first - (size - stride))
            if before:
                begin = max(begin, min(bisect_left(before, before[first] - room // 2), first - 1))
            end = min(begin + size, n)
            if before:
                end = min(end, max(bisect_right(before, before[begin] + room), first + 1))
            rows.append((at + begin, at + first, at + end, number))
            first = end
        at += n
    items = np.fromiter((item for row in sequences for item in row), dtype=np.int64, count=at)
    return Windows(items, *np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def item_lengths(id_tokens: Sequence[Sequence[int]], old_ids: Sequence[Sequence[int]] | None = None) -> Ints:
    """[I] how many tokens an item takes where it is read: those of its ID, the longer of two, and its end."""
    lengths_I = np.fromiter(map(len, id_tokens), dtype=np.int64, count=len(id_tokens)) + 1
    return lengths_I if old_ids is None else np.maximum(lengths_I, item_lengths(old_ids))


def window_costs(windows: Windows, trie: Trie) -> Ints:
    """[N] the tokens of each window."""
    lengths_I = (target_tokens(trie) != IGNORED).sum(axis=1)  # an EOS stands before an ID as it does behind a target's
    lengths = np.concatenate([[0], np.cumsum(lengths_I[windows.items])])
    costs: Ints = lengths[windows.end] - lengths[windows.begin]
    return costs


def reordered(place_N: Ints, window_N: Ints, reach: float, seed: int, epoch: int) -> Ints:
    """[N] the places of windows' items, those near each other in an order that each epoch draws anew.

    An item is moved later by up to `reach` places, so that two items of a window change places with a chance that falls
    with their distance. What is bought in one order is often as well bought in the other, and so trains both.

    Args:
        place_N: ascending within each window.
        window_N: the number of each item's window, ascending.
    """
    share_N = (draws(seed, epoch, place_N) >> np.uint64(11)).astype(np.float64) / 2**53
    order: Ints = np.lexsort([place_N + reach * share_N, window_N])
    return place_N[order]


def window_loss(
    model: LlamaForCausalLM,
    trie: Trie,
    windows: Windows,
    objective: str,
    contrast: Contrast | None = None,
    item_head: ItemObjective | None = None,
    *,
    leads: bool = True,
    reorder: float = 0.0,
    seed: int = 0,
    embed: Callable[[Sequence[Prompt], Tensor], Tensor] | None = None,
    kept: KeptStates | None = None,
    old_trie: Trie | None = None,
) -> Callable[[Ints, int], tuple[Tensor, int]]:
    """The summed loss of windows in an epoch, as the loop wants it: the terms are those of `instance_loss`.

    Args:
        contrast, item_head: what is added to the mean over the terms, for each batch.
        leads: whether a window begins with the token that stands between items, as the renderer's histories do.
        reorder: the reach of `reordered`; 0 for the order of the sequences. `seed` is that of the draws.
        embed: given a batch's windows as prompts, in which the IDs of all items stand, and their tokens [W, S], what
            the model reads, [W, S, D]; None for its own embeddings of the tokens. Not with `contrast`.
        kept: the states behind layers that stay as they are; None to run these anew. With nothing else that is read.
        old_trie: of the items' old IDs, by which they are named too (`idgr.recommender.two_names`), if they are.
    """
    tries = [trie] if old_trie is None else [trie, old_trie]
    labels_IL = trees_tokens(tries)
    n_items = len(labels_IL) // len(tries)
    lengths_I = (labels_IL != IGNORED).sum(axis=1)
    # An item is read as an EOS and its ID: its labels, one place later.
    blocks_IL = np.roll(labels_IL, 1, axis=1)
    blocks_IL[:, 0] = trie.eos
    branches = [find_branches(tree) for tree in tries] if objective == "trie" else []
    slots, device = item_slots(model), model.device

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        begin, end = windows.begin[batch], windows.end[batch]
        place_N, window_N = ranges(begin, end - begin)
        moved_N = reordered(place_N, window_N, reorder, seed, epoch) if reorder else place_N
        items_N = windows.items[moved_N]
        named_N = items_N if old_trie is None else drawn_names(items_N, n_items, batch[window_N], seed, epoch)
        length_N = lengths_I[named_N]
        # Where each item begins among the tokens of its window.
        offset_N = np.cumsum(length_N) - length_N
        offset_N -= offset_N[np.searchsorted(window_N, window_N)]
        width = int((offset_N + length_N).max())
        item, column = np.nonzero(labels_IL[named_N] != IGNORED)
        width = filled_width(width + (contrast is not None))
        tokens_WS = np.full((len(batch), width), pad_token(model), dtype=np.int64)
        tokens_WS[window_N[item], offset_N[item] + column] = blocks_IL[named_N[item], column]
        end_W = (offset_N + length_N)[last_W := np.cumsum(end - begin) - 1]
        if contrast is not None:
            tokens_WS[np.arange(len(batch)), end_W] = trie.eos
        if not leads:  # its first item is no target, so nothing is asked of the token before it
            tokens_WS, offset_N, end_W = tokens_WS[:, 1:], offset_N - 1, end_W - 1
        read_WS, behind_W = to_device(tokens_WS, device), to_device(end_W, device)
        read_WSD = None if contrast is None else contrast.embed(model, read_WS, behind_W)
        if embed is not None:
            read_WSD = embed(_as_prompts(tokens_WS, items_N, window_N, offset_N + 1, offset_N + length_N), read_WS)
        if item_head is not None and item_head.head.telling is not None:
            read_WSD = model.get_input_embeddings()(read_WS) if read_WSD is None else read_WSD
            read_WSD = item_head.tell(read_WSD, items_N, window_N, offset_N)
        place_WS = to_device(position_ids(tokens_WS, trie.eos, slots), device)
        hidden_WSD = kept.hidden(batch, read_WS, place_WS) if kept else _states(model, read_WS, place_WS, read_WSD)
        wanted_N = place_N >= windows.first[batch][window_N]
        at_M = window_N[wanted_N], offset_N[wanted_N]
        loss, terms = targets_cost(hidden_WSD, model.lm_head.weight, labels_IL, branches, named_N[wanted_N], *at_M)
        total = loss
        if item_head is not None:
            state_MD = states_at(hidden_WSD, *at_M)
            before_MA = _items_before(items_N, window_N, AGES)[wanted_N]
            told = ItemTargets(items_N[wanted_N], before_MA, windows.sequence[batch][at_M[0]])
            total = total + item_head.cost(model, state_MD, told, terms)
        if contrast is not None:
            contrast.found["generation"] = figure(loss, terms)
            total = total + contrast.cost(states_at(hidden_WSD, np.arange(len(end_W)), end_W), items_N[last_W], terms)
        return total, terms

    return loss_of


def _states(model: LlamaForCausalLM, tokens_WS: Tensor, place_WS: Tensor, read_WSD: Tensor | None) -> Tensor:
    """[W, S, D] what the output head is applied to; where it is given, `read_WSD` stands for the tokens' embeddings."""
    states_WSD: Tensor = model.model(
        input_ids=tokens_WS if read_WSD is None else None,
        inputs_embeds=read_WSD,
        position_ids=place_WS,
        attention_mask=causal_mask(model, tokens_WS),
        use_cache=False,
    )[0]
    return states_WSD


def targets_cost(
    hidden_WSD: Tensor,
    head_VD: Tensor,
    labels_IL: Ints,
    branches: Sequence[Branches],
    items_M: Ints,
    row_M: Ints,
    offset_M: Ints,
) -> tuple[Tensor, int]:
    """The summed cost of targets, asked for from a place in a row on, and its number of terms.

    Args:
        branches: of the trees in which they are asked for; none for all the vocabulary.
    """
    if branches:
        return trees_loss(hidden_WSD, head_VD, branches, items_M, row_M, offset_M), len(items_M)
    item, column = np.nonzero(labels_IL[items_M] != IGNORED)
    labels_WS = np.full(hidden_WSD.shape[:2], IGNORED)
    labels_WS[row_M[item], offset_M[item] + column] = labels_IL[items_M[item], column]
    return full_loss(hidden_WSD, head_VD, labels_WS)


def _items_before(items_N: Ints, window_N: Ints, n: int) -> Ints:
    """[N, n] the items that stand before each one in its window, the nearest first; -1 where there is none."""
    before_Nn = np.full((len(items_N), n), -1, dtype=np.int64)
    for age in range(n):
        back = age + 1
        same_N = window_N[back:] == window_N[:-back]
        before_Nn[back:, age][same_N] = items_N[:-back][same_N]
    return before_Nn


def states_at(hidden_WSD: Tensor, row_M: Ints, place_M: Ints) -> Tensor:
    """[M, D] the states at places of rows, which are known here, so that nobody waits for a GPU."""
    return hidden_WSD.flatten(0, 1)[to_device(row_M * hidden_WSD.shape[1] + place_M, hidden_WSD.device)]


def _as_prompts(tokens_WS: Ints, items_N: Ints, window_N: Ints, begin_N: Ints, end_N: Ints) -> list[Prompt]:
    """Windows with the places of their items' IDs, each from one place to another of its window."""
    prompts = [Prompt(row, []) for row in tokens_WS.tolist()]
    rows = zip(window_N.tolist(), items_N.tolist(), begin_N.tolist(), end_N.tolist(), strict=True)
    for window, item, begin, end in rows:
        prompts[window].spans.append((item, begin, end))
    return prompts
