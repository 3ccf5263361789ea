"""A generator learns through a frozen causal recommender, and a causal generator through either kind."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.engine.options import TrainingOptions
from idgr.formats.jsonl import write_jsonl
from idgr.formats.run_info import read_run
from idgr.generator.id_learning import SoftPrompts, id_logits, learn_ids
from idgr.generator.options import IdLearningOptions
from idgr.ids.causal_prompts import PLAIN, causal_prompts
from idgr.models.backbone import (
    TAUGHT,
    Backbone,
    CausalPreset,
    Preset,
    load_either,
    new_backbone,
    new_causal_backbone,
    save_backbone,
)
from idgr.models.llama import fit_item_slots, position_ids
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.sequences import make_windows, window_loss

WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "ivory", "jade"]
IDS = [f"{a} {b}" for a, b in itertools.pairwise(WORDS)]
IDS[3] = "delta"  # IDs differ in length
TEXTS = [f"title: the {name} thing; brand: {name.split()[0]}" for name in IDS]
SEQUENCES = [[0, 1, 2, 3], [3, 4, 0], [5, 1, 0, 2, 4], [2, 3]]  # items 6 to 8 are in no history
T5 = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=360)
LLAMA = CausalPreset(d_model=16, d_ff=24, num_layers=2, num_heads=2, vocab_size=360)
KINDS = ("t5", "causal")
EOS = 1


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([*TEXTS, *IDS, PLAIN, "history: next:"], 360)


def make(kind: str, tokenizer: Any, seed: int) -> Backbone:
    return new_backbone(T5, tokenizer, seed) if kind == "t5" else new_causal_backbone(LLAMA, tokenizer, seed)


def renderer_for(recommender: Backbone, *, slots: bool = True, leads: bool = True) -> Any:
    rows = id_tokens(recommender.tokenizer, IDS)
    if recommender.arch == "t5":
        return PromptRenderer(recommender.tokenizer, ["history: {history}; next:"], rows)
    model: Any = recommender.model
    if slots:
        fit_item_slots(model, rows, new=True)
    return HistoryRenderer(EOS, rows, 4, 100, leads=leads)


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def windows_loss(
    recommender: Backbone, renderer: HistoryRenderer, embed: Any = None, objective: str = "full"
) -> tuple[torch.Tensor, int]:
    model: Any = recommender.model
    windows = make_windows(SEQUENCES, renderer.max_history)
    trie = build_trie(renderer.id_tokens, renderer.end)
    loss_of = window_loss(model.eval(), trie, windows, objective, leads=renderer.leads, embed=embed)
    return loss_of(np.arange(len(windows.begin)), 0)


@pytest.mark.parametrize("objective", ["full", "trie"])
@pytest.mark.parametrize(("slots", "leads"), [(True, True), (False, True), (False, False)])
def test_a_one_hot_distribution_gives_the_loss_of_the_hard_ids(
    objective: str, slots: bool, leads: bool, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = make("causal", tokenizer, 2)
    renderer = renderer_for(recommender, slots=slots, leads=leads)
    soft = SoftPrompts(make("causal", tokenizer, 1), recommender.model, renderer.id_tokens, TEXTS, IdLearningOptions())

    def sure(model: Any, texts: Any, ids: Any) -> torch.Tensor:
        tokens_N = torch.tensor([token for row in ids for token in row])
        return 1e4 * torch.nn.functional.one_hot(tokens_N, len(tokenizer)).float()

    monkeypatch.setattr("idgr.generator.id_learning.id_logits", sure)
    found, terms = windows_loss(recommender, renderer, soft.embed, objective)
    wanted, n = windows_loss(recommender, renderer, None, objective)
    assert (found.item(), terms) == (pytest.approx(wanted.item(), rel=1e-6), n)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_expected_embeddings_one_window_at_a_time(kind: str, tokenizer: Any) -> None:
    """A plain computation: at each place of an ID the mean of the embeddings, and cross-entropy behind every token."""
    generator, recommender = make(kind, tokenizer, 1), make("causal", tokenizer, 2)
    renderer, options = renderer_for(recommender), IdLearningOptions(temperature=0.7)
    model: Any = recommender.model.eval()
    generator.model.eval()
    soft = SoftPrompts(generator, model, renderer.id_tokens, TEXTS, options)
    found, terms = windows_loss(recommender, renderer, soft.embed)

    table, rows = model.get_input_embeddings().weight, renderer.id_tokens
    means = []
    for text, row in zip(soft.texts, rows, strict=True):
        logits = id_logits(generator.model, [text], [row])
        means.append((logits / 0.7).softmax(-1) @ table)
    windows = make_windows(SEQUENCES, renderer.max_history)
    wanted, n = torch.zeros(()), 0
    for begin, first, end in zip(windows.begin, windows.first, windows.end, strict=True):
        items = windows.items[begin:end].tolist()
        tokens = [token for item in items for token in (EOS, *rows[item])]
        read = torch.cat([part for item in items for part in (table[EOS : EOS + 1], means[item])])
        places = position_ids(np.array([tokens]), EOS, model.config.item_slots)
        logits = model(inputs_embeds=read[None], position_ids=torch.from_numpy(places)).logits[0]
        start = sum(len(rows[item]) + 1 for item in items[: first - begin])
        labels = torch.tensor([*tokens[start + 1 :], EOS])
        wanted = wanted + torch.nn.functional.cross_entropy(logits[start:], labels, reduction="sum")
        n += len(labels)
    assert (found.item(), terms) == (pytest.approx(wanted.item(), rel=1e-5), n)


def test_a_llama_s_logits_are_those_behind_its_prompt_and_the_id_so_far(tokenizer: Any) -> None:
    generator = make("causal", tokenizer, 1)
    model: Any = generator.model.eval()
    prompts = causal_prompts(tokenizer, [*TEXTS, "x " * 40], 256, taught=True)
    ids = [*id_tokens(tokenizer, IDS), [5, 6, 7, 8, 9]]
    found = id_logits(model, [row.tolist() for row in prompts], ids)
    wanted = []
    for prompt, row in zip(prompts, ids, strict=True):
        for t in range(len(row)):
            wanted.append(model(torch.tensor([[*prompt.tolist(), *row[:t]]])).logits[0, -1])
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-5)


def learn(generator: Backbone, recommender: Backbone, options: IdLearningOptions, **loop: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    how = TrainingOptions(**({"epochs": 8, "lr": 1e-2, "batch_size": 4, "dropout": 0.0} | loop))
    renderer = renderer_for(recommender)
    learn_ids(
        generator, recommender, renderer, TEXTS, SEQUENCES, "trie", options, how,
        lambda record: records.append(copy.deepcopy(record)),
    )  # fmt: skip
    return records


@pytest.mark.parametrize(("gen", "rec"), [("causal", "causal"), ("t5", "causal"), ("causal", "t5")])
@pytest.mark.parametrize("options", [IdLearningOptions(), IdLearningOptions(straight_through=True, anchor=0.1)])
def test_only_the_generator_changes_and_the_loss_falls(
    gen: str, rec: str, options: IdLearningOptions, tokenizer: Any
) -> None:
    generator, recommender = make(gen, tokenizer, 1), make(rec, tokenizer, 2)
    gen_before, rec_before = weights(generator), weights(recommender)
    records = learn(generator, recommender, options)
    rec_after, gen_after = weights(recommender), weights(generator)
    assert all(torch.equal(rec_before[name], rec_after[name]) for name in rec_before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in recommender.model.parameters())
    names = [name for name in gen_before if name.endswith(("q.weight", "q_proj.weight"))]
    assert names
    assert not any(torch.equal(gen_before[name], gen_after[name]) for name in names)
    assert records[-1]["instances"] == sum(len(row) - 1 for row in SEQUENCES)
    if options.straight_through:
        assert records[-1]["divergence"] > 0
    else:  # else the loss shown is that of the hard IDs, which do not move
        assert records[-1]["loss"] < records[0]["loss"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files, a Llama that was taught to write IDs, and a causal recommender of its vocabulary."""
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(TEXTS)))
    write_jsonl(tmp_path / "ids.jsonl", ({"item_id": f"i{n}", "id": text} for n, text in enumerate(IDS)))
    rows = ({"user_id": f"u{n}", "items": [f"i{item}" for item in row]} for n, row in enumerate(SEQUENCES))
    write_jsonl(tmp_path / "train.jsonl", rows)
    given = [str(tmp_path / "items.jsonl"), "--pairs", str(tmp_path / "ids.jsonl"), "--model", "nano-causal"]
    assert run(["init-gen", *given, "--epochs", "1", "--device", "cpu", "-o", str(tmp_path / "gen")]) == 0
    given = [str(tmp_path / "train.jsonl"), "--ids", str(tmp_path / "ids.jsonl"), "--arch", "causal"]
    given += ["--tokenizer", str(tmp_path / "gen"), "--epochs", "1", "--device", "cpu"]
    assert run(["train-rec", *given, "-o", str(tmp_path / "rec")]) == 0
    return tmp_path


