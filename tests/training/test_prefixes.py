"""`idgr train-rec --causal-encoder`: a T5 that reads a window once learns what it would from each prefix alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from idgr.alternation.states import Row, t5_states
from idgr.cli.main import run
from idgr.decoding.beam import SearchOptions, beam_search
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import build_trie
from idgr.engine.device import eager_attention
from idgr.models.backbone import Backbone, load_backbone
from idgr.models.padding import decoder_inputs, pad_labels, pad_rows
from idgr.models.t5 import encode, read_weights
from idgr.models.tokenizer import id_tokens
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates
from idgr.recommender.objectives import decoder_states
from idgr.recommender.prefixes import prefix_loss
from idgr.recommender.sequences import Windows, make_windows
from idgr.recommender.training import Instances, instance_loss

from ..decoding.oracle import DictionaryTrie
from .conftest import TEXTUAL_IDS
from .test_stage import check_goes_on, log_of, train_rec

EOS, START, HISTORY = 1, 0, 4
SEQUENCES = [[0, 1, 2, 3, 4], [4, 3], [5, 6, 7, 8, 5, 0, 9, 1, 2], [9, 2, 2, 1], [3, 8, 7]]
GIVEN = "--causal-encoder"


@pytest.fixture
def causal(small: Backbone) -> Backbone:
    """Weights large enough that what is seen makes a difference."""
    model: Any = small.model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layer_norm" not in name:
                weight.mul_(4)
    model.config.causal_encoder = True
    return small


def renderer_of(backbone: Backbone, n_templates: int = 10) -> PromptRenderer:
    rows = id_tokens(backbone.tokenizer, TEXTUAL_IDS)
    return PromptRenderer(
        backbone.tokenizer, load_templates()[:n_templates], rows, max_history=HISTORY, causal_encoder=True
    )


def prefixes_of(windows: Windows) -> Instances:
    """Each target with what stands before it in its window, as an instance of its own."""
    rows = [
        (begin, place)
        for begin, first, end in zip(windows.begin, windows.first, windows.end, strict=True)
        for place in range(first, end)
    ]
    begin, end = np.array(rows, dtype=np.int64).T
    return Instances(windows.items, begin, end)


def mask_of(prompt: list[int]) -> torch.Tensor:
    """[1, 1, S, S] what each token sees, token by token."""
    item, of = 0, []
    for token in prompt:
        of.append(item)
        item += token == EOS
    return torch.tensor([[[[theirs <= mine for theirs in of] for mine in of]]])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("objective", ["trie", "full"])
def test_loss_and_gradient_are_those_of_each_prefix_alone(causal: Backbone, objective: str, attention: str) -> None:
    model, renderer = causal.model, renderer_of(causal, 1)
    windows = make_windows(SEQUENCES, HISTORY)
    prefixes = prefixes_of(windows)
    assert len(windows.begin) > len(SEQUENCES), "a long sequence is cut"
    assert len(prefixes.end) == sum(len(row) - 1 for row in SEQUENCES)
    trie = build_trie(renderer.id_tokens, EOS)
    model.set_attn_implementation(attention)
    together = prefix_loss(model, renderer, windows, objective, seed=5)
    alone = instance_loss(model, renderer, trie, prefixes, objective, seed=5)
    found = []
    for loss_of, n in ((together, len(windows.begin)), (alone, len(prefixes.end))):
        model.zero_grad(set_to_none=True)
        loss, terms = loss_of(np.arange(n), 2)
        (loss / terms).backward()
        found.append([loss.detach() / terms, *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    model.config.causal_encoder = False  # all tokens of a prompt see each other
    everything, terms = alone(np.arange(len(prefixes.end)), 2)
    assert abs(everything.item() / terms - found[0][0].item()) > 1e-3


def test_what_stands_for_embeddings_is_read_with_the_same_mask(causal: Backbone) -> None:
    model, renderer = causal.model, renderer_of(causal)
    trie, prefixes = build_trie(renderer.id_tokens, EOS), prefixes_of(make_windows(SEQUENCES, HISTORY))
    plain = instance_loss(model, renderer, trie, prefixes, "trie", seed=5)
    soft = instance_loss(model, renderer, trie, prefixes, "trie", 5, embed=lambda _, tokens_BS: model.shared(tokens_BS))
    with torch.no_grad():
        assert soft(np.arange(9), 0)[0].item() == pytest.approx(plain(np.arange(9), 0)[0].item(), rel=1e-6)


def test_a_windows_loss_does_not_depend_on_the_batch(causal: Backbone) -> None:
    windows = make_windows(SEQUENCES, HISTORY)
    loss_of = prefix_loss(causal.model, renderer_of(causal), windows, "trie", seed=5)
    numbers = [3, 0, 2]
    with torch.no_grad():
        together, terms = loss_of(np.array(numbers), 1)
        each = [loss_of(np.array([number]), 1) for number in numbers]
    assert together.item() == pytest.approx(sum(loss.item() for loss, _ in each), rel=1e-5)
    assert terms == sum(n for _, n in each)


@pytest.mark.parametrize("objective", ["trie", "full"])
def test_items_have_old_names_too(causal: Backbone, objective: str) -> None:
    renderer, windows = renderer_of(causal), make_windows(SEQUENCES, HISTORY)
    everything = np.arange(len(windows.begin))
    plain = prefix_loss(causal.model, renderer, windows, objective, seed=5)
    same = prefix_loss(causal.model, renderer, windows, objective, seed=5, old_ids=renderer.id_tokens)
    old = [[*row, 7] for row in renderer.id_tokens]
    other = prefix_loss(causal.model, renderer, windows, objective, seed=5, old_ids=old)
    with torch.no_grad():
        expected = plain(everything, 3)[0].item()
        assert same(everything, 3)[0].item() == pytest.approx(expected, rel=1e-5)
        assert abs(other(everything, 3)[0].item() - expected) > 1e-2


def test_prompts_end_each_id_and_leave_out_the_words_behind(causal: Backbone) -> None:
    renderer = renderer_of(causal)
    words, ids = renderer.before[1], renderer.id_tokens
    prompt = renderer.render([3, 0], 1)
    assert prompt.tokens == [*words, *ids[3], EOS, *ids[0], EOS]
    assert [prompt.tokens[start:end] for _, start, end in prompt.spans] == [ids[3], ids[0]]
    assert renderer.render([], 1).tokens == [*words, EOS]


def test_the_encoder_and_the_search_are_those_of_transformers_with_that_mask(causal: Backbone) -> None:
    model: Any = causal.model
    renderer = renderer_of(causal)
    histories = [[4, 3, 0], [], [5, 6, 7, 8], [2]]
    prompts = [renderer.render(history, 0).tokens for history in histories]
    states_BSD, lengths_B = encode(read_weights(model, torch.float64), prompts)
    model.double()
    ids, trie = renderer.id_tokens, build_trie(renderer.id_tokens, EOS)
    children = DictionaryTrie(ids, range(len(ids)))
    options = SearchOptions(k=len(ids), beams=len(ids), normalize="trie")
    rankings = [beam_search(model, trie, prompts, options), ExactSearch(model, trie, options).search(prompts, [()] * 4)]
    for number, prompt in enumerate(prompts):
        with torch.no_grad(), eager_attention(model):
            mask = torch.zeros(1, dtype=torch.float64).masked_fill(~mask_of(prompt), -1e30)
            encoded = model.encoder(input_ids=torch.tensor([prompt]), attention_mask=mask)[0]
            expected = []
            for row in ids:
                path = [*row, EOS]
                logits = model(encoder_outputs=(encoded,), decoder_input_ids=torch.tensor([[START, *row]])).logits[0]
                cost = 0.0
                for t, token in enumerate(path):
                    valid = children.children(path[:t])
                    cost += logits[t, valid].log_softmax(-1)[valid.index(token)].item()
                expected.append(cost)
        torch.testing.assert_close(states_BSD[number, : int(lengths_B[number])], encoded[0], rtol=1e-4, atol=1e-5)
        for found in rankings:
            assert sorted(found[number].items) == list(range(len(ids)))
            assert [expected[item] for item in found[number].items] == pytest.approx(found[number].scores, abs=1e-4)


def test_what_chooses_ids_sees_the_same(causal: Backbone) -> None:
    model: Any = causal.model
    prompts = [renderer_of(causal).render(history, 0).tokens for history in ([4, 3, 0], [5, 6])]
    answers = [[9, 8, EOS], [7, EOS]]
    rows = [Row(prompt, 0, 0, answers[prompt], 0, 0) for prompt in (0, 1)]
    with torch.no_grad():
        inputs = decoder_inputs(model, pad_labels(answers))
        expected = decoder_states(model, *pad_rows(prompts, 0, model.device), inputs)
        torch.testing.assert_close(t5_states(model, prompts, rows, answers), expected)
        model.config.causal_encoder = False
        assert not torch.allclose(t5_states(model, prompts, rows, answers), expected, atol=1e-3)


def test_the_folder_remembers_and_is_read_so(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(train_rec(data, small_folder, GIVEN, "--epochs", "3")) == 0
    told = orjson.loads((data / "out" / "run.json").read_bytes())
    assert (told["causal_encoder"], told["options"]["causal-encoder"]) == (True, True)
    assert {record["instances"] for record in log_of(data / "out")} == {30}
    assert load_backbone(str(data / "out")).model.config.causal_encoder is True
    ask = ["recommend", str(data / "valid.jsonl"), "--ids", str(data / "ids.jsonl"), "-k", "10"]
    assert run([*ask, "--rec", str(data / "out"), "-o", str(data / "recs.jsonl")]) == 0
    told_by = ["eval", str(data / "recs.jsonl"), "--truth", str(data / "valid.jsonl"), "--no-baselines"]
    assert run([*told_by, "-o", str(data / "m.json")]) == 0
    measured = orjson.loads((data / "m.json").read_bytes())
    assert measured["ndcg@10"] == pytest.approx(told["kept"]["ndcg@10"], abs=1e-6)

    assert (
        run(
            [
                "export",
                str(data / "out"),
                "--to",
                "transformers",
                "--ids",
                str(data / "ids.jsonl"),
                "-o",
                str(data / "served"),
            ]
        )
        == 1
    )
    assert "its encoder is causal by item (causal_encoder), which other programs" in capfd.readouterr().err
    again = ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--epochs", "1"]
    again += ["--model", str(data / "out"), "-o", str(data / "again")]
    assert run(again) == 0
    assert "it was trained with --causal-encoder" in capfd.readouterr().err
    assert load_backbone(str(data / "again")).model.config.causal_encoder is False


def test_stopped_it_goes_on_to_the_same_bytes(data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = train_rec(data, small_folder, GIVEN)
    check_goes_on(given, data / "out", monkeypatch, 3)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--arch", "causal", "--model", "nano-causal"), "--causal-encoder is for --arch t5"),
        (("--user-ids", "history", "--gen", "gen", "--items", "items.jsonl"), "--user-ids history, which change with"),
    ],
)
def test_what_does_not_go_together(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], hint: str
) -> None:
    assert run(train_rec(data, small_folder, GIVEN, *options)) == 2
    assert hint in capfd.readouterr().err.splitlines()[-1]


def test_compiled_shapes_make_no_difference(data: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGR_COMPILE_BACKEND", "none")
    losses = []
    for options in ((), ("--compile", "--overwrite")):
        assert run(train_rec(data, small_folder, GIVEN, "--dropout", "0", *options)) == 0
        losses.append([record["loss"] for record in log_of(data / "out")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("rec", "options", "hint"),
    [
        ("nano-causal", (f"--rec.{GIVEN[2:]}",), "--rec.causal-encoder is for a T5 as --rec"),
        ("out", ("--user-ids", "history"), "--user-ids history with a recommender whose encoder is causal by item"),
        ("out", (), None),
    ],
)
def test_alternate_goes_on_so(
    data: Path,
    small_folder: Path,
    capfd: pytest.CaptureFixture[str],
    rec: str,
    options: tuple[str, ...],
    hint: str | None,
) -> None:
    assert run(train_rec(data, small_folder, GIVEN)) == 0
    which = rec if rec == "nano-causal" else str(data / rec)
    given = [
        "alternate",
        str(data),
        "--gen",
        str(small_folder),
        "--rec",
        which,
        "--rounds",
        "1",
        "-o",
        str(data / "run"),
    ]
    assert run([*given, *options, *(() if hint else ("--dry-run",))]) == (2 if hint else 0)
    found = capfd.readouterr()
    if hint:
        assert hint in found.err.splitlines()[-1]
    else:
        assert f"--model {which} --causal-encoder" in found.out
