"""Diverse beam search against transformers 4.46, and its independence of the batch.

All in double precision: what single precision makes of a sum depends on the processor.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from idgr.errors import UsageError
from idgr.ids.diverse_beam import Found, diverse_beam_search
from idgr.ids.options import BeamOptions
from idgr.ids.schedule import Limits
from idgr.models.t5 import T5, T5Batch, decode_step, encode, read_weights


@pytest.fixture(scope="module")
def models(make_golden: ModuleType) -> dict[str, T5]:
    return {name: read_weights(make_golden.build_model(name), torch.double) for name in make_golden.MODELS}


@pytest.fixture(scope="module")
def cases(make_golden: ModuleType) -> list[dict]:
    return json.loads(make_golden.GOLDEN.read_text())


def search(t5: T5, rows: list[list[int]], limits: list[Limits], options: BeamOptions) -> list[Found]:
    with torch.inference_mode():
        return diverse_beam_search(T5Batch(t5, *encode(t5, rows)), limits, options)


def limits_of(case: dict) -> Limits:
    return Limits(case["penalty"], case["min"], case["max"])


def check(found: list[Found], case: dict) -> None:
    for result, wanted in zip(found, case["results"], strict=True):
        assert sorted(result.scores, reverse=True) == pytest.approx(wanted["scores"], abs=1e-9, rel=1e-9), case
        # Compared as a set, since sequences of equal score may stand in any order.
        ours = sorted(zip(result.tokens, result.scores, strict=True))
        theirs = sorted(zip(wanted["sequences"], wanted["scores"], strict=True))
        assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in theirs], case
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-9, rel=1e-9), case


def test_a_source_alone_gets_what_transformers_446_returned(
    models: dict[str, T5], cases: list[dict], make_golden: ModuleType
) -> None:
    for case in cases[::9]:
        options = BeamOptions(case["beams"], case["groups"], case["length_penalty"])
        found = [search(models[case["model"]], [row], [limits_of(case)], options)[0] for row in make_golden.ROWS]
        check(found, case)


def test_a_batch_of_mixed_penalties_and_lengths_gets_the_same(
    models: dict[str, T5], cases: list[dict], make_golden: ModuleType
) -> None:
    shapes: dict[tuple, list[dict]] = {}
    for case in cases:
        shapes.setdefault((case["model"], case["beams"], case["groups"], case["length_penalty"]), []).append(case)
    n_rows = len(make_golden.ROWS)
    for (name, *shape), alike in shapes.items():
        limits = [limits_of(case) for case in alike for _ in range(n_rows)]
        found = search(models[name], make_golden.ROWS * len(alike), limits, BeamOptions(*shape))
        for place, case in enumerate(alike):
            check(found[place * n_rows : (place + 1) * n_rows], case)


def test_groups_stand_in_order_and_the_first_is_the_plain_beam(models: dict[str, T5], make_golden: ModuleType) -> None:
    limits = [Limits(0.5, 1, 10)] * len(make_golden.ROWS)
    for t5 in models.values():
        grouped = search(t5, make_golden.ROWS, limits, BeamOptions(6, 3))
        plain = search(t5, make_golden.ROWS, limits, BeamOptions(2, 1))
        for group, alone in zip(grouped, plain, strict=True):
            assert group.tokens[:2] == alone.tokens
            assert group.scores[:2] == pytest.approx(alone.scores, rel=1e-9)
            assert all(first >= second for first, second in zip(group.scores[::2], group.scores[1::2], strict=True))


def test_beams_that_agree_are_computed_once(
    models: dict[str, T5], make_golden: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def counted(t5: T5, source: Any, cache: Any, tokens_R: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(tokens_R))
        return decode_step(t5, source, cache, tokens_R, *rest)

    monkeypatch.setattr("idgr.models.t5.decode_step", counted)
    # Without a penalty all five groups do the same.
    found = search(models["tied"], make_golden.ROWS[:1], [Limits(0.0, 10, 20)], BeamOptions())[0]
    assert len({tuple(tokens) for tokens in found.tokens}) == 1
    assert set(rows) == {1}


def test_the_margin_tells_how_close_the_closest_decision_was(models: dict[str, T5], make_golden: ModuleType) -> None:
    t5 = models["tied"]
    twin = t5.head_VD.clone()
    best = search(t5, make_golden.ROWS[:1], [Limits(0.0, 3, 6)], BeamOptions(1, 1))[0]
    assert best.margin > 1e-3
    first = best.tokens[0][0]
    twin[first - 1] = twin[first] * (1 + 1e-7)  # two tokens that can hardly be told apart
    close = search(replace(t5, head_VD=twin), make_golden.ROWS[:1], [Limits(0.0, 3, 6)], BeamOptions(1, 1))[0]
    assert close.margin < 1e-5


def test_double_precision_is_double_throughout(make_golden: ModuleType) -> None:
    t5 = read_weights(make_golden.build_model("tied"), torch.double)
    limits = [Limits(0.5, 1, 10)] * len(make_golden.ROWS)
    together = search(t5, make_golden.ROWS, limits, BeamOptions())
    for row, result in zip(make_golden.ROWS, together, strict=True):
        alone = search(t5, [row], limits[:1], BeamOptions())[0]
        assert alone.tokens == result.tokens
        assert alone.scores == pytest.approx(result.scores, rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_run_of_tokens_stands_twice_as_in_transformers(make_golden: ModuleType, n: int) -> None:
    repeated = 0
    for name in make_golden.MODELS:
        model = make_golden.build_model(name).double()
        t5 = read_weights(model, torch.double)
        free = search(t5, make_golden.ROWS, [Limits(0.0, 12, 16)] * len(make_golden.ROWS), BeamOptions(3, 1))
        options = BeamOptions(3, 1, no_repeat_ngram=n)
        found = search(t5, make_golden.ROWS, [Limits(0.0, 12, 16)] * len(make_golden.ROWS), options)
        for row, ours, before in zip(make_golden.ROWS, found, free, strict=True):
            repeated += repeats(before.tokens[0], n)
            assert not any(repeats(tokens, n) for tokens in ours.tokens)
            theirs = model.generate(
                torch.tensor([row]), num_beams=3, num_return_sequences=3, do_sample=False, no_repeat_ngram_size=n,
                min_length=12, max_length=16, length_penalty=1.0, early_stopping=False,
            )  # fmt: skip
            for mine, (_, *tokens) in zip(ours.tokens, theirs.tolist(), strict=True):
                assert mine == tokens[: len(mine)]
                assert set(tokens[len(mine) :]) <= {t5.eos, t5.pad}
    assert repeated  # the rule had something to do


def repeats(tokens: list[int], n: int) -> bool:
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(runs)) < len(runs)


def test_groups_that_must_not_repeat_are_searched_in_batches_as_alone(
    models: dict[str, T5], make_golden: ModuleType
) -> None:
    options = BeamOptions(4, 2, no_repeat_ngram=2)
    limits = [Limits(0.3 * (place + 1), 8, 10 + place % 3) for place in range(len(make_golden.ROWS))]
    for t5 in models.values():
        together = search(t5, make_golden.ROWS, limits, options)
        for row, limit, result in zip(make_golden.ROWS, limits, together, strict=True):
            assert result.tokens == search(t5, [row], [limit], options)[0].tokens
            assert not any(repeats(tokens, 2) for tokens in result.tokens)


def test_refuses_a_run_of_fewer_than_no_tokens() -> None:
    with pytest.raises(UsageError, match="--no-repeat-ngram"):
        BeamOptions(no_repeat_ngram=-1)


@pytest.mark.parametrize(("beams", "groups", "what"), [(5, 2, "--groups 2"), (0, 1, "--beams 0"), (3, 0, "--groups 0")])
def test_refuses_groups_that_do_not_divide_the_beams(beams: int, groups: int, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        BeamOptions(beams, groups)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"length_penalty": math.nan}, "--length-penalty nan"),
        ({"length_penalty": math.inf}, "--length-penalty inf"),
        ({"length_penalty": 1000.0}, "--length-penalty 1000"),
        ({"beams": 10**9, "groups": 1}, "--beams 10{9}"),
    ],
)
def test_refuses_numbers_out_of_range(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        BeamOptions(**options)
