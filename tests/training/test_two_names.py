"""Recommenders trained with items named by their old or new IDs, and a generator that stays close to its beginning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.engine.options import TrainingOptions
from idgr.formats.jsonl import write_jsonl
from idgr.formats.rec_folder import read_seen_tokens
from idgr.generator.training import anchored_loss, pair_loss, train_generator
from idgr.models.backbone import Backbone, CausalPreset, new_causal_backbone
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens, load_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.sequences import Windows, make_windows, window_loss
from idgr.recommender.training import instance_loss, make_instances
from idgr.recommender.two_names import drawn_names, two_names_loss

from ..decoding.oracle import DictionaryTrie, NextToken

EOS = 1
SEQUENCES = [[0, 1, 2, 3, 4], [4, 3, 0, 9, 1], [5, 6, 7, 8, 5, 0], [9, 2, 2, 1], [3, 8]]
OLD = {0: "fjord", 4: "cedar", 9: "ember delta amber basil cedar"}


@pytest.mark.parametrize("objective", ["trie", "full"])
def test_names_that_are_the_same_make_no_difference(
    small: Backbone, small_renderer: PromptRenderer, objective: str
) -> None:
    small.model.eval()
    instances = make_instances(SEQUENCES, small_renderer.max_history)
    trie = build_trie(small_renderer.id_tokens, small_renderer.end)
    plain = instance_loss(small.model, small_renderer, trie, instances, objective, seed=5)
    same = two_names_loss(small.model, small_renderer, small_renderer.id_tokens, instances, objective, seed=5)
    batch = np.array([0, 5, 8, 11, 3])
    expected, terms = plain(batch, 2)
    found, its_terms = same(batch, 2)
    assert its_terms == terms
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("objective", ["trie", "full"])
def test_every_instance_costs_what_it_does_with_one_of_its_namings(
    small: Backbone, small_renderer: PromptRenderer, objective: str
) -> None:
    """And in many epochs all namings come up, whatever the batch."""
    small.model.eval()
    old = list(small_renderer.id_tokens)
    for item, name in OLD.items():
        (old[item],) = id_tokens(small.tokenizer, [name])
    instances = make_instances(SEQUENCES, small_renderer.max_history)
    mixed = two_names_loss(small.model, small_renderer, old, instances, objective, seed=5)
    # Items 4 and then 3 are shown, 0 is the target: so two of the three have two names.
    number = int(np.flatnonzero((instances.items[instances.end] == 0) & (instances.end - instances.begin == 2))[0])
    seen: dict[int, set[tuple[bool, bool]]] = {}
    for epoch in range(40):
        with torch.no_grad():
            cost = mixed(np.array([number]), epoch)[0].item()
            several = mixed(np.array([number, 3]), epoch)[0].item() - mixed(np.array([3]), epoch)[0].item()
        assert several == pytest.approx(cost, abs=1e-4)
        for shown_old in (False, True):
            for asked_old in (False, True):
                renderer = copy.copy(small_renderer)
                shown = list(small_renderer.id_tokens)
                shown[4] = old[4] if shown_old else shown[4]
                renderer.id_tokens = shown
                trie = build_trie(old if asked_old else small_renderer.id_tokens, renderer.end)
                with torch.no_grad():
                    plain = instance_loss(small.model, renderer, trie, instances, objective, seed=5)
                    if plain(np.array([number]), epoch)[0].item() == pytest.approx(cost, abs=1e-5):
                        seen.setdefault(epoch, set()).add((shown_old, asked_old))
    assert len(seen) == 40
    assert set.union(*seen.values()) == {(False, False), (False, True), (True, False), (True, True)}


def test_a_users_id_is_made_of_items_whatever_they_are_called(small: Backbone, small_renderer: PromptRenderer) -> None:
    asked: list[list[int]] = []

    def user_ids(histories: Sequence[Sequence[int]]) -> list[list[int]]:
        asked.extend(list(one) for one in histories)
        return [[7, 8]] * len(histories)

    renderer = copy.copy(small_renderer)
    renderer.user_ids, renderer.user_room = user_ids, len(renderer.user_before) + 2 + len(renderer.user_after)
    instances = make_instances(SEQUENCES, renderer.max_history)
    loss_of = two_names_loss(small.model, renderer, renderer.id_tokens, instances, "full", seed=5)
    batch = np.arange(len(instances.end))
    loss_of(batch, 1)
    bounds = zip(instances.begin, instances.end, strict=True)
    assert asked == [instances.items[begin:end].tolist() for begin, end in bounds]


@pytest.mark.parametrize("objective", ["trie", "full"])
def test_a_window_costs_what_it_does_with_one_of_its_namings(
    small: Backbone, small_renderer: PromptRenderer, objective: str
) -> None:
    """Wherever a window of a causal model's training shows an item or asks for it, it has one name in an epoch."""
    new, old = small_renderer.id_tokens, list(small_renderer.id_tokens)
    for item, name in OLD.items():
        (old[item],) = id_tokens(small.tokenizer, [name])
    model = new_causal_backbone(CausalPreset(16, 24, 2, 2, 400), small.tokenizer, seed=3).model.eval()
    fit_item_slots(model, [*new, *old], new=True)
    old_trie, windows = build_trie(old, EOS), make_windows([[0, 4, 3, 0], [7, 4, 1, 9, 2]], 6)
    both = window_loss(model, build_trie(new, EOS), windows, objective, seed=5, old_trie=old_trie)
    seen: list[set[tuple[int, ...]]] = [set(), set()]
    for epoch in range(12):
        with torch.no_grad():
            costs = [both(np.array([window]), epoch)[0].item() for window in (0, 1)]
            assert both(np.array([1, 0]), epoch)[0].item() == pytest.approx(sum(costs), rel=1e-5)
        for window, cost in enumerate(costs):
            drawn = drawn_names(np.arange(10), 10, np.full(10, window), 5, epoch) >= 10
            shown = [old[item] if drawn[item] else new[item] for item in range(10)]
            expected = 0.0
            for place in range(windows.first[window], windows.end[window]):
                # What is asked for stands in the tree of its own naming.
                tree = list(old if drawn[windows.items[place]] else new)
                expected += target_cost(model, shown, tree, windows, window, place, objective)
            assert cost == pytest.approx(expected, rel=1e-5)
            seen[window].add(tuple(drawn[[0, 4, 9]].tolist()))
    assert min(map(len, seen)) > 4  # of eight namings of the three items


