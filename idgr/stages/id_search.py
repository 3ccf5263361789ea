"""The generator that `idgr gen-ids` asks, and what it is shown."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from idgr.errors import UsageError
from idgr.formats.records import Item, read_sequences
from idgr.formats.run_info import hash_input
from idgr.ids.options import GenerationOptions

if TYPE_CHECKING:
    from idgr.models.backbone import Backbone


def check_neighbours(generator: str) -> None:
    """Raise `UsageError` where the generator is none that would be shown what is bought with an item."""
    from idgr.models.backbone import arch_of, is_taught

    given = f"--neighbours given with --model {generator}"
    if arch_of(generator) != "causal":
        raise UsageError(f"{given}, a T5", "leave --neighbours out, or give a causal language model")
    if is_taught(generator):
        raise UsageError(f"{given}, which was taught to write IDs of texts alone", "leave --neighbours out")


class IdSearch:
    """A catalogue, the generator that is asked for its IDs, and what that is shown; each is made once, when asked for.

    Args:
        generator: a folder, or a name on the hub.
        options: of the search.
        train: the sequences that tell what is bought with an item, for `neighbours`, which are so many.
    """

    def __init__(
        self,
        catalogue: list[Item],
        generator: str,
        options: GenerationOptions,
        *,
        device: str,
        train: str | None,
        neighbours: int,
    ) -> None:
        self.catalogue, self.generator, self.options = catalogue, generator, options
        self._device, self._train, self._neighbours = device, train, neighbours

    @cached_property
    def backbone(self) -> Backbone:
        """The generator on its device. Raises `IdgrError` where it is not there, or the memory is too small for it."""
        from idgr.models.backbone import arch_of, load_either
        from idgr.models.device import pick_device
        from idgr.models.memory import check_memory

        where = pick_device(self._device)
        # In single precision and, on the device, for close searches in double; a Llama's joined weights are copies.
        needed = 4 if where.type != "cpu" else 16 if arch_of(self.generator) == "causal" else 12
        check_memory(self.generator, needed)
        backbone = load_either(self.generator)
        return replace(backbone, model=backbone.model.to(where).eval())

    @cached_property
    def _every_beside(self) -> list[tuple[str, ...]] | None:
        """For each item the short texts of what is most often bought with it; None where they are not asked for."""
        if not self._neighbours:
            return None
        from idgr.ids.neighbours import short_texts

        place = {item.item_id: number for number, item in enumerate(self.catalogue)}
        sequences = [[place[item] for item in row.items] for row in read_sequences(str(self._train), place)]
        return short_texts([item.text for item in self.catalogue], sequences, self._neighbours)

    def beside(self, places: Iterable[int]) -> list[tuple[str, ...]] | None:
        """For the items at some places what the generator is shown beside them; None for nothing."""
        every = self._every_beside
        return None if every is None else [every[place] for place in places]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the candidates of the first attempt depend on, beside the item's text."""
        from idgr.models.backbone import TAUGHT, is_taught

        more: dict[str, Any] = TAUGHT if is_taught(self.generator) else {}
        if self.options.own_words:
            more = more | {"own_words": True}
        if self._every_beside is not None:
            more = more | {"beside": hashlib.sha256(orjson.dumps(self._every_beside)).hexdigest()}
        options = self.options
        return more | {
            "model": hash_input(self.generator),
            "beams": [options.beams, options.groups, options.length_penalty],
            "text": options.max_text_tokens,
            "first": [options.penalty_start, options.length_step],
            "no_repeat_ngram": options.no_repeat_ngram,
        }


def shard_files(given: Sequence[str]) -> list[str]:
    """The files of candidates that names and patterns tell, each once.

    Raises:
        UsageError: they tell none.
    """
    # A file is what it is called, whatever its name would match; and a Path globs no absolute pattern.
    found = ([one] if Path(one).is_file() else glob.glob(one) for one in given)  # noqa: PTH207
    paths = sorted({path for some in found for path in some})
    if given and not paths:
        raise UsageError(f"--assign {' '.join(given)} names no file", "give the files that --shard wrote")
    return paths
