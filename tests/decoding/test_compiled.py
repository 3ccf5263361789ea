"""Searches through `torch.compile` give what they give without it, and compile for few sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from idgr.decoding import compiled_pass
from idgr.decoding.beam import BeamSearch, Ranking, SearchOptions
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError
from idgr.models import compiling
from idgr.models.compiling import power_bucket, width_bucket

from .oracle import EOS, random_ids, random_prompts, tiny_llama, tiny_t5


@pytest.fixture(autouse=True)
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own compiler takes a minute for a model; here sizes are filled up and nothing is compiled."""
    monkeypatch.setenv("IDGR_COMPILE_BACKEND", "none")


@pytest.fixture
def _traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before that compiler is done, some seconds for a model."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setenv("IDGR_COMPILE_BACKEND", "eager")


def compiled_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def assert_same(ours: list[Ranking], theirs: list[Ranking]) -> None:
    assert [one.items for one in ours] == [one.items for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        assert one.expansions == other.expansions


def model_of(arch: str) -> Any:
    return tiny_t5(3) if arch == "t5" else tiny_llama(2, num_attention_heads=4, num_key_value_heads=2)


@pytest.mark.parametrize("search", [BeamSearch, ExactSearch])
@pytest.mark.parametrize("normalize", ["full", "trie"])
@pytest.mark.parametrize("arch", ["t5", "causal"])
def test_lists_are_those_without_it(arch: str, normalize: str, search: Any) -> None:
    generator = np.random.default_rng(4)
    model, trie = model_of(arch), build_trie(random_ids(generator, 90, longest=8), EOS)
    prompts = random_prompts(generator, 7)
    excluded = [set(generator.integers(0, 90, size=3).tolist()) for _ in prompts]
    found = [
        search(model, trie, SearchOptions(5, 6, 0.0, normalize, compile=compile)).search(
            prompts, excluded, batch_size=3
        )
        for compile in (True, False)
    ]
    assert_same(*found)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("arch", ["t5", "causal"])
def test_batches_of_many_sizes_are_compiled_once_and_graphs_have_a_bound(arch: str) -> None:
    generator = np.random.default_rng(5)
    model, trie = model_of(arch), build_trie(random_ids(generator, 150, longest=9), EOS)
    search = BeamSearch(model, trie, SearchOptions(4, 4, compile=True))
    plain = BeamSearch(model, trie, SearchOptions(4, 4))
    for size in (7, 5, 8, 2, 6, 3, 4):
        prompts = random_prompts(generator, size)
        assert_same(search.search(prompts, batch_size=8), plain.search(prompts, batch_size=8))
    search.search(prompts, batch_size=1)
    assert compiled_graphs() == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    assert search.decoder.compiled is not None
    shapes = search.decoder.compiled.run.sizes
    users, tokens, slots, widths = (sorted(set(axis)) for axis in zip(*shapes, strict=True))
    assert set(users) <= {2, 4, 8}
    assert all(one == power_bucket(one, 8) for one in tokens)
    assert all(one == power_bucket(one, 64) for one in slots)
    assert widths == [8, 16] or len(widths) == 1
    assert len(shapes) <= 16


def test_beyond_the_bound_nothing_more_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_pass, "MOST_SIZES", 2)
    generator = np.random.default_rng(6)
    model, trie = tiny_t5(3), build_trie(random_ids(generator, 150, longest=9), EOS)
    prompts = random_prompts(generator, 20)
    search = BeamSearch(model, trie, SearchOptions(4, 4, compile=True))
    assert_same(search.search(prompts, batch_size=8), BeamSearch(model, trie, SearchOptions(4, 4)).search(prompts))
    assert search.decoder.compiled is not None
    assert len(search.decoder.compiled.run.sizes) == 2


@pytest.mark.usefixtures("_traced")
def test_another_model_is_not_taken_for_the_first() -> None:
    generator = np.random.default_rng(7)
    trie, prompts = build_trie(random_ids(generator, 60, longest=6), EOS), random_prompts(generator, 4)
    for model in (tiny_t5(1), tiny_t5(2)):
        searches = [BeamSearch(model, trie, SearchOptions(5, 6, compile=compile)) for compile in (True, False)]
        assert_same(*(search.search(prompts) for search in searches))


@pytest.mark.usefixtures("_traced")
def test_what_is_compiled_changes_none_of_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph would not see the change; here the compiler's first half looks for one."""
    monkeypatch.setenv("IDGR_COMPILE_BACKEND", "aot_eager")
    generator = np.random.default_rng(8)
    model = tiny_t5(0, num_layers=1, num_decoder_layers=1)
    trie, prompts = build_trie(random_ids(generator, 20, longest=4), EOS), random_prompts(generator, 2)
    searches = [BeamSearch(model, trie, SearchOptions(3, 3, compile=compile)) for compile in (True, False)]
    assert_same(*(search.search(prompts) for search in searches))
    assert torch._dynamo.utils.counters["aot_autograd"]["ok"] == 1


def test_what_cannot_be_compiled_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(compiling, "compile_options", lambda device: {"backend": broken})
    generator = np.random.default_rng(9)
    trie = build_trie(random_ids(generator, 20, longest=4), EOS)
    with pytest.raises(IdgrError, match=r"torch\.compile does not work here") as fault:
        BeamSearch(tiny_t5(0), trie, SearchOptions(3, 3, compile=True)).search(random_prompts(generator, 2))
    assert "\n" not in str(fault.value)
    assert "leave --compile out" in str(fault.value)


def test_buckets() -> None:
    assert [power_bucket(n) for n in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 4, 8, 1024]
    assert [power_bucket(n, 8) for n in (1, 8, 9)] == [8, 8, 16]
    assert [width_bucket(n) for n in (0, 1, 8, 9, 17, 33, 64, 65, 128, 129)] == [8, 8, 8, 16, 32, 64, 64, 128, 128, 192]
    assert len({width_bucket(n) for n in range(1, 513)}) == 11