def train_gen(folder: Path, *more: str, output: str = "new", **other: str) -> int:
    names = {"items": "items.jsonl", "ids": "ids.jsonl", "rec": "rec", "gen": "gen"} | other
    files = [part for option, name in names.items() for part in (f"--{option}", str(folder / name))]
    train = str(folder / "train.jsonl")
    return run(["train-gen", train, *files, "-o", str(folder / output), "--device", "cpu", *more])


def test_the_command_writes_a_generator_that_is_taught(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (folder / "rec" / "model.safetensors").read_bytes()
    for output in ("new", "again"):
        assert train_gen(folder, "--epochs", "2", "--lr", "1e-2", output=output) == 0
    assert (folder / "rec" / "model.safetensors").read_bytes() == before
    new = (folder / "new" / "model.safetensors").read_bytes()
    assert new == (folder / "again" / "model.safetensors").read_bytes()
    assert new != (folder / "gen" / "model.safetensors").read_bytes()
    assert load_either(str(folder / "new")).taught
    assert read_run(folder / "new")["prompt"] == TAUGHT["prompt"]
    log = [orjson.loads(line) for line in (folder / "new" / "log.jsonl").read_bytes().splitlines()]
    assert [record["instances"] for record in log] == [10, 10]

    assert train_gen(folder, "--templates", str(folder / "ids.jsonl"), output="none") == 2
    assert "rec is a Llama, which reads no prompts" in capfd.readouterr().err
    (folder / "bare").mkdir()
    save_backbone(load_either(str(folder / "gen")), folder / "bare")
    assert train_gen(folder, gen="bare", output="none") == 1
    said = "bare: is a Llama that was not taught to write IDs; teach it first: `idgr init-gen --model`"
    assert said in capfd.readouterr().err
    assert train_gen(folder, rec="bare", output="none") == 1
    assert "its run.json does not tell objective" in capfd.readouterr().err
    assert train_gen(folder, "--force", rec="bare", output="through-bare") == 0
