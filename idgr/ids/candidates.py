"""Candidate token sequences for many sources: batches for speed, and the same result whatever the batches.

Matrix products of differently shaped batches differ in their last bits, which could turn a close decision of a search.
So a search that was close is repeated in double precision, where the bits that differ do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.errors import IdgrError, UsageError
from idgr.ids.diverse_beam import Batch, Found, diverse_beam_search
from idgr.ids.options import BeamOptions
from idgr.ids.own_words import OwnWords
from idgr.ids.schedule import Limits
from idgr.models import llama, t5
from idgr.models.llama_cache import LlamaReader

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

Row = npt.NDArray[np.int32]

# In single precision, margins have been seen to be off by 1e-5 and scores by 3e-5, whatever the batch (T5-small).
CLOSE = 1e-4
_CLOSE_IN_DOUBLE = 1e-10
_KEPT_BYTES = 512 << 20


class Reader(Protocol):
    """A model in one precision, as far as it reads sources."""

    @property
    def device(self) -> torch.device: ...

    def read(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """What is kept of sources, [B, S, …], zero beyond a source's length, and the lengths [B]."""

    def batch(self, states: Tensor, lengths_B: Tensor, rows: Sequence[Row]) -> Batch:
        """Sources made ready for a search."""


@dataclass
class Candidates:
    """Searches for the candidates of sources, on one device.

    Args:
        model: a T5 or a Llama, on the device where it shall run.
        sources: the tokens of each source: EOS included, or the prompt that a Llama continues, of two tokens or more.
        options: the shape of the search.
        batch_size: sources in a batch.
        words: those that the candidates of each source are made of; None for any.
        ends: for a Llama, the tokens that end a continuation, the first of which stands for all.
        close: searches with a margin below this are repeated in double precision.

    Attributes:
        n_searches: how many searches were made.
        n_close: how many of them were repeated.
    """

    model: T5ForConditionalGeneration | LlamaForCausalLM
    sources: Sequence[Row]
    options: BeamOptions
    batch_size: int
    ends: Sequence[int] = ()
    words: Sequence[OwnWords] | None = None
    close: float = CLOSE
    n_searches: int = 0
    n_close: int = 0
    _states: dict[int, Tensor] = field(default_factory=dict)
    _kept_bytes: int = 0

    def __post_init__(self) -> None:
        most = (int(self.model.config.vocab_size) - max(0, len(self.ends) - 1) - 2) // 2
        if self.options.beams // self.options.groups > most:
            todo = f"give at most {most} a group, with a generator that has so few tokens"
            raise UsageError(f"--beams {self.options.beams} in --groups {self.options.groups}", todo)

    @cached_property
    def _single(self) -> Reader:
        return self._reader(torch.float32)

    @cached_property
    def _double(self) -> Reader:
        return self._reader(torch.double)

    def _reader(self, dtype: torch.dtype) -> Reader:
        model: Any = self.model
        if not self.ends:
            return t5.T5Reader(t5.read_weights(model, dtype))
        return LlamaReader(llama.read_weights(model, dtype), common_start(self.sources), self.ends)

    def search(
        self,
        wanted: Sequence[tuple[int, Limits]],
        watch: Callable[[Sequence[list[int]]], Iterable[list[int]]] = lambda batches: batches,
    ) -> list[list[list[int]]]:
        """The candidates of each (source, limits): token sequences without EOS, in the order of the groups.

        Args:
            watch: passes the batches on, and may show how far the work has come.

        Raises:
            IdgrError: the model's probabilities are not numbers.
        """
        found: list[Found | None] = [None] * len(wanted)
        for batch in watch(self._batches(wanted, range(len(wanted)))):
            self._fill(found, wanted, batch, self._single, self._encoded)
        close = [place for place, result in enumerate(found) if result is not None and result.margin < self.close]
        self.n_searches += len(wanted)
        self.n_close += len(close)
        for batch in watch(self._batches(wanted, close)):
            self._fill(found, wanted, batch, self._double, self._encoded_in_double)
        for place in close:
            result = found[place]
            if result is not None and result.margin < _CLOSE_IN_DOUBLE:
                self._fill(found, wanted, [place], self._double, self._encoded_in_double)
        rows = [self._checked(result) for result in found]
        if self.words is None:
            return rows
        words = [self.words[source] for source, _ in wanted]
        return [[one.whole_words(row) for row in mine] for one, mine in zip(words, rows, strict=True)]

    def _batches(self, wanted: Sequence[tuple[int, Limits]], places: Iterable[int]) -> list[list[int]]:
        """Places in `wanted`, in batches of like lengths: the longest first, so that a lack of memory shows at once."""
        order = sorted(
            places,
            key=lambda place: (wanted[place][1].max_tokens, len(self.sources[wanted[place][0]])),
            reverse=True,
        )
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _fill(
        self,
        found: list[Found | None],
        wanted: Sequence[tuple[int, Limits]],
        batch: list[int],
        reader: Reader,
        encoded: Callable[[list[int]], tuple[Tensor, Tensor]],
    ) -> None:
        sources, limits = zip(*(wanted[place] for place in batch), strict=True)
        results: list[Found] | None = None
        try:
            with torch.inference_mode():
                rows = [self.sources[source] for source in sources]
                words = None if self.words is None else [self.words[source] for source in sources]
                read = reader.batch(*encoded(list(sources)), rows)
                results = diverse_beam_search(read, limits, self.options, words)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        if results is None:  # not within `except`, whose traceback would keep the batch's memory
            torch.cuda.empty_cache()
            middle = len(batch) // 2
            self._fill(found, wanted, batch[:middle], reader, encoded)
            self._fill(found, wanted, batch[middle:], reader, encoded)
            return
        for place, result in zip(batch, results, strict=True):
            found[place] = result

    def _encoded(self, sources: list[int]) -> tuple[Tensor, Tensor]:
        """What the model makes of sources, each of which is read once as far as memory for keeping goes."""
        new = [source for source in dict.fromkeys(sources) if source not in self._states]
        fresh: dict[int, Tensor] = {}
        if new:
            states_BS, lengths_B = self._single.read([self.sources[source] for source in new])
            for source, states_S, length in zip(new, states_BS, lengths_B.tolist(), strict=True):
                fresh[source] = states_S[:length]
            if new == sources:
                self._keep(fresh)
                return states_BS, lengths_B
        states = [fresh[source] if source in fresh else self._states[source] for source in sources]
        self._keep(fresh)
        lengths_B = torch.tensor([len(rows) for rows in states], device=self._single.device)
        return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), lengths_B

    def _keep(self, fresh: dict[int, Tensor]) -> None:
        for source, states_S in fresh.items():
            size = states_S.numel() * states_S.element_size()
            if self._kept_bytes + size <= _KEPT_BYTES:
                self._states[source] = states_S.clone()
                self._kept_bytes += size

    def _encoded_in_double(self, sources: list[int]) -> tuple[Tensor, Tensor]:
        return self._double.read([self.sources[source] for source in sources])

    @staticmethod
    def _checked(result: Found | None) -> list[list[int]]:
        if result is None or not all(math.isfinite(score) for score in result.scores):
            raise IdgrError("the ID generator's probabilities are not numbers", "train or fetch the generator again")
        return result.tokens


def common_start(rows: Sequence[Row]) -> Row:
    """What all rows begin with; the last token of each is left out."""
    shortest = min(map(len, rows)) - 1
    first = rows[0][:shortest]
    for row in rows:
        first = first[: len(first) if (same := row[: len(first)] == first).all() else int(same.argmin())]
    return first
