"""IDs chosen by a frozen recommender: costs in the renamed tree, gains from contexts, and who gets another ID."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from idgr.alternation.assignment import reassign, reassign_at_random
from idgr.alternation.candidates import other_names, word_candidates
from idgr.alternation.renamed_tree import RenamedTree, choice_costs
from idgr.alternation.scoring import Context, Contexts, Scorer, draw_contexts, instance_marks
from idgr.alternation.states import _hosts
from idgr.decoding.trie import build_trie
from idgr.formats.records import Item, ItemId
from idgr.ids.keyphrase import keyphrase_ids
from idgr.models.backbone import Backbone, CausalPreset, new_causal_backbone
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.objectives import branch_targets, find_branches, trie_loss
from idgr.recommender.sequences import window_loss
from idgr.recommender.training import instance_loss, make_instances, windows_of

EOS = 1
SEQUENCES = [[0, 1, 2, 3, 4], [4, 3, 0, 9, 1], [5, 6, 7, 8, 5, 0], [9, 2, 2, 1], [3, 8]]
USERS = ["ann", "bob", "cyd", "dan", "eve"]
NAMES = ["amber", "fjord", "basil cedar", "amber basil fjord", "cedar amber basil ember", "basil ember fjord delta"]


def random_names(draw: random.Random, n: int) -> list[list[int]]:
    """Different rows of few different tokens, so that many begin alike and some are the beginnings of others."""
    found: set[tuple[int, ...]] = set()
    while len(found) < n:
        found.add(tuple(draw.choices(range(2, 5 + draw.randrange(3)), k=draw.randint(1, 5))))
    return [list(row) for row in draw.sample(sorted(found), n)]


@pytest.mark.parametrize("seed", range(20))
def test_costs_are_those_of_a_tree_that_was_built_anew(seed: int) -> None:
    draw = random.Random(seed)
    n_items = draw.choice([1, 2, 3, 8, 25])
    rows = random_names(draw, n_items + 6)
    names, tried = rows[:n_items], rows[n_items:]
    trie = build_trie(names, EOS)
    tree = RenamedTree(trie)
    generator = torch.Generator().manual_seed(seed)
    hidden_TD = torch.randn(1, 7, 4, generator=generator)
    head_VD = torch.randn(9, 4, generator=generator)
    for item in range(n_items):
        for name in [*tried, names[item]]:
            anew = find_branches(build_trie([*names[:item], name, *names[item + 1 :]], EOS))
            choices = [tree.choices(target, item, name) for target in range(n_items)]
            costs = choice_costs(hidden_TD.expand(n_items, -1, -1), head_VD, trie, choices)
            for target in range(n_items):
                targets = branch_targets(anew, np.array([target]), torch.device("cpu"))
                expected, _ = trie_loss(hidden_TD, head_VD, targets, 1)
                assert costs[target].item() == pytest.approx(expected.item(), abs=2e-5), (names, item, name, target)
                n_choices = anew.start[target + 1] - anew.start[target]
                assert len(choices[target]) == n_choices
    # A tree like any other: where the states do not tell paths apart, the items' probabilities sum to one.
    costs = choice_costs(
        hidden_TD[:, :1].expand(n_items, 7, -1), head_VD, trie, [tree.choices(j, 0, tried[0]) for j in range(n_items)]
    )
    assert (-costs).exp().sum().item() == pytest.approx(1, abs=1e-5)


Recommender = tuple[Backbone, PromptRenderer | HistoryRenderer]


@pytest.fixture(params=["t5", "slots", "places", "lines"])
def both(request: pytest.FixtureRequest, small: Backbone, small_renderer: PromptRenderer) -> Recommender:
    """A T5, or a Llama that counts places in items or through, behind EOS or between lines."""
    if request.param == "t5":
        return small, small_renderer
    found = new_causal_backbone(CausalPreset(16, 24, 2, 2, 400), small.tokenizer, seed=3)
    with torch.no_grad():
        for weight in found.model.parameters():
            weight.mul_(3)
    if request.param == "slots":
        fit_item_slots(found.model, [*small_renderer.id_tokens, *id_tokens(small.tokenizer, NAMES)], new=True)
    leads = request.param != "lines"
    return found, HistoryRenderer(EOS if leads else 2, small_renderer.id_tokens, 4, 200, leads=leads)


def scorer_of(recommender: Recommender, objective: str, rows: int = 128, seed: int = 3) -> Scorer:
    backbone, renderer = recommender
    instances = make_instances(SEQUENCES, renderer.max_history)
    marks = instance_marks(instances, USERS, SEQUENCES, seed)
    backbone.model.eval()
    return Scorer(backbone.model, renderer, instances, marks, objective, rows)


def plain_cost(recommender: Recommender, ids: list[list[int]], objective: str, scorer: Scorer, instance: int) -> float:
    """What training would say that an instance costs with these IDs."""
    backbone, renderer = recommender
    trie, instances = build_trie(ids, renderer.end), scorer.instances
    loss: Callable[[np.ndarray[Any, Any], int], tuple[torch.Tensor, int]]
    if isinstance(renderer, HistoryRenderer):
        loss = window_loss(backbone.model, trie, windows_of(instances, renderer), objective, leads=renderer.leads)
    else:
        anew = copy.copy(renderer)
        anew.id_tokens = ids
        template = int(scorer.templates_N[instance])
        anew.before, anew.after = [anew.before[template]], [anew.after[template]]
        loss = instance_loss(backbone.model, anew, trie, instances, objective, 0)
    with torch.no_grad():
        return loss(np.array([instance]), 0)[0].item()


@pytest.mark.parametrize("objective", ["trie", "full"])
def test_a_context_costs_what_it_costs_with_everything_built_anew(both: Recommender, objective: str) -> None:
    scorer = scorer_of(both, objective)
    tried, names = id_tokens(both[0].tokenizer, NAMES), both[1].id_tokens
    instances = scorer.instances
    asked = []
    for instance in range(len(instances.end)):
        for item in {*instances.items[instances.begin[instance] : instances.end[instance] + 1].tolist()}:
            asked.append(Context(item, instance, [names[item], *tried], shown=False))
    assert any(SEQUENCES[2][:5].count(one.item) == 2 for one in asked)  # also an item that is bought twice
    costs = scorer.costs(asked)
    for one, found in zip(asked, costs, strict=True):
        for name, cost in zip(one.names, found, strict=True):
            ids = [list(name) if item == one.item else row for item, row in enumerate(names)]
            expected = plain_cost(both, ids, objective, scorer, one.instance)
            assert cost == pytest.approx(expected, abs=3e-5, rel=1e-5)


def test_no_row_is_read_that_another_begins_with() -> None:
    rows = [[1, 2], [1, 2, 3], [1], [2], [1, 2], [1, 3], [1, 2, 3]]
    hosts = _hosts(rows)
    assert hosts[0] == hosts[1] == hosts[4] == hosts[6]
    assert hosts[0] in (1, 6)
    assert (hosts[2] in (1, 5, 6), hosts[3], hosts[5]) == (True, 3, 5)
    assert _hosts([[4]]) == [0]


def test_gains_are_the_means_of_the_contexts_times_their_number(
    small: Backbone, small_renderer: PromptRenderer
) -> None:
    scorer = scorer_of((small, small_renderer), "trie")
    tried = id_tokens(small.tokenizer, NAMES[:2])
    contexts = [Contexts([], 0, [], 0)] * 10
    contexts[1] = Contexts([0, 8], 3, [1], 4)
    candidates: list[list[list[int]]] = [[] for _ in range(10)]
    candidates[1], candidates[5] = tried, tried
    gains = scorer.gains(candidates, contexts)
    costs = scorer.costs([Context(1, place, [small_renderer.id_tokens[1], *tried], shown=False) for place in (0, 8, 1)])
    saved = [cost[0] - cost[1:] for cost in costs]
    assert gains[1] == pytest.approx((saved[0] + saved[1]) / 2 * 3 + saved[2] * 4, abs=1e-3)
    assert gains[5].tolist() == [0, 0]
    assert [len(gain) for gain in gains] == [0, 2, 0, 0, 0, 2, 0, 0, 0, 0]


def test_gains_do_not_depend_on_the_batch_nor_on_the_order_of_users(both: Recommender) -> None:
    backbone, renderer = both
    tried = [id_tokens(backbone.tokenizer, NAMES)] * 10

    def gains(sequences: list[list[int]], users: list[str], rows: int) -> list[float]:
        instances = make_instances(sequences, renderer.max_history)
        marks = instance_marks(instances, users, sequences, 7)
        backbone.model.eval()
        scorer = Scorer(backbone.model, renderer, instances, marks, "trie", rows)
        return np.concatenate(scorer.gains(tried, draw_contexts(instances, marks, 10, 2))).tolist()

    first = gains(SEQUENCES, USERS, 128)
    assert first == pytest.approx(gains(SEQUENCES, USERS, 1), abs=2e-3)
    order = [3, 0, 4, 2, 1]
    assert first == pytest.approx(gains([SEQUENCES[i] for i in order], [USERS[i] for i in order], 16), abs=2e-3)


def test_contexts_are_drawn_by_user_and_place() -> None:
    instances = make_instances(SEQUENCES, 2)
    marks = instance_marks(instances, USERS, SEQUENCES, 0)
    assert len(set(marks.tolist())) == len(instances.end)
    everything = draw_contexts(instances, marks, 10, 99)
    shown = [sorted(one.history) for one in everything]
    assert shown[2] == [2, 3, 15]  # once for an instance that shows it twice, and not for one that asks for it too
    assert sorted(everything[1].target) == [0, 7, 15]
    assert [(one.n_target, one.n_history) for one in everything] == [
        (len(one.target), len(one.history)) for one in everything
    ]
    few = draw_contexts(instances, marks, 10, 1)
    for one, every in zip(few, everything, strict=True):
        assert one.target == sorted(every.target, key=lambda instance: marks[instance])[:1]
        assert one.history == sorted(every.history, key=lambda instance: marks[instance])[:1]
        assert (one.n_target, one.n_history) == (every.n_target, every.n_history)
    others = instance_marks(instances, USERS, SEQUENCES, 1)
    assert not set(others.tolist()) & set(marks.tolist())


KEYS = ["a", "b", "c", "d"]
CURRENT = ["red tent", "blue lamp", "green stove", "old chair"]


def chosen(
    candidates: list[list[str]], gains: list[list[float]], cost: float = 0.0, most: int = 4
) -> list[tuple[int, int]]:
    rows = [np.array(gain) for gain in gains]
    found = reassign(KEYS, CURRENT, candidates, rows, switching_cost=cost, most=most)
    assert [one.gain for one in found] == [gains[one.item][one.candidate] for one in found]
    return [(one.item, one.candidate) for one in found]


def test_the_best_gains_come_first_and_no_name_twice() -> None:
    candidates = [["sea"], ["Sea", "sun"], ["sun", "sky"], []]
    assert chosen(candidates, [[2.0], [3.0, 1.0], [1.5, 1.0], []]) == [(1, 0), (2, 0)]
    assert chosen(candidates, [[2.0], [3.0, 1.0], [1.5, 1.0], []], most=1) == [(1, 0)]
    assert chosen(candidates, [[2.0], [3.0, 1.0], [1.5, 1.0], []], cost=2.0) == [(1, 0)]
    assert chosen(candidates, [[3.0], [1.0, 2.0], [1.0, 0.5], []]) == [(0, 0), (1, 1), (2, 1)]


def test_equal_gains_go_by_key_and_nobody_gets_a_name_that_is_given_up() -> None:
    assert chosen([["sea"], ["sea"], ["sea"], ["sea"]], [[1.0]] * 4) == [(0, 0)]
    assert chosen([["sea", "sun"], [], [], []], [[1.0, 1.0], [], [], []]) == [(0, 0)]
    assert chosen([["sea"], ["RED tent"], [], []], [[5.0], [4.0], [], []]) == [(0, 0)]
    assert chosen([[], [], [], []], [[]] * 4) == []


def test_a_random_choice_takes_as_many_of_the_free_names() -> None:
    candidates = [["one", "two"], ["one", "three"], ["blue lamp"], ["four"]]
    gains = [np.full(len(row), -1.0) for row in candidates]
    draws = []
    for seed in range(12):
        found = reassign_at_random(KEYS, CURRENT, candidates, gains, n=2, seed=seed)
        names = [candidates[one.item][one.candidate] for one in found]
        assert len(found) == len(set(names)) == len({one.item for one in found}) == 2
        assert "blue lamp" not in names
        draws.append([(one.item, one.candidate) for one in found])
    assert draws[0] == [
        (one.item, one.candidate) for one in reassign_at_random(KEYS, CURRENT, candidates, gains, n=2, seed=0)
    ]
    assert len(set(map(str, draws))) > 3
    assert len(reassign_at_random(KEYS, CURRENT, candidates, gains, n=9, seed=0)) == 3


def test_candidates_without_a_generator_are_keyphrases() -> None:
    texts = [f"title: {name} tent; of: linen and hemp; colour: {name} sand" for name in ("dune", "fjord", "moor")]
    items = [Item(str(place), text) for place, text in enumerate(texts)]
    found = list(word_candidates(items))
    assert [row["item_id"] for row in found] == [item.item_id for item in items]
    first = found[0]["candidates"]
    assert first[0] == keyphrase_ids(texts)[0]
    assert len(set(first)) == len(first) > 1
    assert all(set(phrase.split()) <= {"dune", "tent", "linen", "and", "hemp", "sand"} for phrase in first)


def test_candidates_are_free_spelled_and_not_too_many() -> None:
    known = [ItemId(key, name) for key, name in zip(KEYS, CURRENT, strict=True)]
    offers = {"a": ["red tent", "Blue Lamp", "x1", "sea", "SEA", "sun", "sky"], "c": ["fog"], "z": ["rain"]}
    found = other_names(known, offers, 2, lambda texts: [text != "x1" for text in texts])
    assert found == [["sea", "sun"], [], ["fog"], []]
