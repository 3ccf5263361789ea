"""Searches over a causal model equal a plain one over dictionaries and that of `transformers`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.decoding.beam import BeamSearch, SearchOptions, beam_search
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import build_trie

from .oracle import EOS, DictionaryTrie, plain_beam_search, random_ids, score_every_item, tiny_llama

MODELS = [
    tiny_llama(0, item_slots=9),
    tiny_llama(1),
    tiny_llama(2, item_slots=9, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
]


def histories(generator: np.random.Generator, ids: list[list[int]], users: int) -> list[list[int]]:
    """Prompts of up to five items, the first of none."""
    rows = [generator.integers(0, len(ids), size=generator.integers(0, 6)).tolist() for _ in range(users - 1)]
    return [[token for item in row for token in (EOS, *ids[item])] for row in [[], *rows]]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 60),
    beams=st.integers(1, 12),
    length_penalty=st.sampled_from([0.0, 1.0]),
    normalize=st.sampled_from(["full", "trie"]),
)
def test_equals_plain_beam_search(seed: int, items: int, beams: int, length_penalty: float, normalize: str) -> None:
    generator = np.random.default_rng(seed)
    model = MODELS[seed % len(MODELS)]
    ids = random_ids(generator, items, longest=8)
    prompts = histories(generator, ids, 3)
    excluded = [set(generator.integers(0, items, size=generator.integers(0, 6)).tolist()) for _ in prompts]
    options = SearchOptions(beams, beams, length_penalty, normalize)
    found = beam_search(model, build_trie(ids, EOS), prompts, options, excluded=excluded, batch_size=2)
    for ranking, prompt, barred in zip(found, prompts, excluded, strict=True):
        valid = [item for item in range(items) if item not in barred]
        wanted = plain_beam_search(
            model, ids, prompt, k=beams, beams=beams, length_penalty=length_penalty, normalize=normalize, valid=valid
        )
        assert ranking.items == [item for item, _ in wanted]
        np.testing.assert_allclose(ranking.scores, [score for _, score in wanted], atol=1e-4)


@pytest.mark.parametrize("normalize", ["full", "trie"])
@pytest.mark.parametrize("seed", range(3))
def test_exact_search_gives_the_best_items(seed: int, normalize: str) -> None:
    generator = np.random.default_rng(seed)
    ids = random_ids(generator, 50, longest=8)
    prompts = histories(generator, ids, 3)
    search = ExactSearch(MODELS[seed], build_trie(ids, EOS), SearchOptions(7, 7, normalize=normalize))
    for prompt, ranking in zip(prompts, search.search(prompts), strict=True):
        scores = score_every_item(MODELS[seed], ids, prompt, length_penalty=0.0, normalize=normalize)
        best = sorted(enumerate(scores), key=lambda pair: -pair[1])[:7]
        assert ranking.items == [item for item, _ in best]
        np.testing.assert_allclose(ranking.scores, [score for _, score in best], atol=1e-4)


def test_equals_transformers_generate() -> None:
    """Where places are counted through, a causal model's folder is one of `transformers`, and so are its answers."""
    generator, model = np.random.default_rng(4), MODELS[1]
    ids = random_ids(generator, 120, longest=8)
    trie, plain = build_trie(ids, EOS), DictionaryTrie(ids, range(len(ids)))
    item_of = {tuple(row): item for item, row in enumerate(ids)}
    prompts = histories(generator, ids, 5)
    found = beam_search(model, trie, prompts, SearchOptions(10, 10))
    for prompt, ranking in zip(prompts, found, strict=True):
        asked = [*prompt, EOS]
        start = len(asked)
        theirs = model.generate(
            input_ids=torch.tensor([asked]),
            attention_mask=torch.ones(1, len(asked), dtype=torch.long),
            num_beams=10,
            num_return_sequences=10,
            max_new_tokens=10,
            length_penalty=0.0,
            do_sample=False,
            early_stopping="never",
            return_dict_in_generate=True,
            output_scores=True,
            prefix_allowed_tokens_fn=lambda _, row, start=start: plain.children(row[start:].tolist()) or [0],
        )
        answers = [tuple(t for t in row[start:].tolist() if t not in (0, EOS)) for row in theirs.sequences]
        assert ranking.items == [item_of[answer] for answer in answers]
        np.testing.assert_allclose(ranking.scores, theirs.sequences_scores.tolist(), atol=1e-4)


def test_the_batch_size_does_not_matter() -> None:
    generator = np.random.default_rng(5)
    ids = random_ids(generator, 60, longest=8)
    prompts = histories(generator, ids, 9)
    search = BeamSearch(MODELS[0], build_trie(ids, EOS), SearchOptions(5, 5, normalize="trie"))
    alone, together = search.search(prompts, batch_size=1), search.search(prompts, batch_size=9)
    for one, other in zip(alone, together, strict=True):
        assert one.items == other.items
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
