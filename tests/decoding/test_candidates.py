"""Candidates of beam search and of a second score, each by both scores: equal to scoring every item by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.decoding import candidates
from idgr.decoding.beam import BeamSearch, SearchOptions
from idgr.decoding.candidates import CandidateSearch
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError

from .oracle import EOS, random_ids, score_every_item
from .test_causal import MODELS, histories


@pytest.fixture(params=[1, 64, 10**9], scope="module", autouse=True)
def _wide(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nodes are wide always, sometimes and never."""
    usual, candidates._WIDE = candidates._WIDE, request.param
    yield
    candidates._WIDE = usual


@settings(derandomize=True, deadline=None, max_examples=16)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 60),
    beams=st.integers(1, 12),
    length_penalty=st.sampled_from([0.0, 1.0]),
    normalize=st.sampled_from(["full", "trie"]),
    few=st.booleans(),
)
def test_equals_scoring_every_item(
    seed: int, items: int, beams: int, length_penalty: float, normalize: str, few: bool
) -> None:
    generator = np.random.default_rng(seed)
    model = MODELS[seed % len(MODELS)]
    ids = random_ids(generator, items, longest=6)  # with the chain and an EOS, as long as the models' items may be
    if seed % 4 == 0:  # a chain of forced tokens at the root
        ids = [[3, 4, *row] for row in ids]
    prompts = histories(generator, ids, 3)
    excluded = [set(generator.integers(0, items, size=generator.integers(0, 6)).tolist()) for _ in prompts]
    allowed = generator.random(items) < 0.5 if few else None
    vectors_ID = torch.from_numpy(generator.normal(size=(items, 16)).astype(np.float32))
    trie = build_trie(ids, EOS)
    options = SearchOptions(beams, beams, length_penalty, normalize)
    search = BeamSearch(model, trie, options, allowed=allowed)
    both = CandidateSearch(search, trie, lambda state_BD, prompts: (state_BD @ vectors_ID.T).log_softmax(1))
    found = both.candidates(prompts, excluded, batch_size=2)
    alone = search.search(prompts, excluded, batch_size=2)
    assert search.options is options
    for one, plain, prompt, barred in zip(found, alone, prompts, excluded, strict=True):
        first = score_every_item(model, ids, prompt, length_penalty=length_penalty, normalize=normalize)
        state_D = model.model(torch.tensor([[*prompt, EOS]]), position_ids=places(model, [*prompt, EOS]))[0][0, -1]
        second = (vectors_ID @ state_D).log_softmax(0).tolist()
        may = [item for item in range(items) if item not in barred and (allowed is None or allowed[item])]
        by_second = sorted(may, key=lambda item: -second[item])[:beams]
        assert set(one.items.tolist()) == {*plain.items, *by_second}
        np.testing.assert_allclose(one.first, [first[item] for item in one.items], atol=1e-4)
        np.testing.assert_allclose(one.second, [second[item] for item in one.items], atol=1e-4)
        assert one.best(0.0, beams) == plain, "no weight: what the beams find, to the last bit"
        score = {item: first[item] + 0.7 * second[item] for item in one.items.tolist()}
        best = one.best(0.7, 3)
        assert best.items == sorted(score, key=lambda item: -score[item])[:3]
        np.testing.assert_allclose(best.scores, [score[item] for item in best.items], atol=1e-4)


def places(model: object, tokens: list[int]) -> torch.Tensor:
    from .oracle import plain_places

    return torch.tensor([plain_places(tokens, model.config.item_slots)])  # type: ignore[attr-defined]


def test_the_same_whatever_the_batch_and_for_nobody() -> None:
    generator = np.random.default_rng(5)
    ids = random_ids(generator, 60, longest=8)
    prompts = histories(generator, ids, 7)
    trie = build_trie(ids, EOS)
    vectors_ID = torch.from_numpy(generator.normal(size=(60, 16)).astype(np.float32))
    search = BeamSearch(MODELS[0], trie, SearchOptions(4, 6))
    both = CandidateSearch(search, trie, lambda state_BD, prompts: (state_BD @ vectors_ID.T).log_softmax(1))
    told: list[int] = []
    together, alone = (both.candidates(prompts, batch_size=size, advance=told.append) for size in (7, 1))
    assert told == [7] + 7 * [1]
    for one, other in zip(together, alone, strict=True):
        assert one.items.tolist() == other.items.tolist()
        np.testing.assert_allclose(one.first, other.first, atol=1e-5)
    assert both.candidates([]) == []


def test_a_second_score_that_is_no_number_is_told() -> None:
    ids = random_ids(np.random.default_rng(5), 20)
    trie = build_trie(ids, EOS)
    search = BeamSearch(MODELS[0], trie, SearchOptions(2, 3))
    both = CandidateSearch(search, trie, lambda state_BD, prompts: torch.full((len(state_BD), 20), torch.nan))
    with pytest.raises(IdgrError, match="scores are not numbers"):
        both.candidates([[EOS, 4]])
