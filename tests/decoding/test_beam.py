"""Beam search equals a plain one over dictionaries and that of `transformers`, and stays inside the catalogue."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.decoding import decoder as decoder_module
from idgr.decoding.beam import BeamSearch, Ranking, SearchOptions, beam_search
from idgr.decoding.decoder import Decoder
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError, UsageError

from .oracle import (
    EOS,
    START,
    DictionaryTrie,
    plain_beam_search,
    random_ids,
    random_prompts,
    score_every_item,
    tiny_llama,
    tiny_t5,
)

SHAPES: list[dict[str, Any]] = [
    {},
    {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    {"num_layers": 1, "d_kv": 4, "num_heads": 3},
]
MODELS = [tiny_t5(seed, **shape) for seed, shape in enumerate(SHAPES)]


def assert_same(found: Ranking, wanted: list[tuple[int, float]]) -> None:
    assert found.items == [item for item, _ in wanted]
    np.testing.assert_allclose(found.scores, [score for _, score in wanted], atol=1e-4)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 120),
    beams=st.integers(1, 12),
    length_penalty=st.sampled_from([0.0, 0.0, 1.0, -0.5]),
    normalize=st.sampled_from(["full", "trie"]),
)
def test_equals_plain_beam_search(seed: int, items: int, beams: int, length_penalty: float, normalize: str) -> None:
    generator = np.random.default_rng(seed)
    model = MODELS[seed % len(MODELS)]
    ids = random_ids(generator, items, longest=8)
    prompts = random_prompts(generator, 3)
    excluded = [set(generator.integers(0, items, size=generator.integers(0, 6)).tolist()) for _ in prompts]
    allowed = generator.random(items) < 0.7 if seed % 2 else None
    options = SearchOptions(int(generator.integers(1, beams + 1)), beams, length_penalty, normalize)
    found = beam_search(model, build_trie(ids, EOS), prompts, options, excluded=excluded, allowed=allowed, batch_size=2)
    for ranking, prompt, barred in zip(found, prompts, excluded, strict=True):
        valid = [item for item in range(items) if item not in barred and (allowed is None or allowed[item])]
        wanted = plain_beam_search(
            model,
            ids,
            prompt,
            k=options.k,
            beams=beams,
            length_penalty=length_penalty,
            normalize=normalize,
            valid=valid,
        )
        assert_same(ranking, wanted)
        assert set(ranking.items) <= set(valid)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 40),
    more=st.integers(0, 20),
    length_penalty=st.sampled_from([0.0, 1.0]),
    normalize=st.sampled_from(["full", "trie"]),
)
def test_as_many_beams_as_items_find_the_best(
    seed: int, items: int, more: int, length_penalty: float, normalize: str
) -> None:
    generator = np.random.default_rng(seed)
    model = MODELS[seed % len(MODELS)]
    ids, prompts = random_ids(generator, items, longest=8), random_prompts(generator, 2)
    options = SearchOptions(items + more, items + more, length_penalty, normalize)
    for prompt, ranking in zip(prompts, beam_search(model, build_trie(ids, EOS), prompts, options), strict=True):
        scores = score_every_item(model, ids, prompt, length_penalty=length_penalty, normalize=normalize)
        assert_same(ranking, sorted(enumerate(scores), key=lambda pair: -pair[1]))


@pytest.mark.parametrize("normalize", ["full", "trie"])
def test_settled_users_are_scored_in_one_pass(normalize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes that share a long stem compete until it parts; what follows costs one pass, however long it is."""
    passes: list[int] = []
    extend = Decoder.extend

    def counted(self: Decoder, cache: Any, token_BQ: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(token_BQ.shape[1])
        return extend(self, cache, token_BQ, *rest)

    monkeypatch.setattr(Decoder, "extend", counted)
    ids = [[first, *([9] * 3), last, *([11] * 4)] for first in (3, 4, 5) for last in (6, 7)]
    beam_search(MODELS[0], build_trie(ids, EOS), [[4, EOS]], SearchOptions(2, 2, normalize=normalize))
    # The root; two prefixes with two items each, to where these part, in four steps or, where forced tokens cost
    # nothing, as one block; then two items are left for two beams, whose last tokens cost one pass or none.
    assert len(passes) == (6 if normalize == "full" else 2)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 0.6, -0.3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_transformers_generate(seed: int, length_penalty: float) -> None:
    generator = np.random.default_rng(seed)
    model = MODELS[seed]
    ids = random_ids(generator, 150, longest=8)
    trie, plain = build_trie(ids, EOS), DictionaryTrie(ids, range(len(ids)))
    item_of = {tuple(row): item for item, row in enumerate(ids)}
    prompts = random_prompts(generator, 4)
    found = beam_search(model, trie, prompts, SearchOptions(10, 10, length_penalty))
    for prompt, ranking in zip(prompts, found, strict=True):
        theirs = model.generate(
            input_ids=torch.tensor([prompt]),
            num_beams=10,
            num_return_sequences=10,
            do_sample=False,
            length_penalty=length_penalty,
            early_stopping="never",
            max_new_tokens=trie.depth,
            prefix_allowed_tokens_fn=lambda _, tokens: plain.children(tokens.tolist()[1:]) or [START],
            return_dict_in_generate=True,
            output_scores=True,
        )
        paths = [row[1 : row.index(EOS)] for row in theirs.sequences.tolist()]
        wanted = [item_of[tuple(path)] for path in paths]
        assert_same(ranking, list(zip(wanted, theirs.sequences_scores.tolist(), strict=True)))


@settings(derandomize=True, deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), batch_size=st.integers(2, 5), normalize=st.sampled_from(["full", "trie"]))
def test_the_batch_changes_nothing(seed: int, batch_size: int, normalize: str) -> None:
    generator = np.random.default_rng(seed)
    trie, prompts = build_trie(random_ids(generator, 60), EOS), random_prompts(generator, 5)
    options = SearchOptions(5, 8, normalize=normalize)
    alone = beam_search(MODELS[0], trie, prompts, options, batch_size=1)
    together = beam_search(MODELS[0], trie, prompts, options, batch_size=batch_size)
    for one, other in zip(alone, together, strict=True):
        assert one.items == other.items
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_repeats_bit_for_bit() -> None:
    generator = np.random.default_rng(5)
    trie, prompts = build_trie(random_ids(generator, 80), EOS), random_prompts(generator, 6)
    assert beam_search(MODELS[1], trie, prompts) == beam_search(MODELS[1], trie, prompts)


