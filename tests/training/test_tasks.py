"""The tasks beside recommending: which texts meet which IDs, what they cost, and that windows stay what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from idgr.decoding.trie import build_trie
from idgr.engine.task import TrainingTask
from idgr.errors import UsageError
from idgr.models.backbone import Backbone, CausalPreset, new_causal_backbone
from idgr.models.llama import fit_item_slots, position_ids
from idgr.models.tokenizer import decode, encode, id_tokens, train_tokenizer
from idgr.recommender.auxiliary_tasks import (
    CUES,
    SUMMARY_WORDS,
    TEXT_TOKENS,
    AuxiliaryTaskOptions,
    Turns,
    make_tasks,
    summaries,
    with_tasks,
)
from idgr.recommender.sequences import make_windows, window_costs, window_loss

from ..decoding.oracle import DictionaryTrie
from .conftest import TEXTUAL_IDS

SHAPE = CausalPreset(d_model=16, d_ff=24, num_layers=2, num_heads=2, vocab_size=400)
EOS = 1
SEQUENCES = [[0, 3, 1, 8, 2], [5, 9], [4, 4, 6], [7, 6, 0, 2]]
TEXTS = [
    f"title: the {text}; brand: {text.split()[0]}; about: scented candle no {i}" for i, text in enumerate(TEXTUAL_IDS)
]


def made(*, slots: bool = True) -> tuple[Backbone, list[list[int]]]:
    tokenizer = train_tokenizer([*TEXTUAL_IDS, *AuxiliaryTaskOptions(1, 1, TEXTS).words()], SHAPE.vocab_size)
    backbone = new_causal_backbone(SHAPE, tokenizer, seed=3)
    with torch.no_grad():
        for weight in backbone.model.eval().parameters():
            weight.mul_(3)
    rows = id_tokens(tokenizer, TEXTUAL_IDS)
    backbone.model.config.item_slots = 0
    if slots:
        fit_item_slots(backbone.model, rows, new=True)
    return backbone, rows


def test_a_long_text_takes_the_places_of_as_many_items_as_it_needs() -> None:
    tokens = np.array([[EOS, 5, 6, 7, 8, EOS, 9, EOS, 5, 6, EOS], [EOS, 5, 6, EOS, 5, EOS, 9, 9, 0, 0, 0]])
    assert position_ids(tokens, EOS, 3).tolist() == [
        [0, 1, 2, 3, 4, 6, 7, 9, 10, 11, 12],
        [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11],
    ]
    assert position_ids(tokens, EOS, 0).tolist() == [list(range(11))] * 2


def test_each_pair_has_its_turn_both_ways_before_one_has_another() -> None:
    turns = Turns(np.array([2, 0, 1]), 4)
    seen = []
    for epoch in range(3):
        numbers, forth = turns.of(np.arange(4), epoch)
        assert turns.of(np.array([3, 1]), epoch) == ([numbers[3], numbers[1]], [forth[3], forth[1]])
        seen += list(zip(numbers, forth, strict=True))
    once = [(2, True), (2, False), (0, True), (0, False), (1, True), (1, False)]
    assert seen == once * 2


def test_a_summary_has_shared_words_first_then_telling_ones() -> None:
    texts = ["title: red soap bar", "title: green soap; brand: lush", "title: soap of lush", "title: hair oil the"]
    texts += [f"title: oil of thing{i}" for i in range(20)]
    summary = summaries(texts)
    assert summary([0, 1, 2])[:2] == ["soap", "lush"]
    assert set(summary([0, 1, 2])[2:]) == {"red", "bar", "green", "of"}
    assert summary([0, 1, 3])[0] == "soap"
    assert summary([0, 1, 3])[-2:] == ["the", "oil"], "a function word, and what 21 of 24 texts have"
    assert summary([2, 2, 2])[:2] == summary([2])[:2], "an item shown again is still one"
    assert len(summary([*range(24)])) == SUMMARY_WORDS
    assert "title" not in summary([0, 1, 2, 3])


@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize("objective", ["trie", "full"])
def test_the_loss_of_a_task_is_that_of_each_sequence_alone(objective: str, slots: bool) -> None:
    """Each sequence is written out by hand, and read alone."""
    backbone, rows = made(slots=slots)
    model, tokenizer = backbone.model, backbone.tokenizer
    trie, windows = build_trie(rows, EOS), make_windows(SEQUENCES, 6)
    options = AuxiliaryTaskOptions(2.5, 2, TEXTS)
    tasks = make_tasks(backbone, trie, windows, objective, options, seed=5)
    assert [(task.name, len(task.lengths)) for task in tasks] == [("reconstruction", 10), ("preference", 8)]
    children, summary, slots_of = DictionaryTrie(rows, range(10)), summaries(TEXTS), model.config.item_slots

    def cost(row: list[int], answer: int, items: list[int]) -> tuple[float, int]:
        """That of what follows the EOS at `answer`: of IDs, or of a text where there are no items."""
        at, found = 0, []
        for block in "".join(f"|{token}" if token == EOS else f",{token}" for token in row).split("|")[1:]:
            n = len(block.split(","))
            found += range(at, at + n) if slots_of else range(len(found), len(found) + n)
            at += -(-n // slots_of) * slots_of if slots_of else 0
        asked = {"position_ids": torch.tensor([found]), "attention_mask": torch.ones(1, len(row)), "use_cache": False}
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row]), **asked).logits[0]
        labels = [*row[answer + 1 :], EOS]
        prefix: list[int] = []
        total = 0.0
        for place, label in enumerate(labels, answer):
            over = children.children(prefix) if items and objective == "trie" else list(range(len(tokenizer)))
            total -= logits[place][over].log_softmax(-1)[over.index(label)].item()
            prefix = [] if label == EOS else [*prefix, label]
        if objective == "full":
            return total, len(labels)
        return (total, len(items)) if items else (total / len(labels), 1)

    for number, task in enumerate(tasks):
        cues = encode(tokenizer, CUES[task.name])
        n_pairs = [10, len(windows.begin)][number]
        order = np.random.default_rng([5, number, n_pairs]).permutation(n_pairs)
        for epoch in (0, 1):
            wanted, terms, longest = 0.0, 0, 0
            for instance in range(len(task.lengths)):
                turn = epoch * len(task.lengths) + instance
                pair = int(order[turn // 2 % n_pairs])
                items = [pair] if not number else windows.items[windows.begin[pair] : windows.end[pair]].tolist()
                text = encode(tokenizer, [TEXTS[pair] if not number else " ".join(summary(items))])[0][:TEXT_TOKENS]
                ids = [token for item in items for token in (EOS, *rows[item])]
                if turn % 2:
                    row, answer, targets = [EOS, *cues[1], *ids, EOS, *text], 1 + len(cues[1]) + len(ids), []
                else:
                    row, answer, targets = [EOS, *cues[0], *text, *ids], 1 + len(cues[0]) + len(text), items
                one, n = cost(row, answer, targets)
                wanted, terms, longest = wanted + one, terms + n, max(longest, len(row))
            loss, found = task.loss_of(np.arange(len(task.lengths)), epoch)
            assert found == terms
            assert loss.item() == pytest.approx(wanted, rel=1e-5)
            assert longest <= task.lengths[0]


def test_a_text_that_is_too_long_is_cut() -> None:
    backbone, rows = made()
    texts = [text + " amber basil" * 100 for text in TEXTS]
    assert len(encode(backbone.tokenizer, texts[:1])[0]) > TEXT_TOKENS
    windows = make_windows(SEQUENCES, 6)
    (task,) = make_tasks(backbone, build_trie(rows, EOS), windows, "full", AuxiliaryTaskOptions(1, 0, texts), seed=5)
    _, terms = task.loss_of(np.array([1]), 0)
    assert terms == TEXT_TOKENS + 1


def test_windows_are_what_they_are_without_tasks_and_each_part_is_told() -> None:
    backbone, rows = made()
    trie, windows = build_trie(rows, EOS), make_windows(SEQUENCES, 6)
    alone = window_loss(backbone.model, trie, windows, "trie")
    told = {"width": lambda: torch.tensor([3.0, 2.0])}
    sizes = windows.end - windows.first
    work = TrainingTask(
        "train-rec", window_costs(windows, trie), alone, sizes=sizes, figures=told, names=lambda b: [f"U{i}" for i in b]
    )
    tasks = make_tasks(backbone, trie, windows, "trie", AuxiliaryTaskOptions(1, 0.5, TEXTS), seed=5)
    assert with_tasks(work, []) is work
    mixed = with_tasks(work, tasks)
    assert len(mixed.lengths) == 4 + 4 + 2
    assert mixed.sizes is not None
    assert mixed.sizes.tolist() == [*sizes.tolist(), *[1] * 6]
    assert list(mixed.figures) == ["recommendation", "reconstruction", "preference", "width"]

    def figures() -> dict[str, list[float]]:
        return {name: found().tolist() for name, found in mixed.figures.items()}

    own = np.array([2, 0])
    loss, terms = mixed.loss_of(own, 3)
    assert (loss.item(), terms) == (alone(own, 3)[0].item(), alone(own, 3)[1])
    assert figures()["reconstruction"] == figures()["preference"] == [0.0, 0.0]
    assert figures()["recommendation"] == [loss.item(), terms]
    assert figures()["width"] == [3.0, 2.0]

    loss, terms = mixed.loss_of(np.array([9, 1, 4, 7]), 3)
    parts = [alone(np.array([1]), 3), tasks[0].loss_of(np.array([0, 3]), 3), tasks[1].loss_of(np.array([1]), 3)]
    assert loss.item() == pytest.approx(sum(part.item() for part, _ in parts), rel=1e-6)
    assert terms == sum(n for _, n in parts)
    assert [figures()[name] for name in ("recommendation", "reconstruction", "preference")] == [
        pytest.approx([part.item(), n]) for part, n in parts
    ]
    mixed.loss_of(np.array([5]), 3)
    assert figures()["recommendation"] == figures()["width"] == [0.0, 0.0]
    assert mixed.names is not None
    assert mixed.names(np.array([8, 1, 4])) == ["U1", "a text (reconstruction)", "a text (preference)"]


def test_texts_name_what_they_are_of() -> None:
    backbone, _ = made()
    assert decode(backbone.tokenizer, encode(backbone.tokenizer, TEXTS)) == TEXTS
    words: Any = AuxiliaryTaskOptions(1, 0, TEXTS).words()
    assert set(words) >= {*TEXTS, *(cue for cues in CUES.values() for cue in cues)}
    assert AuxiliaryTaskOptions().words() == []
    with pytest.raises(UsageError, match="--preference -1"):
        AuxiliaryTaskOptions(preference=-1)
