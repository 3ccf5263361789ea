"""States behind frozen layers, made once for each window and kept on disk for later epochs.

Layers that stay as they are give the same states in every epoch, where nothing below them is drawn at random. So they
run once a window, and the states lie in a file that is mapped into memory: bf16 where products of matrices are made in
that, which rounds them, else fp32. A window's states are believed where their checksum is right, so a file that a kill
has left is gone on with, and what it lacks is made.

Legend: N windows, W of them in a batch, S tokens, T tokens of all windows, D width.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import torch
from torch import Tensor

from idgr.errors import IdgrError, UsageError
from idgr.models.device import to_device
from idgr.models.freezing import split_layers
from idgr.models.padding import causal_mask
from idgr.progress import log

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Ints = npt.NDArray[np.int64]

# `keep_states`, given the tokens of each window, and what they follow from.
KeepStates: TypeAlias = "Callable[[Ints, Sequence[Ints]], KeptStates]"

_STATES, _CHECKS, _MADE_OF = "states", "checks", "made_of"
_GIB = 1 << 30


@dataclass(frozen=True)
class KeptStates:
    """The states of windows, and the layers below and above them.

    Attributes:
        lower, upper: see `split_layers`.
        begin: [N + 1] where a window's states begin among all.
        states_TD: as they lie on disk.
        check_N: the checksum of each window's states; 0 where there are none.
        good_N: whether the states were made or found right in this process.
    """

    model: LlamaForCausalLM
    lower: Any
    upper: Any
    begin: Ints
    states_TD: Tensor
    check_N: npt.NDArray[np.uint32]
    good_N: npt.NDArray[np.bool_]

    def hidden(self, batch_W: Ints, tokens_WS: Tensor, place_WS: Tensor) -> Tensor:
        """[W, S, D] what the output head is applied to, of windows with their tokens and places.

        The windows' tokens stand first in their rows; what fills the rows up is read as zeros.
        """
        lacking = np.array([row for row, number in enumerate(batch_W.tolist()) if not self._holds(number)], np.int64)
        if len(lacking):
            rows = to_device(lacking, tokens_WS.device)
            self._make(batch_W[lacking], tokens_WS[rows], place_WS[rows])
        width = self.states_TD.shape[1]
        below_WSD = torch.zeros((*tokens_WS.shape, width), dtype=self.states_TD.dtype)
        for row_SD, number in zip(below_WSD, batch_W.tolist(), strict=True):
            found_SD = self._of(number)
            row_SD[: len(found_SD)] = found_SD
        read_WSD = below_WSD.to(tokens_WS.device, self.model.dtype)
        return self._run(self.upper, tokens_WS, place_WS, inputs_embeds=read_WSD)

    def _of(self, number: int) -> Tensor:
        return self.states_TD[self.begin[number] : self.begin[number + 1]]

    def _holds(self, number: int) -> bool:
        if not self.good_N[number]:
            self.good_N[number] = self.check_N[number] == _checksum(self._of(number))
        return bool(self.good_N[number])

    def _make(self, batch_W: Ints, tokens_WS: Tensor, place_WS: Tensor) -> None:
        with torch.no_grad():
            states_WSD = self._run(self.lower, tokens_WS, place_WS, input_ids=tokens_WS).to("cpu", self.states_TD.dtype)
        for number, states_SD in zip(batch_W.tolist(), states_WSD, strict=True):
            place_SD = self._of(number)
            place_SD.copy_(states_SD[: len(place_SD)])
            self.check_N[number], self.good_N[number] = _checksum(place_SD), True

    def _run(self, layers: Any, tokens_WS: Tensor, place_WS: Tensor, **read: Tensor) -> Tensor:
        mask = causal_mask(self.model, tokens_WS)
        found_WSD: Tensor = layers(position_ids=place_WS, attention_mask=mask, use_cache=False, **read)[0]
        return found_WSD


def _checksum(states_SD: Tensor) -> int:
    return zlib.crc32(states_SD.view(torch.uint8).numpy().tobytes()) | 1  # never 0, which means none


def keep_states(
    model: LlamaForCausalLM,
    n_frozen: int,
    folder: Path,
    dtype: torch.dtype,
    tokens_N: Ints,
    made_of: Sequence[Ints],
) -> KeptStates:
    """The states of windows behind the first layers of a model, those in a folder if they are made of the same.

    Says first how much of the disk they take.

    Args:
        n_frozen: so many layers stay as they are; at least 1.
        folder: of states alone; made, or emptied where it holds others.
        dtype: that of the states on disk.
        tokens_N: how many tokens of each window are read.
        made_of: what these tokens follow from.

    Raises:
        UsageError: the model's own configuration asks for dropout in its attention.
        IdgrError: the disk has no room for them.
    """
    if model.config.attention_dropout:
        what = f"--keep-states with an attention_dropout of {model.config.attention_dropout} in the model's config.json"
        raise UsageError(what, "leave it out")
    width, n_tokens = model.config.hidden_size, int(tokens_N.sum())
    needed = states_size(model, n_tokens, dtype)
    name = str(dtype).removeprefix("torch.")
    log(f"train-rec: keeps states of {n_tokens} tokens in {name}, {needed / _GIB:.2f} GiB of disk, in {folder}")
    digest = _digest(model, n_frozen, dtype, [tokens_N, *made_of])
    if not _is_made_of(folder, digest):
        _lay_out(folder, {_STATES: needed, _CHECKS: 4 * len(tokens_N)}, digest)
    states_N = torch.from_file(str(folder / _STATES), shared=True, size=n_tokens * width, dtype=dtype)
    return KeptStates(
        model,
        *split_layers(model, n_frozen),
        np.concatenate([[0], np.cumsum(tokens_N)]),
        states_N.view(n_tokens, width),
        np.memmap(folder / _CHECKS, dtype=np.uint32, mode="r+"),
        np.zeros(len(tokens_N), dtype=bool),
    )


def states_size(model: LlamaForCausalLM, n_tokens: int, dtype: torch.dtype) -> int:
    """How many bytes the states of so many tokens take."""
    return n_tokens * int(model.config.hidden_size) * dtype.itemsize


def _digest(model: LlamaForCausalLM, n_frozen: int, dtype: torch.dtype, made_of: Sequence[Ints]) -> str:
    """What the states follow from: the frozen weights, how they are computed, and the windows' tokens."""
    config = {key: str(value) for key, value in model.config.to_dict().items()}
    told = [n_frozen, str(dtype), str(model.device), torch.__version__, config]
    found = hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS))
    for part in (model.get_input_embeddings(), *model.model.layers[:n_frozen]):
        for weight in part.parameters():
            found.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    for numbers in made_of:
        found.update(numbers.tobytes())
    return found.hexdigest()


def _is_made_of(folder: Path, digest: str) -> bool:
    told = folder / _MADE_OF
    return told.is_file() and told.read_bytes() == digest.encode()


def _lay_out(folder: Path, sizes: dict[str, int], digest: str) -> None:
    """Files of zeros, whose room on the disk is taken, so that no write to them can fail."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    try:
        for name, size in sizes.items():
            with open(folder / name, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as fault:
        shutil.rmtree(folder)
        what = f"has no room for {sum(sizes.values()) / _GIB:.2f} GiB of states ({fault.strerror})"
        raise IdgrError(what, "free its disk, give -o on another, or leave --keep-states out", where=folder) from None
    (folder / _MADE_OF).write_bytes(digest.encode())  # last: what has it is whole