@pytest.mark.parametrize("normalize", ["full", "trie"])
def test_fewer_valid_items_than_beams_give_fewer_results(normalize: str) -> None:
    ids = [[5, 6], [5, 7], [8], [8, 9, 10]]
    prompts = [[4, EOS], [6, 7, EOS]]
    options = SearchOptions(10, 20, normalize=normalize)
    none_left, all_left = beam_search(MODELS[0], build_trie(ids, EOS), prompts, options, excluded=[{0, 1, 2, 3}, set()])
    assert none_left == Ranking([], [])
    assert sorted(all_left.items) == [0, 1, 2, 3]
    assert all_left.scores == sorted(all_left.scores, reverse=True)


def test_equal_scores_are_in_the_order_of_the_tokens() -> None:
    model = tiny_t5(0)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    ids = [[9, 3], [5, 3], [7, 3], [3, 3], [6, 3]]
    for normalize in ("full", "trie"):
        for ranking in beam_search(model, build_trie(ids, EOS), [[4, EOS]], SearchOptions(3, 3, normalize=normalize)):
            assert ranking.items == [3, 1, 4]


def test_shapes_without_users_or_with_one_item() -> None:
    trie = build_trie([[5, 6, 7]], EOS)
    assert beam_search(MODELS[0], trie, []) == []
    for normalize in ("full", "trie"):
        (only,) = beam_search(MODELS[0], trie, [[4, EOS]], SearchOptions(normalize=normalize))
        assert only.items == [0]
    assert only.scores == [0.0]  # a forced ID costs nothing under the softmax over the valid children


