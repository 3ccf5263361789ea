"""From the texts of a catalogue to an ID for each item, with a generator and Algorithm 1.

Puts together candidates, spelling and assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idgr.errors import UsageError
from idgr.formats.records import Item, ItemId
from idgr.ids.assignment import Assigned, assign
from idgr.ids.candidates import Candidates
from idgr.ids.causal_prompts import causal_prompts, end_tokens
from idgr.ids.options import GenerationOptions
from idgr.ids.own_words import own_words
from idgr.ids.schedule import Schedule
from idgr.ids.spelling import can_spell, clean_id
from idgr.models.tokenizer import decode, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idgr.models.backbone import Backbone

Watch = Callable[[Sequence[list[int]]], Iterable[list[int]]]
_Shown = tuple[str, tuple[str, ...]]  # an item's text, and short ones of what is bought with it


def _unwatched(batches: Sequence[list[int]]) -> Iterable[list[int]]:
    return batches


@dataclass(frozen=True)
class Generated:
    """The IDs of a catalogue, in its order, and how many searches they took, of which so many were close."""

    ids: list[ItemId]
    n_searches: int
    n_close: int


def generate_ids(
    items: Sequence[Item],
    generator: Callable[[], Backbone],
    recommender: PreTrainedTokenizerBase,
    options: GenerationOptions,
    *,
    first: Mapping[str, list[str]] | None = None,
    taken: Iterable[str] = (),
    watch: Watch = _unwatched,
    beside: Sequence[tuple[str, ...]] | None = None,
) -> Generated:
    """Algorithm 1: IDs that are unique, also in case, and that the recommender's tokenizer spells.

    Args:
        items: the catalogue, in the order in which items choose. An item without text offers its key as ID.
        generator: gives the ID generator, a T5 or a Llama, on the device where it shall run; called only if needed.
        recommender: the tokenizer that is to read the IDs.
        first: the candidates of each item's first attempt, by key, where they are there already.
        taken: IDs that other items have already.
        watch: passes on batches of work, and may show how far it has come.
        beside: for each item, what else a Llama that was not taught to write IDs is shown (`causal_prompts`).

    Raises:
        IdgrError: an item finds no ID, or the model is broken.
    """
    # Items that are shown alike share a source: their candidates are the same. One without text has one of its own.
    places: dict[_Shown, int] = {}
    sources = [
        places.setdefault((item.text, short) if item.text else (f"\0{item.item_id}", ()), len(places))
        for item, short in zip(items, beside or [()] * len(items), strict=True)
    ]
    shown = list(places)
    ready: dict[int, list[str]] = {}
    keys: dict[int, str] = {}
    for item, source in zip(items, sources, strict=True):
        if not item.text:
            keys[source] = clean_id(item.item_id.lower())
        elif first is not None:
            ready[source] = first[item.item_id]

    search: Candidates | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    lower = False

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        nonlocal search, tokenizer, lower
        answers = {
            (source, attempt): [keys[source]] if source in keys else ready[source]
            for source, attempt in wanted
            if source in keys or (attempt == 1 and source in ready)
        }
        asked = [pair for pair in wanted if pair not in answers]
        if asked:
            if search is None or tokenizer is None:
                backbone = generator()
                lower = _is_asked(backbone)
                search, tokenizer = _candidates(backbone, shown, options), backbone.tokenizer
            found = _candidate_texts(search, tokenizer, options, asked, watch, lower=lower)
            answers.update(zip(asked, found, strict=True))
        offered = [answers[pair] for pair in wanted]
        right = iter(can_spell(recommender, [text for row in offered for text in row]))
        return [[text for text in row if next(right)] for row in offered]

    def spelled(ids: Sequence[str]) -> list[bool]:
        return can_spell(recommender, ids)

    numbers = options.exhausted == "number"
    chosen = assign(sources, propose, options.n_attempts, spelled, numbers=numbers, taken=taken)
    ids = [
        ItemId(item.item_id, choice.text) if source in keys else _record(item, choice, options)
        for item, source, choice in zip(items, sources, chosen, strict=True)
    ]
    return Generated(ids, search.n_searches if search else 0, search.n_close if search else 0)


def first_candidates(
    texts: Sequence[str],
    backbone: Backbone,
    options: GenerationOptions,
    watch: Watch = _unwatched,
    beside: Sequence[tuple[str, ...]] | None = None,
) -> list[list[str]]:
    """What `generate_ids` would look at first for each text: the candidates of attempt 1, in order of preference."""
    places: dict[_Shown, int] = {}
    shown = zip(texts, beside or [()] * len(texts), strict=True)
    sources = [places.setdefault(one, len(places)) for one in shown]
    search = _candidates(backbone, list(places), options)
    wanted = [(source, 1) for source in places.values()]
    found = _candidate_texts(search, backbone.tokenizer, options, wanted, watch, lower=_is_asked(backbone))
    return [found[source] for source in sources]


def _is_asked(backbone: Backbone) -> bool:
    """Whether a generator is asked in words, which was not taught to write IDs."""
    return backbone.arch == "causal" and not backbone.taught


def _candidates(backbone: Backbone, shown: Sequence[_Shown], options: GenerationOptions) -> Candidates:
    texts = [text for text, _ in shown]
    words = own_words(backbone, texts) if options.own_words else None
    if backbone.arch == "causal":
        beside = [short for _, short in shown]
        prompts = causal_prompts(backbone.tokenizer, texts, options.max_text_tokens, beside, taught=backbone.taught)
        _check_room(backbone, max(map(len, prompts)), options)
        ends = end_tokens(backbone.tokenizer)
        return Candidates(backbone.model, prompts, options, options.batch_size, ends)
    rows = encode(backbone.tokenizer, texts, max_tokens=options.max_text_tokens - 1)
    eos = backbone.tokenizer.eos_token_id
    sources = [np.array([*row, eos], dtype=np.int32) for row in rows]
    return Candidates(backbone.model, sources, options, options.batch_size, words=words)


def _check_room(backbone: Backbone, longest: int, options: GenerationOptions) -> None:
    room = int(backbone.model.config.max_position_embeddings) - options.length_step * options.max_length_rounds
    if longest > room:
        raise UsageError(
            f"--max-text-tokens {options.max_text_tokens} makes a prompt of {longest} tokens, of which the generator "
            f"reads {max(0, room)} with an ID behind them",
            "give fewer",
        )


def _candidate_texts(
    search: Candidates,
    tokenizer: PreTrainedTokenizerBase,
    schedule: Schedule,
    wanted: Sequence[tuple[int, int]],
    watch: Watch,
    *,
    lower: bool,
) -> list[list[str]]:
    """For each (source, attempt) its different candidates as the words of their text, none empty, in group order.

    Args:
        lower: whether they are brought to lower case, as those of a model that was not taught to write IDs.
    """
    written = str.lower if lower else str
    found = search.search([(source, schedule.limits(attempt)) for source, attempt in wanted], watch)
    texts = iter(decode(tokenizer, [row for rows in found for row in rows]))
    cleaned = ([clean_id(written(next(texts))) for _ in rows] for rows in found)
    return [list(dict.fromkeys(text for text in row if text)) for row in cleaned]


def _record(item: Item, choice: Assigned, schedule: Schedule) -> ItemId:
    if choice.attempt is None:
        return ItemId(item.item_id, choice.text)
    limits = schedule.limits(choice.attempt)
    return ItemId(item.item_id, choice.text, limits.penalty, limits.max_tokens, choice.attempt)


@dataclass(frozen=True)
class IdSummary:
    """What is told of a set of IDs.

    Attributes:
        items: how many.
        second_attempts: the share that needed more than one attempt.
        longer: the share that needed more than the first range of lengths.
        without_attempt: the share that no attempt gave: numbered IDs, and keys of items without text.
        mean_tokens, max_tokens: in tokens of the recommender, without EOS.
    """

    items: int
    second_attempts: float
    longer: float
    without_attempt: float
    mean_tokens: float
    max_tokens: int


def summarize(ids: Sequence[ItemId], recommender: PreTrainedTokenizerBase, length_step: int) -> IdSummary:
    """The figures by which the paper describes ID generation, for these IDs."""
    lengths = np.array([len(row) for row in encode(recommender, [record.id for record in ids])])
    return IdSummary(
        items=len(ids),
        second_attempts=sum((record.attempt or 0) > 1 for record in ids) / len(ids),
        longer=sum((record.max_tokens or 0) > length_step for record in ids) / len(ids),
        without_attempt=sum(record.attempt is None for record in ids) / len(ids),
        mean_tokens=float(lengths.mean()),
        max_tokens=int(lengths.max()),
    )
