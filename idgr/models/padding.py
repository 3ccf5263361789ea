"""Token rows as the tensors that a T5 is trained on.

Legend: B rows, S prompt tokens, T target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.models.compiling import filled_width
from idgr.models.device import to_device

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

Ints = npt.NDArray[np.int64]

IGNORED = -100  # a label that costs nothing


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Ints, Ints]:
    """Token rows as [B, S], filled up with `pad` at the end, and the mask [B, S] of what is not filling.

    S is the length of the longest or its bucket (`filled_width`).
    """
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    mask_BS = np.arange(filled_width(int(lengths.max()))) < lengths[:, None]
    tokens_BS = np.full(mask_BS.shape, pad, dtype=np.int64)
    tokens_BS[mask_BS] = np.fromiter((token for row in rows for token in row), np.int64, count=int(lengths.sum()))
    return tokens_BS, mask_BS.astype(np.int64)


def pad_rows(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """As `padded`, on the device."""
    tokens_BS, mask_BS = padded(rows, pad)
    return to_device(tokens_BS, device), to_device(mask_BS, device)


def prompt_mask(model: T5ForConditionalGeneration, mask_BS: Tensor) -> Tensor:
    """The mask of padded prompts as a T5 takes it.

    Of a mask with two dimensions transformers asks whether it masks anything, and a GPU would have to be waited for.
    """
    return mask_BS if _asks_cheaply(model) else mask_BS[:, None, None].bool()


def encoder_mask(model: T5ForConditionalGeneration, tokens_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """The mask of padded prompts for a T5's encoder: that of `prompt_mask`, unless it is causal by item."""
    if not getattr(model.config, "causal_encoder", False):
        return prompt_mask(model, mask_BS)
    return attention_mask(model, item_mask(tokens_BS, int(model.config.eos_token_id)))


def item_mask(tokens_BS: Tensor, eos: int) -> Tensor:
    """[B, 1, S, S] what each token of prompts sees where items end with EOS: its own item and all before it.

    The words before the history are of the first item. Padding, behind the last EOS, is seen by padding alone.
    """
    is_eos_BS = tokens_BS == eos
    item_BS = is_eos_BS.cumsum(1) - is_eos_BS.long()
    return item_BS[:, None, :, None] >= item_BS[:, None, None, :]


def attention_mask(model: T5ForConditionalGeneration, sees: Tensor) -> Tensor:
    """Truth values [B, 1, Q, S] as the model's attention takes them: those of plain products are added to scores."""
    if model.config._attn_implementation == "sdpa":
        return sees
    dtype = model.dtype
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, torch.finfo(dtype).min)


def causal_mask(model: LlamaForCausalLM, tokens_BS: Tensor) -> Tensor:
    """The mask of rows that are filled up at the end, each token of which sees those before it.

    It has to be given beside the places of the tokens, from which transformers would guess where sequences begin.
    """
    if _asks_cheaply(model):
        return torch.ones_like(tokens_BS)
    S = tokens_BS.shape[1]
    return torch.ones((1, 1, S, S), dtype=torch.bool, device=tokens_BS.device).tril()


def _asks_cheaply(model: T5ForConditionalGeneration | LlamaForCausalLM) -> bool:
    """Whether a plain mask will do: on the CPU, or where attention takes no mask of truth values."""
    return bool(model.device.type == "cpu" or model.config._attn_implementation != "sdpa")


def decoder_inputs(model: T5ForConditionalGeneration, labels_BT: Ints) -> Tensor:
    """Labels shifted right behind the decoder's start token, with padding where they are `IGNORED`."""
    inputs_BT = np.full_like(labels_BT, model.config.decoder_start_token_id)
    inputs_BT[:, 1:] = np.where(labels_BT[:, :-1] == IGNORED, model.config.pad_token_id, labels_BT[:, :-1])
    return to_device(inputs_BT, model.device)


def pad_labels(rows: Sequence[Sequence[int]]) -> Ints:
    """Label rows as [B, T], filled up with `IGNORED`."""
    width = filled_width(max(map(len, rows)))
    return np.array([[*row, *[IGNORED] * (width - len(row))] for row in rows], dtype=np.int64)
