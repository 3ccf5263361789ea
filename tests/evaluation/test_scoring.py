"""What stands in metrics.json and in the per-user rows."""

from __future__ import annotations

import math

import pytest

from idgr.evaluation.scoring import baseline_lists, score
from idgr.formats.records import Query

TRAIN = [["a", "b", "c"], ["b", "c"], ["d", "a"]]
TRUTH = [Query("u1", ["a"], "b"), Query("u2", ["c", "d"], "e")]
LISTS = [["c", "b"], ["a"]]


def test_metrics_and_baselines() -> None:
    scores = score(LISTS, TRUTH, 5, [1, 2], baselines=baseline_lists(TRUTH, TRAIN, 2), train=TRAIN)
    metrics = scores.metrics
    assert (metrics["n_users"], metrics["n_items"]) == (2, 5)
    assert (metrics["hr@1"], metrics["hr@2"], metrics["mrr@2"]) == (0.0, 0.5, 0.25)
    assert metrics["ndcg@2"] == pytest.approx(0.5 / math.log2(3))
    assert (metrics["coverage@2"], metrics["short@1"], metrics["short@2"]) == (3 / 5, 0.0, 0.5)
    # Markov's first for u1 is b, the successor of a; popularity's is b too, ahead of c since it comes first.
    assert metrics["baselines"]["markov"]["hr@1"] == 0.5
    assert list(metrics["baselines"]) == ["popularity", "markov"]
    assert "segments" not in metrics
    assert scores.per_user == [
        {
            "user_id": "u1",
            "target": "b",
            "rank": 2,
            "results": 2,
            "history_length": 1,
            "target_count": 2,
            "hr@1": 0,
            "hr@2": 1,
            "ndcg@1": 0.0,
            "ndcg@2": pytest.approx(1 / math.log2(3)),
        },
        {
            "user_id": "u2",
            "target": "e",
            "rank": 0,
            "results": 1,
            "history_length": 2,
            "target_count": 0,
            "hr@1": 0,
            "hr@2": 0,
            "ndcg@1": 0.0,
            "ndcg@2": 0.0,
        },
    ]


def test_history_is_left_out_of_the_baselines_unless_told() -> None:
    assert baseline_lists(TRUTH, TRAIN, 9) == {
        "popularity": [["b", "c", "d"], ["a", "b"]],
        "markov": [["b", "c", "d"], ["a", "b"]],
    }
    assert baseline_lists(TRUTH, TRAIN, 9, keep_history=True)["markov"] == [["b", "a", "c", "d"], ["a", "b", "c", "d"]]


def test_segments_average_to_the_whole() -> None:
    scores = score(LISTS, TRUTH, 5, [2], baselines=baseline_lists(TRUTH, TRAIN, 2), train=TRAIN, by_segment=True)
    for parts in scores.metrics["segments"].values():
        users = sum(part["n_users"] for part in parts.values())
        hits = sum(part["n_users"] * part["hr@2"] for part in parts.values())
        assert (users, hits / users) == (2, scores.metrics["hr@2"])
    # u1 goes from a to b, which training has; e, u2's target, stands nowhere in it.
    by_transition = scores.metrics["segments"]["transition"]
    assert {name: (part["n_users"], part["hr@2"]) for name, part in by_transition.items()} == {
        "memorised": (1, 1.0),
        "new": (1, 0.0),
    }
    assert by_transition["memorised"]["baselines"]["markov"]["hr@2"] == 1.0
    assert [row["transition"] for row in scores.per_user] == ["memorised", "new"]
    new = scores.metrics["segments"]["new_items"]["new"]
    assert (new["n_users"], new["baselines"]["popularity"]["hr@2"]) == (1, 0.0)


def test_without_baselines_none_stand_there() -> None:
    assert "baselines" not in score(LISTS, TRUTH, 5, [5]).metrics
    with pytest.raises(ValueError, match="training"):
        score(LISTS, TRUTH, 5, [5], by_segment=True)
