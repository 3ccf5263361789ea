"""The generator learns through the frozen recommender: what changes, what does not, and what is refused."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.engine.options import TrainingOptions
from idgr.formats.jsonl import write_jsonl
from idgr.generator.answers import generator_inputs
from idgr.generator.id_learning import SoftPrompts, id_logits, learn_ids, stretches
from idgr.generator.options import IdLearningOptions
from idgr.ids.own_words import own_words
from idgr.models.backbone import Backbone, Preset, load_backbone, new_backbone, save_backbone
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.training import instance_loss, make_instances

WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "ivory", "jade"]
IDS = [f"{a} {b}" for a, b in itertools.pairwise(WORDS)]
TEXTS = [f"title: the {name} thing; brand: {name.split()[0]}" for name in IDS]
SEQUENCES = [[0, 1, 2, 3], [3, 4, 0], [5, 1, 0, 2, 4], [2, 3]]  # items 6 to 8 are in no history
TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=360)
TEMPLATES = ["history: {history}; next:", "seen: {history}. Suggest one more."]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([*TEXTS, *IDS, "history: next: seen: Suggest one more."], TINY.vocab_size)


@pytest.fixture
def generator(tokenizer: Any) -> Backbone:
    return new_backbone(TINY, tokenizer, seed=1)


@pytest.fixture
def recommender(tokenizer: Any) -> Backbone:
    return new_backbone(TINY, tokenizer, seed=2)


@pytest.fixture
def renderer(tokenizer: Any) -> PromptRenderer:
    return PromptRenderer(tokenizer, TEMPLATES, id_tokens(tokenizer, IDS))


def learn(
    generator: Backbone, recommender: Backbone, renderer: PromptRenderer, options: IdLearningOptions | None = None,
    objective: str = "full", **loop: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    records: list[dict[str, Any]] = []
    settings = TrainingOptions(**({"epochs": 3, "lr": 1e-2, "batch_size": 4, "dropout": 0.0} | loop))
    learn_ids(
        generator, recommender, renderer, TEXTS, SEQUENCES, objective, options or IdLearningOptions(), settings,
        lambda record: records.append(copy.deepcopy(record)),
    )  # fmt: skip
    return records


def untied_generator(tokenizer: Any) -> Backbone:
    """One whose head has a gradient of its own."""
    backbone = new_backbone(TINY, tokenizer, seed=1)
    backbone.model.config.tie_word_embeddings = False
    backbone.model.lm_head.weight = torch.nn.Parameter(backbone.model.lm_head.weight.detach().clone())
    return backbone


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


@pytest.mark.parametrize("objective", ["full", "trie"])
@pytest.mark.parametrize("options", [IdLearningOptions(), IdLearningOptions(straight_through=True, anchor=0.1)])
def test_only_the_generator_changes_and_the_loss_falls(
    generator: Backbone, recommender: Backbone, renderer: PromptRenderer, objective: str, options: IdLearningOptions
) -> None:
    gen_before, rec_before = weights(generator), weights(recommender)
    records = learn(generator, recommender, renderer, options, objective, epochs=8)

    rec_after, gen_after = weights(recommender), weights(generator)
    assert all(torch.equal(rec_before[name], rec_after[name]) for name in rec_before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in recommender.model.parameters())
    assert not any(torch.equal(gen_before[name], gen_after[name]) for name in gen_before if name.endswith("q.weight"))
    if not options.straight_through:  # there the loss shown is that of the hard IDs, which do not move
        assert records[-1]["loss"] < records[0]["loss"]


def test_repeats_bit_for_bit(tokenizer: Any, recommender: Backbone, renderer: PromptRenderer) -> None:
    results = []
    for _ in range(2):
        generator = new_backbone(TINY, tokenizer, seed=1)
        torch.rand(3)  # whatever else draws random numbers changes nothing
        learn(generator, recommender, renderer, dropout=0.1)
        results.append(weights(generator))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def loss_with(soft: SoftPrompts | None, recommender: Backbone, renderer: PromptRenderer, batch: list[int]) -> Any:
    trie = build_trie(renderer.id_tokens, recommender.tokenizer.eos_token_id)
    instances = make_instances(SEQUENCES, renderer.max_history)
    embed = soft.embed if soft is not None else None
    loss_of = instance_loss(recommender.model.eval(), renderer, trie, instances, "full", 0, embed)
    return loss_of(np.array(batch), 0)[0]


def test_straight_through_has_the_loss_of_hard_prompts(
    generator: Backbone, recommender: Backbone, renderer: PromptRenderer
) -> None:
    options = IdLearningOptions(straight_through=True)
    soft = SoftPrompts(generator, recommender.model, renderer.id_tokens, TEXTS, options)
    batch = list(range(9))
    loss = loss_with(soft, recommender, renderer, batch)
    hard = loss_with(None, recommender, renderer, batch)
    assert loss.item() == pytest.approx(hard.item(), abs=1e-4, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, generator.model.lm_head.weight)
    assert gradient.abs().max() > 0


def test_each_distinct_item_passes_once_and_no_gradient_reaches_another(
    tokenizer: Any, recommender: Backbone, renderer: PromptRenderer
) -> None:
    generator = untied_generator(tokenizer)
    passed: list[list[int]] = []
    generator.model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: passed.extend(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    soft = SoftPrompts(generator, recommender.model, renderer.id_tokens, TEXTS, IdLearningOptions())
    batch = [0, 1, 2, 3, 4]  # every prefix of the first two sequences: histories of items 0 to 4, item 0 in most
    loss_with(soft, recommender, renderer, batch).backward()

    texts = generator_inputs(tokenizer, TEXTS, 256)
    shown = sorted([token for token in row if token != tokenizer.pad_token_id] for row in passed)
    assert shown == sorted(texts[item] for item in (0, 1, 2, 3, 4))

    moved = set(generator.model.shared.weight.grad.abs().sum(1).nonzero().squeeze(1).tolist())
    read = {token for item in range(5) for token in [*texts[item], *renderer.id_tokens[item]]}
    outside = {token for item in range(5, len(TEXTS)) for token in texts[item]} - read
    assert outside
    assert moved <= read | {tokenizer.pad_token_id}
    assert not moved & outside


def test_with_own_words_alone_nothing_else_of_the_vocabulary_is_learnt(
    tokenizer: Any, recommender: Backbone, renderer: PromptRenderer
) -> None:
    generator = untied_generator(tokenizer)
    options = IdLearningOptions(own_words=True)
    soft = SoftPrompts(generator, recommender.model, renderer.id_tokens, TEXTS, options)
    batch = [0, 1, 2]  # prefixes of the first sequence, whose histories show the items 0 to 2
    loss_with(soft, recommender, renderer, batch).backward()
    moved = set(generator.model.lm_head.weight.grad.abs().sum(1).nonzero().squeeze(1).tolist())
    words = own_words(generator, TEXTS[:3])
    allowed = {
        token
        for item, one in enumerate(words)
        for place in range(len(renderer.id_tokens[item]))
        for token in one.following(renderer.id_tokens[item][:place])
    }
    assert moved <= allowed
    assert len(allowed) < len(tokenizer) / 4
    assert moved & {one.after[()][-1] for one in words}


def test_the_anchor_is_of_own_words_too(tokenizer: Any, recommender: Backbone, renderer: PromptRenderer) -> None:
    generator = new_backbone(TINY, tokenizer, seed=1)
    options = IdLearningOptions(own_words=True, anchor=1.0)
    generator.model.eval()
    soft = SoftPrompts(generator, recommender.model, renderer.id_tokens, TEXTS, options)
    loss_with(soft, recommender, renderer, [0, 1, 2])
    assert soft.divergence.item() == pytest.approx(0.0, abs=1e-6)  # nothing has been learnt yet


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6).filter(lambda lengths: max(lengths) > 1), st.integers(1, 4))
def test_stretches_are_neighbouring_instances_of_one_user(lengths: list[int], size: int) -> None:
    instances = make_instances([list(range(100 * n, 100 * n + length)) for n, length in enumerate(lengths)], 20)
    begins = stretches(instances, size).tolist()
    users = (instances.items[instances.end] // 100).tolist()
    found = [users[begin:end] for begin, end in itertools.pairwise(begins)]
    expected = []
    for user, length in enumerate(lengths):
        expected += [[user] * len(range(first, min(first + size, length - 1))) for first in range(0, length - 1, size)]
    assert found == expected


def test_an_epoch_has_about_as_many_instances_as_asked_for(
    generator: Backbone, recommender: Backbone, renderer: PromptRenderer
) -> None:
    all_of_them = learn(generator, recommender, renderer, epochs=1)[0]["instances"]
    assert all_of_them == sum(len(row) - 1 for row in SEQUENCES)
    assert 4 <= learn(generator, recommender, renderer, epochs=1, epoch_instances=4)[0]["instances"] <= 8


def test_anchor_holds_the_generator_back(tokenizer: Any, recommender: Backbone, renderer: PromptRenderer) -> None:
    ends = []
    for anchor in (1e-6, 100.0):
        generator = new_backbone(TINY, tokenizer, seed=1)
        ends.append(learn(generator, recommender, renderer, IdLearningOptions(anchor=anchor))[-1]["divergence"])
    assert 0 <= ends[1] < ends[0] / 5


def test_uneven_pieces_count_by_their_positions(generator: Backbone, recommender: Backbone) -> None:
    soft = SoftPrompts(generator, recommender.model, [[5], [6, 7, 8]], TEXTS[:2], IdLearningOptions(anchor=1.0))
    sums = torch.zeros(2)
    for divergence, positions in ((2.0, 1), (4.0, 3)):
        soft.divergence, soft.n_positions = torch.tensor(divergence), positions
        sums += soft.told()
    assert (sums[0] / sums[1]).item() == 3.5


def test_logits_do_not_depend_on_who_else_is_in_the_batch(generator: Backbone, renderer: PromptRenderer) -> None:
    texts = generator_inputs(generator.tokenizer, [*TEXTS, "x " * 40], 256)
    ids = [*renderer.id_tokens, [5, 6, 7, 8, 9]]
    generator.model.eval()
    together = id_logits(generator.model, texts, ids)
    alone = torch.cat([id_logits(generator.model, [text], [row]) for text, row in zip(texts, ids, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.fixture
def folder(tmp_path: Path, generator: Backbone) -> Path:
    """Files and models on disk, with a recommender trained for an epoch."""
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(TEXTS)))
    write_jsonl(tmp_path / "ids.jsonl", ({"item_id": f"i{n}", "id": text} for n, text in enumerate(IDS)))
    rows = ({"user_id": f"u{n}", "items": [f"i{item}" for item in row]} for n, row in enumerate(SEQUENCES))
    write_jsonl(tmp_path / "train.jsonl", rows)
    (tmp_path / "gen").mkdir()
    save_backbone(generator, tmp_path / "gen")
    assert train_rec(tmp_path, "rec") == 0
    return tmp_path


def train_rec(folder: Path, output: str, ids: str = "ids.jsonl", model: str = "gen", *more: str) -> int:
    files = [str(folder / "train.jsonl"), "--ids", str(folder / ids), "--model", str(folder / model)]
    return run(["train-rec", *files, "-o", str(folder / output), "--epochs", "1", "--device", "cpu", *more])


def train_gen(folder: Path, *more: str, **other: str) -> int:
    names = {"train": "train.jsonl", "items": "items.jsonl", "ids": "ids.jsonl", "rec": "rec", "gen": "gen"} | other
    train = str(folder / names.pop("train"))
    files = [part for option, name in names.items() for part in (f"--{option}", str(folder / name))]
    return run(["train-gen", train, *files, "-o", str(folder / "new"), "--device", "cpu", *more])


def test_command_writes_a_generator_and_leaves_the_recommender(folder: Path) -> None:
    before = (folder / "rec" / "model.safetensors").read_bytes()
    assert train_gen(folder, "--epochs", "2", "--anchor", "0.5", "--lr", "1e-2") == 0
    assert (folder / "rec" / "model.safetensors").read_bytes() == before
    names = {path.name for path in (folder / "new").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "log.jsonl", "run.json"}
    old, new = load_backbone(folder / "gen").model, load_backbone(folder / "new").model
    assert not torch.equal(old.shared.weight, new.shared.weight)
    log = [orjson.loads(line) for line in (folder / "new" / "log.jsonl").read_bytes().splitlines()]
    assert [record["epoch"] for record in log] == [1, 2]
    assert all(record["divergence"] >= 0 for record in log)
    record = orjson.loads((folder / "new" / "run.json").read_bytes())
    assert record["options"]["lr"] == 1e-2
    assert set(record["inputs"]) == {"train", "items", "ids", "rec", "gen"}


def test_the_papers_rate_is_an_option(folder: Path) -> None:
    assert train_gen(folder, "--paper") == 0
    assert orjson.loads((folder / "new" / "run.json").read_bytes())["options"]["lr"] == 1e-8


def failure(folder: Path, capsys: pytest.CaptureFixture[str], code: int, *more: str, **other: str) -> str:
    capsys.readouterr()
    assert train_gen(folder, *more, **other) == code
    assert not (folder / "new").exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("idgr: error:")]
    assert len(lines) == 1
    return lines[0]


def test_refuses_what_does_not_fit_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = new_backbone(TINY, train_tokenizer(["quite another catalogue of words"], 300), seed=0)
    (folder / "foreign").mkdir()
    save_backbone(other, folder / "foreign")
    assert "--tokenizer" in failure(folder, capsys, 1, gen="foreign")

    write_jsonl(folder / "other.jsonl", ({"item_id": f"i{n}", "id": text} for n, text in enumerate(IDS[::-1])))
    assert "trained on other IDs" in failure(folder, capsys, 1, ids="other.jsonl")
    assert "train.jsonl:2: unknown item 'i4'" in failure_on_few_ids(folder, capsys)
    write_jsonl(folder / "few.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(TEXTS[:3])))
    assert "few.jsonl: has no item 'i3'" in failure(folder, capsys, 1, items="few.jsonl")
    assert "gen: its run.json does not tell objective" in failure(folder, capsys, 1, rec="gen")

    assert "--paper and --lr" in failure(folder, capsys, 2, "--paper", "--lr", "1e-3")
    assert "--temperature" in failure(folder, capsys, 2, "--temperature", "0")
    assert "--anchor" in failure(folder, capsys, 2, "--anchor", "-1")
    assert "--epochs" in failure(folder, capsys, 2, "--epochs", "0")


def failure_on_few_ids(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    write_jsonl(folder / "some.jsonl", ({"item_id": f"i{n}", "id": text} for n, text in enumerate(IDS[:4])))
    return failure(folder, capsys, 1, "--force", ids="some.jsonl")


def test_force_takes_a_recommender_of_other_ids(folder: Path) -> None:
    write_jsonl(folder / "other.jsonl", ({"item_id": f"i{n}", "id": text} for n, text in enumerate(IDS[::-1])))
    assert train_gen(folder, "--force", ids="other.jsonl") == 0