def test_the_models_mode_is_left_as_it_was() -> None:
    model = tiny_t5(0, dropout_rate=0.9).train()
    trie, prompts = build_trie([[5, 6], [7, 8]], EOS), [[4, EOS]]
    first, second = beam_search(model, trie, prompts), beam_search(model, trie, prompts)
    assert model.training
    assert first == second


def test_logits_too_wide_for_plain_sums_are_normalised_all_the_same() -> None:
    hidden = torch.tensor([[1.0] * 16, [-1.0] * 16, [0.1] * 16])
    model = tiny_t5(0)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.linspace(-9, 9, 40)[:, None].expand(40, 16))
    with torch.inference_mode():
        found = Decoder(model, 4).log_normaliser(hidden)
    wanted = (hidden.double() @ model.lm_head.weight.double().T).logsumexp(-1)
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-5)


def test_a_vocabulary_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    trie, prompts = build_trie(random_ids(generator, 30), EOS), random_prompts(generator, 2)
    whole = beam_search(MODELS[0], trie, prompts)
    monkeypatch.setattr(decoder_module, "VOCABULARY_CHUNK", 7)
    for one, other in zip(whole, beam_search(MODELS[0], trie, prompts), strict=True):
        assert one.items == other.items
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    trie, prompts = build_trie(random_ids(generator, 30), EOS), random_prompts(generator, 9)
    search = BeamSearch(MODELS[0], trie)
    wanted = search.search(prompts, batch_size=1)
    read, sizes = Decoder.read, []

    def small_memory(self: Decoder, batch: list[list[int]]) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no room")
        return read(self, batch)

    monkeypatch.setattr(Decoder, "read", small_memory)
    found = search.search(prompts, batch_size=8)
    assert [ranking.items for ranking in found] == [ranking.items for ranking in wanted]
    assert sizes == [8, 4, 2, 2, 2, 2, 1]

    monkeypatch.setattr(Decoder, "read", lambda *_: no_room())
    with pytest.raises(torch.OutOfMemoryError):
        search.search(prompts, batch_size=1)


def no_room() -> Iterator[None]:
    raise torch.OutOfMemoryError("no room")


def test_tokens_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(IdgrError, match="tokens that the model does not have"):
        beam_search(MODELS[0], build_trie([[5, 40]], EOS), [[4, EOS]])


@pytest.mark.parametrize("normalize", ["full", "trie"])
def test_half_precision_scores_are_close(normalize: str) -> None:
    generator = np.random.default_rng(3)
    trie, prompts = build_trie(random_ids(generator, 40), EOS), random_prompts(generator, 3)
    options = SearchOptions(40, 40, normalize=normalize)
    exact = beam_search(tiny_t5(1), trie, prompts, options)
    rough = beam_search(tiny_t5(1).to(torch.bfloat16), trie, prompts, options)
    for one, other in zip(exact, rough, strict=True):
        close = dict(zip(other.items, other.scores, strict=True))
        np.testing.assert_allclose([close[item] for item in one.items], one.scores, atol=0.5)


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    model = tiny_t5(0)
    with torch.no_grad():
        model.decoder.block[0].layer[2].DenseReluDense.wo.weight.fill_(float("nan"))
    for normalize in ("full", "trie"):
        with pytest.raises(IdgrError, match="not numbers"):
            beam_search(model, build_trie([[5, 6], [7]], EOS), [[4, EOS]], SearchOptions(normalize=normalize))


