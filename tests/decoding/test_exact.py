"""Exact search finds what scoring every item finds, and looks at fewer nodes than there are where scores differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.decoding.beam import SearchOptions
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import build_trie

from .oracle import EOS, random_ids, random_prompts, score_every_item, tiny_t5

MODEL = tiny_t5(3)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 150),
    k=st.integers(1, 15),
    length_penalty=st.sampled_from([0.0, 1.0, -0.5]),
    normalize=st.sampled_from(["full", "trie"]),
)
def test_equals_scoring_every_item(seed: int, items: int, k: int, length_penalty: float, normalize: str) -> None:
    generator = np.random.default_rng(seed)
    ids, prompts = random_ids(generator, items, longest=8), random_prompts(generator, 1)
    barred = set(generator.integers(0, items, size=3).tolist())
    allowed = generator.random(items) < 0.8 if seed % 2 else None
    search = ExactSearch(MODEL, build_trie(ids, EOS), SearchOptions(k, k, length_penalty, normalize), allowed=allowed)
    (found,) = search.search(prompts, [barred])
    scores = score_every_item(MODEL, ids, prompts[0], length_penalty=length_penalty, normalize=normalize)
    valid = [item for item in range(items) if item not in barred and (allowed is None or allowed[item])]
    wanted = sorted(valid, key=lambda item: -scores[item])[:k]
    assert found.items == wanted
    np.testing.assert_allclose(found.scores, [scores[item] for item in wanted], atol=1e-4)


@pytest.mark.parametrize("normalize", ["full", "trie"])
def test_equals_scoring_every_item_of_two_thousand(normalize: str) -> None:
    generator = np.random.default_rng(4)
    ids, (prompt,) = random_ids(generator, 2000, longest=8), random_prompts(generator, 1)
    (found,) = ExactSearch(MODEL, build_trie(ids, EOS), SearchOptions(20, 20, 0.0, normalize)).search([prompt])
    scores = np.array(score_every_item(MODEL, ids, prompt, length_penalty=0.0, normalize=normalize))
    best = np.argsort(-scores)[:20]
    assert found.items == best.tolist()
    np.testing.assert_allclose(found.scores, scores[best], atol=1e-4)


@pytest.mark.parametrize("normalize", ["full", "trie"])
def test_the_proof_needs_fewer_nodes_than_the_tree_has(normalize: str) -> None:
    generator = np.random.default_rng(0)
    trie, prompts = build_trie(random_ids(generator, 2000, longest=8), EOS), random_prompts(generator, 2)
    inner = int((trie.token != EOS).sum())
    for found in ExactSearch(MODEL, trie, SearchOptions(3, 3, 0.0, normalize)).search(prompts):
        assert found.expansions is not None
        assert 0 < found.expansions < inner / 4