def target_cost(
    model: Any, shown: list[list[int]], tree: list[list[int]], windows: Windows, window: int, place: int, objective: str
) -> float:
    """-log P of a target, token by token, in a tree of IDs or among all tokens."""
    items = windows.items[windows.begin[window] : place].tolist()
    step = NextToken(model, shown, [token for item in items for token in (EOS, *shown[item])])
    children = DictionaryTrie(tree, range(len(tree)))
    path, cost = [*tree[windows.items[place]], EOS], 0.0
    for t, token in enumerate(path):
        cost -= step.after(path[:t], children.children(path[:t]) if objective == "trie" else None)[token]
    return cost


@pytest.mark.parametrize("arch", ["t5", "causal"])
def test_train_rec_takes_old_ids_of_the_same_items(data: Path, capsys: pytest.CaptureFixture[str], arch: str) -> None:
    rows = [{"item_id": f"I{i}", "id": OLD.get(i, f"basil {'delta ' * i}amber")} for i in range(10)]
    write_jsonl(data / "old.jsonl", rows)
    train = ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--epochs", "1"]
    train += ["--vocab-size", "400", "--device", "cpu", "--arch", arch]
    train += ["--old-ids", str(data / "old.jsonl"), "-o", str(data / "rec")]
    assert run(train) == 0
    assert (data / "rec" / "model.safetensors").is_file()
    tokenizer = load_tokenizer(data / "rec")
    known = {token for row in id_tokens(tokenizer, [str(row["id"]) for row in rows[:5]]) for token in row}
    assert known <= (read_seen_tokens(data / "rec") or set())
    write_jsonl(data / "old.jsonl", rows[1:])
    assert run([*train, "--overwrite"]) == 1
    assert "is not of the items of --ids" in capsys.readouterr().err


def test_an_anchor_adds_the_divergence_from_the_beginning(small: Backbone) -> None:
    small.model.eval()
    start = copy.deepcopy(small.model)
    with torch.no_grad():
        small.model.lm_head.weight += 0.1 * torch.randn(
            small.model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0)
        )
    sources, labels = [[5, 6, 1], [7, 1]], [[8, 9, 1], [4, 1]]
    plain, terms = pair_loss(small.model, sources, labels)
    found, its_terms = anchored_loss(small.model, start, sources, labels, 0.5, len(small.tokenizer))
    divergence = 0.0
    for source, label in zip(sources, labels, strict=True):
        given, wanted = torch.tensor([source]), torch.tensor([label])
        first, second = (
            model(input_ids=given, labels=wanted).logits[0, :, : len(small.tokenizer)].log_softmax(-1)
            for model in (start, small.model)
        )
        divergence += (first.exp() * (first - second)).sum().item()
    assert terms == its_terms == 5
    assert found.item() == pytest.approx(plain.item() + 0.5 * divergence, rel=1e-4)


def test_an_anchored_generator_learns_less_far(small: Backbone) -> None:
    pairs = [(f"title: {word}", word) for word in ("amber basil", "cedar", "delta ember")]
    start = copy.deepcopy(small.model.state_dict())
    how = TrainingOptions(epochs=15, lr=1e-2, batch_size=3, dropout=0.0)
    moved = []
    for anchor in (0.0, 5.0):
        small.model.load_state_dict(start)
        last = train_generator(
            small, pairs, how, max_text_tokens=20, held_out=0.0, anchor=anchor, on_epoch=lambda record: None
        )
        moved.append(last["loss"])
    assert moved[0] < moved[1]