# Under the root stand 5 and 6, two items below each; 7 and 8 choose between them, and no more tokens are asked for.
DEEP = [[5, 7], [5, 8], [6, 7], [6, 8]]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("normalize", ["full", "trie"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_head_that_is_broken_below_the_root_is_refused(
    broken: float, normalize: str, beams: int, exact: bool
) -> None:
    """Four beams find it in the closing pass, one beam in a step; the root's own children are in order."""
    model = tiny_t5(0, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[7] = broken
    search = (ExactSearch if exact else BeamSearch)(
        model, build_trie(DEEP, EOS), SearchOptions(1, beams, normalize=normalize)
    )
    with pytest.raises(IdgrError, match="the model's scores are not numbers; train it again"):
        search.search([[4, EOS], [5, 6, EOS]])


@pytest.mark.parametrize("normalize", ["full", "trie"])
def test_a_broken_embedding_below_the_root_is_refused(normalize: str) -> None:
    model = tiny_llama(0, tie_word_embeddings=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[6] = float("nan")
    with pytest.raises(IdgrError, match="not numbers"):
        beam_search(model, build_trie(DEEP, EOS), [[EOS, 4]], SearchOptions(1, 2, normalize=normalize))


@pytest.mark.parametrize("penalty", [-1, 2])
@pytest.mark.parametrize("search", [BeamSearch, ExactSearch])
def test_a_length_penalty_may_be_a_whole_number(search: type[BeamSearch | ExactSearch], penalty: int) -> None:
    trie = build_trie([[3], [4, 5], [4, 6, 7]], EOS)
    found, wanted = (
        search(MODELS[0], trie, SearchOptions(3, 3, p)).search([[4, EOS]]) for p in (penalty, float(penalty))
    )
    assert found == wanted


def test_tokens_outside_of_the_tree_may_be_broken_where_they_are_not_asked_for() -> None:
    model = tiny_t5(0, tie_word_embeddings=False)
    whole = beam_search(model, build_trie(DEEP, EOS), [[4, EOS]], SearchOptions(2, 2, normalize="trie"))
    with torch.no_grad():
        model.lm_head.weight[30] = float("nan")
    assert beam_search(model, build_trie(DEEP, EOS), [[4, EOS]], SearchOptions(2, 2, normalize="trie")) == whole


def test_memory_is_given_back_before_a_smaller_batch_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the cache is emptied, nothing may hold on to what the batch that failed had made."""
    trie, prompts = build_trie(random_ids(np.random.default_rng(2), 30), EOS), [[4, EOS]] * 5
    extend, held, gone = Decoder.extend, [], []

    def cramped(self: Decoder, cache: Any, token_BQ: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(token_BQ) > 2:
            held.append(weakref.ref(cache))
            raise torch.OutOfMemoryError("no room")
        return extend(self, cache, token_BQ, *rest)

    monkeypatch.setattr(Decoder, "extend", cramped)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gone.append(held[-1]() is None))
    found = beam_search(MODELS[0], trie, prompts, batch_size=5)
    assert gone == [True]  # from five users to two
    assert len({tuple(ranking.items) for ranking in found}) == 1
    assert len(found[0].items) == 10


def test_hundreds_of_beams_are_searched_for_fewer_users_at_a_time() -> None:
    ids = [[first, second] for first in range(3, 40) for second in range(3, 40)]
    search = BeamSearch(MODELS[0], build_trie(ids, EOS), SearchOptions(10, 1000, normalize="trie"))
    told: list[int] = []
    search.search([[4, EOS]] * 3, batch_size=100, advance=told.append)
    assert sum(told) == 3
    assert BeamSearch(MODELS[0], build_trie(ids, EOS))._most_users() > 10_000
    assert search._most_users() == (1 << 28) // (1000 * 1000 * 3 * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "-k 0"),
        ({"k": 11, "beams": 10}, "--beams 11 or more"),
        ({"normalize": "half"}, "full or trie"),
        *(
            ({"length_penalty": number}, "from -10 to 10")
            for number in (float("nan"), float("inf"), 10.1, 1000.0, -11.0)
        ),
    ],
)
def test_options_that_cannot_be_met_name_the_flag(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchOptions(**options)


@pytest.mark.parametrize("length_penalty", [10.0, -10.0])
def test_the_largest_length_penalties_keep_the_order(length_penalty: float) -> None:
    ids = random_ids(np.random.default_rng(4), 40, longest=8)
    scores = score_every_item(MODELS[0], ids, [4, EOS], length_penalty=length_penalty, normalize="full")
    (found,) = beam_search(MODELS[0], build_trie(ids, EOS), [[4, EOS]], SearchOptions(40, 40, length_penalty))
    assert found.items == sorted(range(40), key=lambda item: -scores[item])
