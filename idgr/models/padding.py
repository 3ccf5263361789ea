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

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

IGNORED = -100  # a label that costs nothing


def pad_rows(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token rows as [B, S], filled up with `pad` at the end, and the mask [B, S] of what is not filling."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    mask_BS = np.arange(int(lengths.max())) < lengths[:, None]
    tokens_BS = np.full(mask_BS.shape, pad, dtype=np.int64)
    tokens_BS[mask_BS] = np.fromiter((token for row in rows for token in row), np.int64, count=int(lengths.sum()))
    return torch.from_numpy(tokens_BS).to(device), torch.from_numpy(mask_BS.astype(np.int64)).to(device)


def decoder_inputs(model: T5ForConditionalGeneration, labels_BT: npt.NDArray[np.int64]) -> Tensor:
    """Labels shifted right behind the decoder's start token, with padding where they are `IGNORED`."""
    inputs_BT = np.full_like(labels_BT, model.config.decoder_start_token_id)
    inputs_BT[:, 1:] = np.where(labels_BT[:, :-1] == IGNORED, model.config.pad_token_id, labels_BT[:, :-1])
    return torch.from_numpy(inputs_BT).to(model.device)


def pad_labels(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Label rows as [B, T], filled up with `IGNORED`."""
    width = max(map(len, rows))
    return np.array([[*row, *[IGNORED] * (width - len(row))] for row in rows], dtype=np.int64)
