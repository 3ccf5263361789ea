"""A recommender's training where some items have had another ID: each is named by the one or the other at random.

So a recommender learns what the new ID stands for where it still reads and writes the old one. What a T5 reads is drawn
place by place; a Llama's windows (`idgr.recommender.sequences`) name an item alike wherever it stands in them. A target
is asked for by its old ID in the tree of all old ones, or by its new ID in that of the new.

Legend: B instances, N items of windows, S prompt tokens, T target tokens, I items, L tokens of the longest ID with EOS.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from idgr.decoding.trie import build_trie
from idgr.models.padding import IGNORED, decoder_inputs, pad_rows
from idgr.prompts.draws import draws
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import draw_templates
from idgr.recommender.objectives import (
    decoder_states,
    find_branches,
    full_loss,
    ranges,
    trees_loss,
    trees_tokens,
)

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

Ints = npt.NDArray[np.int64]

_FURTHEST = 1 << 16  # a place in a history is below it


class Instances(Protocol):
    """As of `idgr.recommender.training`, which imports this module."""

    @property
    def items(self) -> Ints: ...

    @property
    def begin(self) -> Ints: ...

    @property
    def end(self) -> Ints: ...


def drawn_names(items_N: Ints, n_items: int, window_N: Ints, seed: int, epoch: int) -> Ints:
    """[N] the numbers of items in windows, plus `n_items` where the item is called by its old ID there.

    Drawn by the item and its window's number, so that other windows of a batch make no difference.
    """
    is_old = draws(seed, epoch, window_N * n_items + items_N) >> np.uint64(63)
    return items_N + n_items * is_old.astype(np.int64)


def two_names_loss(
    model: T5ForConditionalGeneration,
    renderer: PromptRenderer,
    old_ids: Sequence[Sequence[int]],
    instances: Instances,
    objective: str,
    seed: int,
) -> Callable[[Ints, int], tuple[Tensor, int]]:
    """The summed loss of a T5's instances in an epoch, as the loop wants it: as `instance_loss`, but for the names.

    Args:
        renderer: with the items' new IDs.
        old_ids: the tokens of the items' old IDs, by their numbers.
    """
    n_items = len(renderer.id_tokens)
    both = copy.copy(renderer)
    both.id_tokens = [*renderer.id_tokens, *map(list, old_ids)]  # an item's old ID has its number and n_items
    if (user_ids := renderer.user_ids) is not None:  # a user's ID is made of items, whatever these are called
        both.user_ids = lambda shown: user_ids([[name % n_items for name in row] for row in shown])
    tries = [build_trie(rows, renderer.end) for rows in (renderer.id_tokens, old_ids)]
    branches = [find_branches(trie) for trie in tries]
    tokens_IL = trees_tokens(tries)
    by_branches = np.concatenate([one.decoder_lengths() for one in branches])
    lengths_I = by_branches if objective == "trie" else (tokens_IL != IGNORED).sum(axis=1)

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        templates = draw_templates(len(renderer.before), seed, epoch, batch)
        place, row = ranges(instances.begin[batch], instances.end[batch] - instances.begin[batch] + 1)
        # By the instance and the place from its end: what an item is called depends on nothing else.
        from_end = instances.end[batch][row] - place
        is_old = draws(seed, epoch, batch[row] * _FURTHEST + from_end) >> np.uint64(63)
        named = instances.items[place] + n_items * is_old.astype(np.int64)
        ends = np.flatnonzero(from_end == 0)
        histories = [part[:-1].tolist() for part in np.split(named, ends[:-1] + 1)]
        targets_B = named[ends]
        rows = [prompt.tokens for prompt in both.render_all(histories, templates.tolist())]
        prompt_BS, mask_BS = pad_rows(rows, model.config.pad_token_id, model.device)
        labels_BT = tokens_IL[targets_B, : int(lengths_I[targets_B].max())]
        hidden_BTD = decoder_states(model, prompt_BS, mask_BS, decoder_inputs(model, labels_BT))
        head_VD = model.lm_head.weight
        if objective != "trie":
            return full_loss(hidden_BTD, head_VD, labels_BT)
        rows_B = np.arange(len(batch))
        return trees_loss(hidden_BTD, head_VD, branches, targets_B, rows_B, np.zeros_like(rows_B)), len(batch)

    return loss_of
