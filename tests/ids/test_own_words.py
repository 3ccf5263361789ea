"""IDs of an item's own words: what may follow, and what a generator writes and learns under it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.errors import UsageError
from idgr.formats.records import Item
from idgr.ids.generation import generate_ids
from idgr.ids.keyphrase import words_of
from idgr.ids.options import GenerationOptions
from idgr.ids.own_words import outside, own_words
from idgr.models.backbone import Backbone, CausalPreset, new_causal_backbone
from idgr.models.tokenizer import decode, encode
from idgr.stages import alternate

from .conftest import TEXTS

OPTIONS = GenerationOptions(penalty_stop=0.3, max_length_rounds=2, batch_size=4, own_words=True)


@settings(max_examples=40, deadline=None)
@given(
    text=st.sampled_from([*TEXTS, "title: an ant and a banana band"]),
    choices=st.lists(st.integers(0, 1000), max_size=40),
)
def test_whatever_is_chosen_words_of_the_text_come_of_it(generator: Backbone, text: str, choices: list[int]) -> None:
    (words,) = own_words(generator, [text])
    eos = generator.tokenizer.eos_token_id
    tokens: list[int] = []
    for choice in choices:
        allowed = words.following(tokens)
        assert len(set(allowed)) == len(allowed) > 0
        token = allowed[choice % len(allowed)]
        if token == eos:
            (written,) = decode(generator.tokenizer, [tokens])
            assert set(written.split()) <= set(words_of(text))
            assert written
            break
        tokens.append(token)
        (written,) = decode(generator.tokenizer, [words.whole_words(tokens)])
        assert set(written.split()) <= set(words_of(text))


def test_every_word_can_be_written_and_a_strange_beginning_is_left(generator: Backbone) -> None:
    text = "title: an ant and a banana band"
    (words,) = own_words(generator, [text])
    (row,) = encode(generator.tokenizer, ["banana ant a band"])
    for place, token in enumerate([*row, generator.tokenizer.eos_token_id]):
        assert token in words.following(row[:place])
    (strange,) = encode(generator.tokenizer, ["zebra"])
    assert words.following(strange) == [*words.following([]), generator.tokenizer.eos_token_id]


def test_names_of_fields_are_no_words_and_a_text_without_words_is_free(generator: Backbone) -> None:
    titled, empty = own_words(generator, ["title: soap", "?!"])
    (title,) = encode(generator.tokenizer, ["title"])
    assert title[0] not in titled.following([])
    assert title[0] in empty.following([])


def test_generated_ids_hold_own_words_alone_whatever_the_batch(generator: Backbone) -> None:
    items = [Item(str(place), text) for place, text in enumerate(TEXTS)]
    made = generate_ids(items, lambda: generator, generator.tokenizer, OPTIONS).ids
    for item, record in zip(items, made, strict=True):
        assert set(record.id.split()) <= set(words_of(item.text))
    free = generate_ids(items, lambda: generator, generator.tokenizer, replace(OPTIONS, own_words=False)).ids
    assert not all(set(record.id.split()) <= set(words_of(item.text)) for item, record in zip(items, free, strict=True))
    for batch_size in (1, 100):
        options = replace(OPTIONS, batch_size=batch_size)
        assert generate_ids(items, lambda: generator, generator.tokenizer, options).ids == made


def test_items_of_few_words_still_get_ids(generator: Backbone) -> None:
    items = [Item(str(place), "title: soap") for place in range(12)]
    made = generate_ids(items, lambda: generator, generator.tokenizer, replace(OPTIONS, no_repeat_ngram=1)).ids
    assert len({record.id for record in made}) == len(items)


def test_what_is_added_leaves_the_allowed_tokens_as_they_are() -> None:
    added = outside([[1, 3], [0]], 4, torch.device("cpu"), torch.float32)
    assert (added[0, [1, 3]] == 0).all()
    assert added[1, 0] == 0
    assert (torch.randn(2, 4) + added).softmax(-1)[0, [0, 2]].tolist() == [0, 0]


def test_a_llama_is_refused(generator: Backbone) -> None:
    llama = new_causal_backbone(CausalPreset(16, 32, 1, 2, 400), generator.tokenizer, seed=0)
    with pytest.raises(UsageError, match="--own-words with a Llama"):
        own_words(llama, TEXTS)


def test_alternate_makes_ids_of_own_words_and_teaches_no_others() -> None:
    options = alternate.Options(data="data", gen="gen", output="run", rounds=2, own_words=True, dry_run=True)
    lines = [line for line in alternate.run(options) if line.startswith(("idgr gen-ids", "idgr train-gen"))]
    assert len(lines) == 3
    assert all("--own-words" in line for line in lines)
    with pytest.raises(UsageError, match="--own-words without --gen"):
        alternate.Options(data="data", ids="ids.jsonl", method="select", output="run", own_words=True)
