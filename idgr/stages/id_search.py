"""The generator that `idgr gen-ids` asks, and what it is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
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


def load_generator(generator: str, device: str) -> Backbone:
    """The generator on its device. Raises `IdgrError` where it is not there, or the memory is too small for it."""
    from idgr.models.backbone import arch_of, load_either
    from idgr.models.device import pick_device
    from idgr.models.memory import check_memory

    where = pick_device(device)
    # In single precision and, on the device, for close searches in double; a Llama's joined weights are copies.
    needed = 4 if where.type != "cpu" else 16 if arch_of(generator) == "causal" else 12
    check_memory(generator, needed)
    backbone = load_either(generator)
    return replace(backbone, model=backbone.model.to(where).eval())


def beside_items(catalogue: Sequence[Item], train: str | None, neighbours: int) -> list[tuple[str, ...]] | None:
    """For each item the short texts of what is most often bought with it; None where they are not asked for."""
    if not neighbours:
        return None
    from idgr.ids.neighbours import short_texts

    place = {item.item_id: number for number, item in enumerate(catalogue)}
    sequences = [[place[item] for item in row.items] for row in read_sequences(str(train), place)]
    return short_texts([item.text for item in catalogue], sequences, neighbours)


def candidate_settings(
    generator: str, options: GenerationOptions, beside: Sequence[tuple[str, ...]] | None
) -> dict[str, Any]:
    """What the candidates of the first attempt depend on, beside the item's text."""
    from idgr.models.backbone import TAUGHT, is_taught

    more: dict[str, Any] = TAUGHT if is_taught(generator) else {}
    if beside is not None:
        more = more | {"beside": hashlib.sha256(orjson.dumps(beside)).hexdigest()}
    return more | {
        "model": hash_input(generator),
        "beams": [options.beams, options.groups, options.length_penalty],
        "text": options.max_text_tokens,
        "first": [options.penalty_start, options.length_step],
        "no_repeat_ngram": options.no_repeat_ngram,
    }
