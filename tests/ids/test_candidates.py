"""Candidates in batches: the same whatever the batches, and with little memory."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from idgr.errors import IdgrError
from idgr.ids import candidates
from idgr.ids.candidates import Candidates
from idgr.ids.diverse_beam import diverse_beam_search
from idgr.ids.options import BeamOptions
from idgr.ids.schedule import Limits
from idgr.models.t5 import T5Batch, encode, read_weights

RNG = np.random.default_rng(0)
SOURCES = [np.append(RNG.integers(2, 40, RNG.integers(1, 12)), 1).astype(np.int32) for _ in range(15)]
WANTED = [(source, Limits(penalty, low, low + 9)) for source in range(15) for penalty, low in [(0.1, 1), (0.7, 5)]]


@pytest.fixture(scope="module")
def model(make_golden: ModuleType) -> Any:
    return make_golden.build_model("tied")


@pytest.fixture(scope="module")
def twins(make_golden: ModuleType) -> Any:
    """A model with pairs of tokens that it can hardly tell apart, so that many decisions are close."""
    model = make_golden.build_model("tied")
    with torch.no_grad():
        for token in range(2, 40, 2):
            model.shared.weight[token + 1] = model.shared.weight[token] * (1 + 1e-6)
    return model


def test_the_batch_size_does_not_matter_even_where_decisions_are_close(twins: Any) -> None:
    made = [Candidates(twins, SOURCES, BeamOptions(), size) for size in (1, 7, 30)]
    found = [search.search(WANTED) for search in made]
    assert found[0] == found[1] == found[2]
    assert made[0].n_searches == len(WANTED)
    assert made[0].n_close > 0


def test_a_close_search_is_made_in_double_precision(twins: Any) -> None:
    search = Candidates(twins, SOURCES, BeamOptions(), 8, close=torch.inf)
    double = read_weights(twins, torch.double)
    found = search.search(WANTED[:10])
    assert search.n_close == 10
    for (source, limits), tokens in zip(WANTED[:10], found, strict=True):
        with torch.inference_mode():
            batch = T5Batch(double, *encode(double, [SOURCES[source]]))
            alone = diverse_beam_search(batch, [limits], BeamOptions())[0]
        assert tokens == alone.tokens


def test_a_source_is_encoded_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def counted(t5: Any, rows: list[Any]) -> Any:
        encoded.extend(len(row) for row in rows)
        return encode(t5, rows)

    monkeypatch.setattr("idgr.models.t5.encode", counted)
    search = Candidates(model, SOURCES, BeamOptions(), 16, close=0.0)
    first = search.search(WANTED)
    again = search.search(WANTED)
    assert len(encoded) == len(SOURCES)
    assert first == again


def test_too_little_memory_halves_the_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Candidates(model, SOURCES, BeamOptions(), 30).search(WANTED)
    sizes: list[int] = []

    def cramped(batch: Any, limits: Any, options: Any, words: Any) -> Any:
        sizes.append(len(limits))
        if len(limits) > 10:
            raise torch.OutOfMemoryError("no memory left")
        return diverse_beam_search(batch, limits, options, words)

    monkeypatch.setattr(candidates, "diverse_beam_search", cramped)
    assert Candidates(model, SOURCES, BeamOptions(), 30).search(WANTED) == wanted
    assert sizes[:4] == [30, 15, 7, 8]


def test_a_model_that_gives_no_numbers_is_an_error(make_golden: ModuleType) -> None:
    broken = make_golden.build_model("tied")
    with torch.no_grad():
        broken.shared.weight[5] = torch.nan
    with pytest.raises(IdgrError, match="not numbers"):
        Candidates(broken, SOURCES, BeamOptions(), 8).search(WANTED[:3])
