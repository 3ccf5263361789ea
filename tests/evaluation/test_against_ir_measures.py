"""HR and NDCG beside ir-measures and its trec_eval, which share no code with idgr."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, ScoredDoc, Success, nDCG

from idgr.evaluation.metrics import accuracy, discounted_gains, hits, reciprocal_ranks, target_ranks

N_USERS, N_ITEMS, LONGEST = 1_000, 60, 20


def test_a_thousand_random_rankings_score_the_same() -> None:
    rng = np.random.default_rng(0)
    targets = [f"i{item}" for item in rng.integers(N_ITEMS, size=N_USERS)]
    lists = [[f"i{item}" for item in rng.permutation(N_ITEMS)[: rng.integers(1, LONGEST + 1)]] for _ in targets]
    ranks = target_ranks(lists, targets)
    assert (ranks == 0).any()
    assert set(range(1, 11)) <= set(ranks.tolist())

    # Distinct falling scores: trec_eval ranks by score alone.
    run = [
        ScoredDoc(f"u{user}", item, float(-place))
        for user, items in enumerate(lists)
        for place, item in enumerate(items)
    ]
    truth = {f"u{user}": {target: 1} for user, target in enumerate(targets)}
    ours = {"hr": hits, "ndcg": discounted_gains, "mrr": reciprocal_ranks}
    theirs = {
        measure @ k: (name, k)
        for name, measures in {"hr": (Success, R), "ndcg": (nDCG,), "mrr": (RR,)}.items()
        for measure in measures
        for k in (1, 5, 10)
    }
    compared = 0
    for value in ir_measures.iter_calc(list(theirs), truth, run):
        name, k = theirs[value.measure]
        assert value.value == pytest.approx(ours[name](ranks, k)[int(value.query_id[1:])], abs=1e-9), value
        compared += 1
    assert compared == len(theirs) * N_USERS

    figures = accuracy(ranks, [1, 5, 10])
    for measure, value in ir_measures.calc_aggregate(list(theirs), truth, run).items():
        name, k = theirs[measure]
        assert value == pytest.approx(figures[f"{name}@{k}"], abs=1e-9), measure
