"""The recommender's training: which instances, which epoch is kept, and what an ID must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.engine.options import TrainingOptions
from idgr.errors import IdgrError, UsageError
from idgr.models.backbone import Backbone
from idgr.models.tokenizer import encode, id_tokens
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender import training
from idgr.recommender.options import RecommenderOptions
from idgr.recommender.training import draw_users, make_instances, prompt_costs, train_recommender

SEQUENCES = [[i, (i + 1) % 10, (i + 2) % 10, (i + 3) % 10] for i in range(10)]
VALID = [([i, (i + 1) % 10], (i + 2) % 10) for i in range(10)]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(1, 5))
def test_every_prefix_is_an_instance(sequences: list[list[int]], max_history: int) -> None:
    plain = [(row[:end][-max_history:], row[end]) for row in sequences for end in range(1, len(row))]
    made = make_instances(sequences, max_history)
    flat = [
        (made.items[begin:end].tolist(), int(made.items[end])) for begin, end in zip(made.begin, made.end, strict=True)
    ]
    assert flat == plain


def test_costs_are_the_prompts_tokens_but_for_the_template(small_renderer: PromptRenderer) -> None:
    instances = make_instances(SEQUENCES, small_renderer.max_history)
    template = len(small_renderer.before[0]) + len(small_renderer.after[0])
    for number, cost in enumerate(prompt_costs(instances, small_renderer)):
        history = instances.items[instances.begin[number] : instances.end[number]].tolist()
        exact = len(small_renderer.render(history, 0).tokens) - template
        assert cost == exact + len(small_renderer.separator)


@pytest.mark.parametrize("objective", ["full", "trie"])
def test_a_recommender_learns_what_follows(small: Backbone, small_renderer: PromptRenderer, objective: str) -> None:
    records: list[dict[str, Any]] = []
    options = RecommenderOptions(objective=objective, valid_beams=10)
    loop = TrainingOptions(epochs=40, lr=1e-2, batch_size=8, dropout=0.0)
    best = train_recommender(small, small_renderer, SEQUENCES, VALID, options, loop, records.append)
    assert best["ndcg@10"] == max(record["ndcg@10"] for record in records)
    assert best["epoch"] == next(record["epoch"] for record in records if record["ndcg@10"] == best["ndcg@10"])
    assert best["ndcg@10"] > 0.65  # 0.45 by chance
    assert not small.model.training


def test_the_best_epochs_weights_are_kept_and_patience_ends(
    small: Backbone, small_renderer: PromptRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.3, 0.3, 0.2, 0.9])
    seen: dict[float, torch.Tensor] = {}

    def validation(*_: Any) -> Any:
        def validate() -> dict[str, float]:
            score = next(scores)
            seen.setdefault(score, small.model.shared.weight.detach().clone())
            return {"hr@10": score, "ndcg@10": score}

        return validate

    monkeypatch.setattr(training, "validation", validation)
    records: list[dict[str, Any]] = []
    options, loop = RecommenderOptions(patience=2), TrainingOptions(epochs=9, batch_size=8)
    best = train_recommender(small, small_renderer, SEQUENCES, VALID, options, loop, records.append)
    assert [record["ndcg@10"] for record in records] == [0.1, 0.3, 0.3, 0.2]
    assert best["epoch"] == 2
    assert torch.equal(small.model.shared.weight, seen[0.3])


def test_without_validation_the_last_epoch_is_kept(small: Backbone, small_renderer: PromptRenderer) -> None:
    records: list[dict[str, Any]] = []
    loop = TrainingOptions(epochs=2, batch_size=8)
    best = train_recommender(small, small_renderer, SEQUENCES, [], RecommenderOptions(), loop, records.append)
    assert best == records[1]
    assert "ndcg@10" not in best


def test_validation_users_are_drawn_at_random_and_always_the_same() -> None:
    drawn = draw_users(1000, 50)
    assert len(drawn) == 50
    assert drawn == draw_users(1000, 50) == sorted(set(drawn))
    assert drawn != list(range(50))
    assert draw_users(7, 0) == draw_users(7, 9) == list(range(7))


def test_id_tokens_are_those_of_the_text_alone(small: Backbone) -> None:
    assert id_tokens(small.tokenizer, ["amber basil", "ember"]) == encode(small.tokenizer, ["amber basil", "ember"])


@pytest.mark.parametrize("textual", ["\u3000", "an </s> end", "amber ½"])
def test_ids_that_the_tokenizer_does_not_read_back_are_refused(small: Backbone, textual: str) -> None:
    with pytest.raises(IdgrError, match=r"reads the ID .* back as"):
        id_tokens(small.tokenizer, ["amber", textual])


def test_two_ids_with_the_same_tokens_are_refused(small: Backbone) -> None:
    with pytest.raises(IdgrError, match="have the same tokens"):
        id_tokens(small.tokenizer, ["amber basil", "amber  basil"])


@pytest.mark.parametrize("given", [{"objective": "half"}, {"valid_users": -1}, {"patience": -1}, {"valid_beams": 9}])
def test_options_out_of_range_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^--{next(iter(given)).replace('_', '-')} "):
        RecommenderOptions(**given)


def test_templates_vary_between_epochs_and_not_with_the_batch(small: Backbone, small_renderer: PromptRenderer) -> None:
    from idgr.decoding.trie import build_trie

    shown: list[list[int]] = []
    render_all = small_renderer.render_all

    def watched(histories: Any, templates: Any) -> Any:
        prompts = render_all(histories, templates)
        shown.extend(prompt.tokens for prompt in prompts)
        return prompts

    small_renderer.render_all = watched  # type: ignore[method-assign]
    trie = build_trie(small_renderer.id_tokens, small.tokenizer.eos_token_id)
    instances = make_instances(SEQUENCES, small_renderer.max_history)
    loss_of = training.instance_loss(small.model, small_renderer, trie, instances, "full", seed=0)
    loss_of(np.arange(8), 0)
    for number in range(8):
        loss_of(np.array([number]), 0)
    loss_of(np.arange(8), 1)
    assert shown[:8] == shown[8:16]
    assert shown[:8] != shown[16:]
