"""Training a causal model on whole sequences: the windows, and a loss that is that of every prefix alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.engine.dropout import dropout_rate
from idgr.models.backbone import CausalPreset, load_causal_backbone, new_causal_backbone
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.sequences import make_windows, reordered, window_costs, window_loss
from idgr.recommender.training import make_instances, windows_of

from ..decoding.oracle import DictionaryTrie, NextToken
from .conftest import TEXTUAL_IDS

SHAPE = CausalPreset(d_model=16, d_ff=24, num_layers=2, num_heads=2, vocab_size=400)
EOS = 1


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 99), max_size=40), min_size=1, max_size=6), st.integers(1, 12))
def test_every_item_but_the_first_is_a_target_once(sequences: list[list[int]], max_history: int) -> None:
    windows = make_windows(sequences, max_history)
    starts = np.cumsum([0, *map(len, sequences)])
    seen = []
    for begin, first, end, number in zip(windows.begin, windows.first, windows.end, windows.sequence, strict=True):
        assert starts[number] <= begin < first < end <= starts[number + 1]
        assert end - begin <= max_history + 1
        assert begin == starts[number] or first - begin >= max_history // 2
        seen += [(number, place) for place in range(first, end)]
    wanted = [(n, place) for n, row in enumerate(sequences) for place in range(starts[n] + 1, starts[n] + len(row))]
    assert seen == wanted
    assert windows.items.tolist() == [item for row in sequences for item in row]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=30), min_size=1, max_size=4),
    st.lists(st.integers(1, 9), min_size=6, max_size=6),
    st.integers(1, 12),
    st.integers(0, 30),
)
def test_what_stands_before_a_target_has_room(
    sequences: list[list[int]], lengths: list[int], max_history: int, more: int
) -> None:
    """As in serving: every item but the first is a target once, behind as many tokens as a prompt may have."""
    lengths_I, room = np.array(lengths), max(lengths) + more
    windows = make_windows(sequences, max_history, lengths_I, room)
    starts = np.cumsum([0, *map(len, sequences)])
    seen = []
    for begin, first, end, number in zip(windows.begin, windows.first, windows.end, windows.sequence, strict=True):
        shown = lengths_I[windows.items[begin : end - 1]]
        assert starts[number] <= begin < first < end <= starts[number + 1]
        assert len(shown) <= max_history
        assert shown.sum() <= room
        if begin > starts[number]:  # else it would have been of the window before, or sees about half of what has room
            enough = first - begin >= max_history // 2
            assert enough or lengths_I[windows.items[begin - 1 : first]].sum() > room // 2
        seen += [(number, place) for place in range(first, end)]
    assert seen == [(n, place) for n, row in enumerate(sequences) for place in range(starts[n] + 1, starts[n + 1])]
    without = make_windows(sequences, max_history)
    roomy = make_windows(sequences, max_history, lengths_I, 10_000)
    assert [array.tolist() for array in vars(roomy).values()] == [array.tolist() for array in vars(without).values()]


def test_an_instance_as_a_window_shows_what_a_prompt_does(small_renderer: PromptRenderer) -> None:
    renderer = HistoryRenderer(EOS, small_renderer.id_tokens, 4, 9)
    instances = make_instances([[0, 3, 1, 8, 2], [7, 6, 0, 1, 2, 3, 4, 5]], 4)
    windows = windows_of(instances, renderer)
    for begin, end, window in zip(instances.begin, instances.end, windows.begin, strict=True):
        shown = renderer.render(instances.items[begin:end].tolist(), 0).spans
        assert windows.items[window:end].tolist() == [item for item, _, _ in shown]
    assert (windows.begin > instances.begin).any()


def test_reordering_moves_items_within_their_window_by_their_distance() -> None:
    place_N = np.arange(20_000)
    window_N = place_N // 4
    moved = reordered(place_N, window_N, 2.0, seed=0, epoch=1).reshape(-1, 4)
    assert (np.sort(moved, axis=1) == place_N.reshape(-1, 4)).all()
    before = [np.argmax(moved % 4 == item, axis=1) for item in range(4)]
    # Two places apart by d change them with the chance that one uniform number is above another by d / 2.
    swapped = [float(np.mean(before[0] > before[item])) for item in range(1, 4)]
    assert swapped[0] == pytest.approx(1 / 8, abs=0.02)
    assert swapped[1:] == [0.0, 0.0]
    assert (reordered(place_N, window_N, 2.0, seed=0, epoch=2) != moved.ravel()).any()
    parts = [reordered(part, part // 4, 2.0, seed=0, epoch=1) for part in np.split(place_N, [400, 4_000])]
    assert (np.concatenate(parts) == moved.ravel()).all(), "whatever else is in the batch"


def test_the_loss_of_reordered_windows_is_that_of_windows_in_that_order() -> None:
    tokenizer = train_tokenizer(TEXTUAL_IDS, 400)
    model = new_causal_backbone(SHAPE, tokenizer, seed=3).model.eval()
    rows = id_tokens(tokenizer, TEXTUAL_IDS)
    fit_item_slots(model, rows, new=True)
    trie = build_trie(rows, EOS)
    windows = make_windows([[0, 3, 1, 8, 2], [5, 7, 6]], 5)
    place_N = np.arange(8)
    order = reordered(place_N, np.repeat([0, 1], [5, 3]), 9.0, seed=4, epoch=2)
    assert (order != place_N).any()
    batch = np.arange(2)
    found, n = window_loss(model, trie, windows, "trie", reorder=9.0, seed=4)(batch, 2)
    wanted, m = window_loss(model, trie, replace(windows, items=windows.items[order]), "trie")(batch, 2)
    assert (found.item(), n) == (wanted.item(), m)


@pytest.mark.parametrize("objective", ["full", "trie"])
@pytest.mark.parametrize(("slots", "leads"), [(True, True), (False, True), (False, False)])
def test_the_loss_is_that_of_every_prefix_alone(objective: str, slots: bool, leads: bool) -> None:
    """Also that no target sees itself or what comes later, in a batch of sequences of different lengths."""
    tokenizer = train_tokenizer(TEXTUAL_IDS, 400)
    model = new_causal_backbone(SHAPE, tokenizer, seed=3).model.eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    rows = id_tokens(tokenizer, TEXTUAL_IDS)
    model.config.item_slots = 0
    if slots:
        fit_item_slots(model, rows, new=True)
    sequences = [[0, 3, 1, 8, 2], [5], [4, 4], [7, 6, 0, 1, 2, 3, 4, 5]]
    trie = build_trie(rows, EOS)
    windows = make_windows(sequences, 4)
    children = DictionaryTrie(rows, range(len(rows)))

    wanted = n_tokens = 0.0
    for begin, first, end in zip(windows.begin, windows.first, windows.end, strict=True):
        for place in range(first, end):
            prompt = [token for item in windows.items[begin:place] for token in (EOS, *rows[item])]
            step = NextToken(model, rows, prompt if leads else prompt[1:])
            path = [*rows[windows.items[place]], EOS]
            for t, token in enumerate(path):
                over = children.children(path[:t]) if objective == "trie" else None
                wanted -= step.after(path[:t], over)[token]
            n_tokens += len(path)
    loss, terms = window_loss(model, trie, windows, objective, leads=leads)(np.arange(len(windows.begin)), 0)
    assert terms == (12 if objective == "trie" else n_tokens)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    bounds = zip(windows.begin, windows.end, strict=True)
    tokens = [sum(len(rows[item]) + 1 for item in windows.items[begin:end]) for begin, end in bounds]
    assert window_costs(windows, trie).tolist() == tokens


def test_dropout_is_there_in_training_and_gone_behind_it() -> None:
    model = new_causal_backbone(SHAPE, train_tokenizer(TEXTUAL_IDS, 400), seed=3).model
    tokens = torch.tensor([[1, 5, 6, 7]])
    before = model.eval()(tokens).logits
    with dropout_rate(model, 0.5):
        assert torch.equal(model.eval()(tokens).logits, before)
        model.train()
        assert not torch.equal(model(tokens).logits, before)
        model.eval()
    assert torch.equal(model.train()(tokens).logits, before)


def test_train_and_recommend(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each item is followed by the next in the catalogue, which a causal model learns."""
    rec, recs = data / "rec", data / "recs.jsonl"
    command = ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--arch", "causal"]
    command += ["--valid", str(data / "valid.jsonl"), "--objective", "trie", "--valid-beams", "10", "-o", str(rec)]
    command += ["--lr", "1e-2", "--dropout", "0", "--epochs", "60", "--batch-size", "8"]
    assert run(command) == 0
    record = orjson.loads((rec / "run.json").read_bytes())
    assert (record["arch"], record["templates"]) == ("causal", [])
    assert record["kept"]["hr@10"] == 1.0
    assert record["kept"]["instances"] == 30
    assert load_causal_backbone(rec).model.config.item_slots == max(map(len, id_tokens(
        load_causal_backbone(rec).tokenizer, TEXTUAL_IDS))) + 1  # fmt: skip
    asked = ["recommend", str(data / "valid.jsonl"), "--rec", str(rec), "--ids", str(data / "ids.jsonl")]
    assert run([*asked, "-k", "3", "-o", str(recs)]) == 0
    found = [orjson.loads(line) for line in recs.read_bytes().splitlines()]
    truth = [orjson.loads(line)["target"] for line in (data / "valid.jsonl").read_bytes().splitlines()]
    assert sum(row["items"][0] == target for row, target in zip(found, truth, strict=True)) >= 8

    capfd.readouterr()
    assert run([*asked, "--template", "1"]) == 2
    assert "--template 1: there are 1 templates" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        (["--model", "nano"], 2, "--model nano given with --arch causal; take --model nano-causal"),
        (["--user-ids", "history"], 2, "--arch causal has no prompts"),
        (["--max-prompt-tokens", "2"], 1, "a history of 2 tokens cannot hold the longest ID"),
    ],
)
def test_what_does_not_go_together_is_refused(
    data: Path, options: list[str], code: int, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--arch", "causal"]
    assert run([*command, "-o", str(data / "rec"), *options]) == code
    assert hint in capfd.readouterr().err
    assert not (data / "rec").exists()


def test_a_t5_is_no_causal_model(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--arch", "causal"]
    assert run([*command, "-o", str(data / "rec"), "--model", str(small_folder)]) == 1
    assert str(small_folder) in capfd.readouterr().err
