"""A T5's training with an encoder that is causal by item: what all prefixes of a sequence share is computed once.

In such an encoder (`idgr.models.padding.item_mask`) the states of an item are the same however the history goes on. So
a window is encoded once, and each of its targets attends to the items before it: the loss is that of each prefix read
alone. The decoder reads the targets of a window one behind the other, none of which sees another.

Legend: W windows of a batch, S tokens of a window's prompt, N items of windows, M targets, Q tokens of the targets of a
window, I items, L tokens of the longest ID with EOS, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.decoding.trie import build_trie
from idgr.models.compiling import filled_width
from idgr.models.device import to_device
from idgr.models.padding import IGNORED, attention_mask, item_mask
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import draw_templates
from idgr.recommender.objectives import decode, find_branches, ranges, trees_tokens
from idgr.recommender.sequences import Windows, targets_cost
from idgr.recommender.two_names import drawn_names

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

Ints = npt.NDArray[np.int64]


def prefix_loss(
    model: T5ForConditionalGeneration,
    renderer: PromptRenderer,
    windows: Windows,
    objective: str,
    seed: int,
    old_ids: Sequence[Sequence[int]] | None = None,
) -> Callable[[Ints, int], tuple[Tensor, int]]:
    """The summed loss of windows in an epoch, as the loop wants it: the terms are those of `instance_loss`.

    A window has one template, and each item one name in it.

    Args:
        renderer: for an encoder that is causal by item.
        old_ids: the tokens of the items' old IDs, by which they are named too (`idgr.recommender.two_names`), if any.
    """
    tries = [build_trie(rows, renderer.end) for rows in (renderer.id_tokens, old_ids) if rows is not None]
    labels_IL, n_items = trees_tokens(tries), len(renderer.id_tokens)
    lengths_I = (labels_IL != IGNORED).sum(axis=1)
    branches = [find_branches(trie) for trie in tries] if objective == "trie" else []
    asked_I = np.concatenate([one.decoder_lengths() for one in branches]) if branches else lengths_I
    inputs_IL = np.roll(labels_IL, 1, axis=1)
    inputs_IL[:, 0] = model.config.decoder_start_token_id
    words = [np.array(row, dtype=np.int64) for row in renderer.before]
    pad, device = int(model.config.pad_token_id), model.device

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        begin, end = windows.begin[batch], windows.end[batch]
        place_N, window_N = ranges(begin, end - begin)
        named_N = items_N = windows.items[place_N]
        if old_ids is not None:
            named_N = drawn_names(items_N, n_items, batch[window_N], seed, epoch)
        before = [words[template] for template in draw_templates(renderer.n_templates, seed, epoch, batch)]
        before_W = np.fromiter(map(len, before), dtype=np.int64, count=len(before))
        offset_N = _offsets(lengths_I[named_N], window_N) + before_W[window_N]
        # The last item of a window is a target alone.
        shown = np.flatnonzero(place_N + 1 < end[window_N])
        tokens_WS = np.full((len(batch), filled_width(int(offset_N.max()))), pad, dtype=np.int64)
        for row, some in enumerate(before):
            tokens_WS[row, : len(some)] = some
        _place(tokens_WS, labels_IL, named_N[shown], lengths_I, window_N[shown], offset_N[shown])

        wanted_N = place_N >= windows.first[batch][window_N]
        named_M, row_M, seen_M = named_N[wanted_N], window_N[wanted_N], offset_N[wanted_N]
        offset_M = _offsets(asked_I[named_M], row_M)
        width = filled_width(int((offset_M + asked_I[named_M]).max()))
        inputs_WQ, of_WQ = (np.full((len(batch), width), fill, dtype=np.int64) for fill in (pad, len(named_M)))
        _place(inputs_WQ, inputs_IL, named_M, asked_I, row_M, offset_M)
        target, column = _cells(named_M, asked_I)
        of_WQ[row_M[target], offset_M[target] + column] = target
        # What fills rows up sees a token all the same, since of nothing there is no mean.
        seen_WQ = np.append(seen_M, 1)[of_WQ]
        hidden_WQD = _states(model, *(to_device(one, device) for one in (tokens_WS, inputs_WQ, of_WQ, seen_WQ)))
        return targets_cost(hidden_WQD, model.lm_head.weight, labels_IL, branches, named_M, row_M, offset_M)

    return loss_of


def _states(
    model: T5ForConditionalGeneration, tokens_WS: Tensor, inputs_WQ: Tensor, of_WQ: Tensor, seen_WQ: Tensor
) -> Tensor:
    """[W, Q, D] what the output head is applied to.

    Args:
        of_WQ: the target that each token of the decoder's input is of.
        seen_WQ: how many tokens of the window stand before it.
    """
    sees = item_mask(tokens_WS, int(model.config.eos_token_id))
    encoded_WSD = model.encoder(input_ids=tokens_WS, attention_mask=attention_mask(model, sees))[0]
    along_S, along_Q = (torch.arange(one.shape[1], device=one.device) for one in (tokens_WS, inputs_WQ))
    before = along_S < seen_WQ[:, None, :, None]
    own = (of_WQ[:, None, :, None] == of_WQ[:, None, None, :]) & (along_Q[:, None] >= along_Q)
    return decode(model, encoded_WSD, attention_mask(model, before), inputs_WQ, attention_mask(model, own))


def _offsets(lengths_N: Ints, window_N: Ints) -> Ints:
    """[N] how many tokens of a window stand before each of its parts, one behind the other, of these lengths."""
    offset_N = np.cumsum(lengths_N) - lengths_N
    first: Ints = offset_N - offset_N[np.searchsorted(window_N, window_N)]
    return first


def _cells(named_M: Ints, lengths_I: Ints) -> tuple[Ints, Ints]:
    """Of each of the first tokens of names, as many as they have lengths, which name it is of and its place there."""
    column, name = ranges(np.zeros_like(named_M), lengths_I[named_M])
    return name, column


def _place(to: Ints, rows_IL: Ints, named_M: Ints, lengths_I: Ints, row_M: Ints, offset_M: Ints) -> None:
    """Put the first tokens of names where they stand in rows."""
    name, column = _cells(named_M, lengths_I)
    to[row_M[name], offset_M[name] + column] = rows_IL[named_M[name], column]
