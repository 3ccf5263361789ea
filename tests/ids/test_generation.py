"""Algorithm 1 with a generator: from texts to IDs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idgr.errors import IdgrError, UsageError
from idgr.formats.records import Item, ItemId
from idgr.ids.generation import first_candidates, generate_ids, summarize
from idgr.ids.options import GenerationOptions
from idgr.ids.spelling import can_spell, clean_id
from idgr.models.backbone import Backbone
from idgr.models.tokenizer import encode, train_tokenizer

TEXTS = [f"title: {colour} {thing}" for colour in ("red", "blue", "matte") for thing in ("polish", "dryer", "cream")]
CATALOGUE = [
    Item(f"i{n}", text)
    for n, text in enumerate(TEXTS + TEXTS[:4] + ["标题: 红色指甲油", "title: 🎉", "标题: 红色指甲油"])
]
OPTIONS = GenerationOptions(penalty_stop=0.3, max_length_rounds=2, batch_size=4)


def no_generator() -> Backbone:
    raise AssertionError("nothing is to be generated")


def test_ids_are_unique_clean_and_come_back_from_their_tokens(generator: Backbone) -> None:
    made = generate_ids(CATALOGUE, lambda: generator, generator.tokenizer, OPTIONS)
    texts = [record.id for record in made.ids]
    assert [record.item_id for record in made.ids] == [item.item_id for item in CATALOGUE]
    assert len({text.casefold() for text in texts}) == len(CATALOGUE)
    assert all(text and clean_id(text) == text for text in texts)
    assert all(can_spell(generator.tokenizer, texts))
    assert len({tuple(row) for row in encode(generator.tokenizer, texts)}) == len(CATALOGUE)
    assert made.n_searches >= len({item.text for item in CATALOGUE})


def test_the_result_is_that_of_item_by_item_whatever_the_batch(generator: Backbone) -> None:
    wanted = generate_ids(CATALOGUE, lambda: generator, generator.tokenizer, OPTIONS).ids
    for batch_size in (1, 5, 100):
        options = replace(OPTIONS, batch_size=batch_size)
        assert generate_ids(CATALOGUE, lambda: generator, generator.tokenizer, options).ids == wanted
    # An item's ID does not depend on what comes after it.
    assert generate_ids(CATALOGUE[:7], lambda: generator, generator.tokenizer, OPTIONS).ids == wanted[:7]


def test_rows_tell_the_attempt(generator: Backbone) -> None:
    made = generate_ids([Item(str(n), TEXTS[0]) for n in range(40)], lambda: generator, generator.tokenizer, OPTIONS)
    by_attempt = [record for record in made.ids if record.attempt is not None]
    assert any(record.attempt is None for record in made.ids)  # so many equal texts exhaust all attempts
    for record in by_attempt:
        limits = OPTIONS.limits(record.attempt or 0)
        assert (record.penalty, record.max_tokens) == (limits.penalty, limits.max_tokens)


def test_only_what_the_recommender_spells(generator: Backbone) -> None:
    recommender = train_tokenizer(["abc"], 300)
    recommender.backend_tokenizer.normalizer = None  # spells what it is given, byte by byte
    made = generate_ids(CATALOGUE, lambda: generator, recommender, OPTIONS)
    assert all(can_spell(recommender, [record.id for record in made.ids]))


def test_an_item_without_text_offers_its_key(generator: Backbone) -> None:
    items = [Item("B00-X1", ""), CATALOGUE[0], Item("b00 x1", ""), Item("🎉", "")]
    made = generate_ids(items, lambda: generator, generator.tokenizer, OPTIONS)
    assert made.ids[0] == ItemId("B00-X1", "b00 x1")
    assert made.ids[2] == ItemId("b00 x1", "b00 x1 2")
    assert made.ids[3] == ItemId("🎉", "item 1")
    assert made.ids[1].attempt is not None


def test_first_candidates_that_are_there_need_no_generator(generator: Backbone) -> None:
    wanted = generate_ids(CATALOGUE[:3], lambda: generator, generator.tokenizer, OPTIONS).ids
    assert [record.attempt for record in wanted] == [1, 1, 1]
    found = first_candidates([item.text for item in CATALOGUE[:3]], generator, OPTIONS)
    first = {item.item_id: texts for item, texts in zip(CATALOGUE, found, strict=False)}
    made = generate_ids(CATALOGUE[:3], no_generator, generator.tokenizer, OPTIONS, first=first)
    assert made.ids == wanted
    assert made.n_searches == 0


def test_without_numbers_exhaustion_is_an_error(generator: Backbone) -> None:
    items = [Item(str(n), TEXTS[0]) for n in range(40)]
    with pytest.raises(IdgrError, match="no free candidate"):
        generate_ids(items, lambda: generator, generator.tokenizer, replace(OPTIONS, exhausted="error"))


def test_more_beams_and_groups(generator: Backbone) -> None:
    options = replace(OPTIONS, beams=6, groups=3)
    assert (
        len({record.id for record in generate_ids(CATALOGUE, lambda: generator, generator.tokenizer, options).ids})
        == 16
    )


@pytest.mark.parametrize("options", [{"max_text_tokens": 1}, {"batch_size": 0}])
def test_options_out_of_range_name_the_flag(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="--" + next(iter(options)).replace("_", "-")):
        GenerationOptions(**options)


def test_summary(generator: Backbone) -> None:
    ids = [
        ItemId("a", "red", 0.1, 10, 1),
        ItemId("b", "red cream", 0.2, 20, 12),
        ItemId("c", "red 2"),
        ItemId("d", "x y", 0.2, 10, 2),
    ]
    figures = summarize(ids, generator.tokenizer, 10)
    assert (figures.items, figures.second_attempts, figures.longer, figures.without_attempt) == (4, 0.5, 0.25, 0.25)
    lengths = [len(row) for row in encode(generator.tokenizer, [record.id for record in ids])]
    assert (figures.mean_tokens, figures.max_tokens) == (sum(lengths) / 4, max(lengths))
