"""`idgr train-rec --freeze`: what stays keeps its bytes and costs no gradient, and the rest learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.errors import UsageError
from idgr.models.backbone import Backbone, CausalPreset, Preset, new_backbone, new_causal_backbone, save_backbone
from idgr.models.freezing import freeze_layers
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates, template_words
from idgr.recommender.sequences import make_windows, window_loss
from idgr.recommender.training import instance_loss, make_instances

from .conftest import TEXTUAL_IDS
from .test_stage import check_goes_on, log_of

N_LAYERS, FROZEN = 3, 2
by_arch = pytest.mark.parametrize("arch", ["causal", "t5"])


def backbone(arch: str) -> Backbone:
    tokenizer = train_tokenizer([*TEXTUAL_IDS, *template_words(load_templates())], 400)
    shape: dict[str, Any] = {"d_model": 16, "d_ff": 32, "num_layers": N_LAYERS, "num_heads": 2, "vocab_size": 400}
    if arch == "t5":
        return new_backbone(Preset(**shape, d_kv=8), tokenizer, 1)
    return new_causal_backbone(CausalPreset(**shape), tokenizer, 1)


def layers_of(model: Any) -> Any:
    return model.encoder.block if model.config.is_encoder_decoder else model.model.layers


def command(data: Path, arch: str, *options: str, output: str = "out") -> list[str]:
    folder = data / arch
    if not folder.is_dir():
        folder.mkdir()
        save_backbone(backbone(arch), folder)
    return ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "--model", str(folder),
            "--epochs", "4", "--batch-size", "4", "--lr", "3e-3", "-o", str(data / output), *options]  # fmt: skip


@by_arch
def test_what_is_frozen_keeps_its_bytes(data: Path, arch: str) -> None:
    assert run(command(data, arch, "--freeze", str(FROZEN))) == 0
    before, after = (load_file(data / name / "model.safetensors") for name in (arch, "out"))
    assert before.keys() == after.keys()
    place = "encoder.block" if arch == "t5" else "model.layers"
    first = ("shared.", "model.embed_tokens.", *(f"{place}.{layer}." for layer in range(FROZEN)))
    kept = {name for name in before if before[name].numpy().tobytes() == after[name].numpy().tobytes()}
    assert kept == {name for name in before if name.startswith(first)}
    assert len(kept) > 10
    log = log_of(data / "out")
    assert log[-1]["loss"] < log[0]["loss"]
    assert orjson.loads((data / "out" / "run.json").read_bytes())["options"]["freeze"] == FROZEN


def test_all_layers_of_a_model_may_be_frozen(data: Path) -> None:
    assert run(command(data, "causal", "--freeze", str(N_LAYERS))) == 0
    before, after = (load_file(data / name / "model.safetensors") for name in ("causal", "out"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"model.norm.weight"}


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """How many tensors are kept for the backward pass within each of the model's first layers."""
    kept, inside = [0] * N_LAYERS, list[int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for layer in inside:
            kept[layer] += 1
        return tensor

    hooks = []
    for number, layer in enumerate(layers_of(model)):
        hooks.append(layer.register_forward_pre_hook(lambda *_, number=number: inside.append(number)))
        hooks.append(layer.register_forward_hook(lambda *_: inside.clear()))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
    for hook in hooks:
        hook.remove()


@by_arch
def test_frozen_layers_keep_nothing_and_have_no_gradient(arch: str) -> None:
    import numpy as np

    made = backbone(arch)
    model: Any = made.model
    model.train()
    rows = id_tokens(made.tokenizer, TEXTUAL_IDS)
    trie, sequences = build_trie(rows, made.tokenizer.eos_token_id), [[0, 1, 2, 3], [4, 5, 6]]
    if arch == "t5":
        renderer = PromptRenderer(made.tokenizer, load_templates(), rows, max_history=4)
        loss_of = instance_loss(model, renderer, trie, make_instances(sequences, 4), "trie", 0)
    else:
        loss_of = window_loss(model, trie, make_windows(sequences, 4), "trie")
    with counted(model) as kept:
        loss_of(np.array([0, 1]), 0)[0].backward()
    assert min(kept) > 0
    model.zero_grad(set_to_none=True)
    freeze_layers(model, FROZEN)
    with counted(model) as kept:
        loss_of(np.array([0, 1]), 0)[0].backward()
    assert kept[:FROZEN] == [0] * FROZEN
    assert kept[FROZEN] > 0
    frozen = [weight for module in (model.get_input_embeddings(), *layers_of(model)[:FROZEN])
              for weight in module.parameters()]  # fmt: skip
    assert all(weight.grad is None for weight in frozen)
    assert all(weight.grad is not None for weight in layers_of(model)[FROZEN].parameters())


def test_stopped_it_goes_on_to_the_same_bytes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = command(
        data, "causal", "--freeze", str(FROZEN), "--valid", str(data / "valid.jsonl"), "--valid-beams", "10"
    )
    check_goes_on(given, data / "out", monkeypatch, 5)


@pytest.mark.parametrize(
    ("arch", "options", "hint"),
    [
        ("causal", ["--freeze", "4"], "--freeze 4, but the model has 3; give at most 3"),
        ("causal", ["--freeze", "3", "--layers", "2"], "--freeze 3, but the model has 2; give at most 2"),
        ("t5", ["--freeze", "4"], "--freeze 4, but the model's encoder has 3; give at most 3"),
        ("causal", ["--freeze", "-1"], "--freeze -1; give a number of at least 0"),
        ("causal", ["--freeze", "1", "--word-tokens"], "--freeze 1 with --word-tokens, whose embeddings have to learn"),
        ("causal", ["--freeze", "1", "--model", "nano-causal"], "--freeze 1 with --model nano-causal, whose weights"),
    ],
)
def test_what_cannot_be_frozen(
    data: Path, capfd: pytest.CaptureFixture[str], arch: str, options: list[str], hint: str
) -> None:
    assert run(command(data, arch, *options)) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("train-rec: goes on")]
    assert hint in told
    assert not (data / "out").exists()


def test_not_beside_low_rank_updates(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(command(data, "causal", "--freeze", "1", "--lora", "2")) == 2
    assert "--freeze 1 with --lora, which leaves all layers as they are; leave one" in capfd.readouterr().err


def test_a_head_of_its_own_learns() -> None:
    model: Any = backbone("causal").model
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    freeze_layers(model, 0)
    assert not model.model.embed_tokens.weight.requires_grad
    assert model.lm_head.weight.requires_grad
    with pytest.raises(UsageError, match="--freeze 9"):
        freeze_layers(model, 9)
