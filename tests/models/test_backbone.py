"""Backbones: what `--model` may name, what a saved one gives back, and what is refused in one line."""

from __future__ import annotations

import copy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr.errors import IdgrError, UsageError
from idgr.models.backbone import (
    PRESETS,
    Backbone,
    CausalPreset,
    Preset,
    load_backbone,
    new_backbone,
    new_causal_backbone,
    resolve_model,
)

SHAPE = Preset(d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8, vocab_size=400)


def logits(model: torch.nn.Module) -> torch.Tensor:
    prompts = torch.tensor([[5, 9, 30, 1], [7, 8, 1, 0]])
    mask = (prompts != 0).long()
    with torch.inference_mode():
        out: torch.Tensor = model.eval()(
            input_ids=prompts, attention_mask=mask, decoder_input_ids=torch.tensor([[0, 4, 6], [0, 9, 2]])
        ).logits
    return out


def test_a_saved_backbone_loads_with_transformers_and_gives_the_same_logits(tiny: Backbone, folder: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    again = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert torch.equal(logits(again), logits(tiny.model))
    assert torch.equal(logits(load_backbone(folder).model), logits(tiny.model))
    assert AutoTokenizer.from_pretrained(folder)("nail polish").input_ids[-1] == tiny.tokenizer.eos_token_id


def test_weights_come_from_the_seed_alone(tiny: Backbone) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    one, same, other = (new_backbone(SHAPE, tiny.tokenizer, seed).model for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))


def test_nano_is_small(tiny: Backbone) -> None:
    preset = PRESETS["nano"]
    model = new_backbone(preset, tiny.tokenizer, seed=0).model
    beside_vocabulary = model.num_parameters() - model.shared.weight.numel()
    assert 2e6 < beside_vocabulary + preset.vocab_size * preset.d_model < 6e6


def test_cross_attention_begins_as_a_copier(tiny: Backbone) -> None:
    for block in tiny.model.decoder.block:
        cross = block.layer[1].EncDecAttention
        torch.testing.assert_close(cross.o.weight @ cross.v.weight, torch.eye(tiny.model.config.d_model))


def test_a_causal_preset_learns_eos_where_padding_is_that(tiny: Backbone) -> None:
    """Every item is read behind an EOS, so its row begins as those of other tokens, and learns from what is read."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    model: Any = new_causal_backbone(CausalPreset(16, 24, 1, 2, 400), tokenizer, seed=3).model
    eos = tokenizer.eos_token_id
    assert model.config.pad_token_id == eos
    table = model.get_input_embeddings().weight
    assert table[eos].norm() > 0.5 * table.norm(dim=1).mean()
    (plain,) = torch.autograd.grad(model.model(torch.tensor([[eos, 7]]))[0].sum(), table)
    assert plain[eos].abs().sum() > 0


def test_a_preset_learns_a_vocabulary_or_shares_one(tiny: Backbone, folder: Path) -> None:
    own = resolve_model("nano", texts=lambda: ["red nail polish", "blue nail polish"], vocab_size=300)
    assert own.model.config.vocab_size == len(own.tokenizer) <= 300
    shared = resolve_model("nano", tokenizer=str(folder), texts=lambda: pytest.fail("no vocabulary is to be learnt"))
    assert shared.tokenizer.get_vocab() == tiny.tokenizer.get_vocab()


def test_options_that_a_saved_model_cannot_heed_are_refused(folder: Path) -> None:
    for given in ({"tokenizer": str(folder)}, {"vocab_size": 300}):
        with pytest.raises(UsageError, match="a vocabulary of its own"):
            resolve_model(str(folder), texts=list, **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--vocab-size given with --tokenizer"):
        resolve_model("nano", tokenizer=str(folder), vocab_size=300, texts=list)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(IdgrError, match="as pickle") as caught:
        load_backbone(folder)
    assert "safetensors" in caught.value.todo


def test_an_incomplete_model_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IdgrError, match=r"misses the weights of 1 tensors, such as encoder\.block\.1"):
        load_backbone(folder)


@pytest.mark.parametrize("damage", ["cut", "shape", "config", "no config", "no tokenizer"])
def test_a_damaged_folder_is_named(folder: Path, damage: str) -> None:
    config = orjson.loads((folder / "config.json").read_bytes())
    match damage:
        case "cut":
            whole = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        case "shape":
            (folder / "config.json").write_bytes(orjson.dumps(config | {"d_ff": 48}))
        case "config":
            (folder / "config.json").write_bytes(b"{")
        case "no config":
            (folder / "config.json").unlink()
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
    with pytest.raises(IdgrError) as caught:
        load_backbone(folder)
    assert str(caught.value).startswith(f"{folder}: ")


def test_other_architectures_are_refused(tiny: Backbone, tmp_path: Path) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = BartConfig(vocab_size=len(tiny.tokenizer), encoder_attention_heads=2, decoder_attention_heads=2, **small)
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(IdgrError, match="is a BartForConditionalGeneration; give a model of the T5 architecture"):
        load_backbone(tmp_path)


def test_a_tokenizer_larger_than_the_embeddings_is_refused(folder: Path, tiny: Backbone) -> None:
    from idgr.models.tokenizer import train_tokenizer

    words = [f"{a}{b}" for a in ("ab", "cd", "ef", "gh", "ij") for b in ("kl", "mn", "op", "qr", "st")]
    larger = train_tokenizer([f"{a} {b}" for a in words for b in words], 800)
    assert len(larger) > len(tiny.tokenizer)
    larger.save_pretrained(folder)
    with pytest.raises(IdgrError, match="its tokenizer has"):
        load_backbone(folder)


@pytest.mark.parametrize("name", ["t5-small", "someone/some-model", "/nowhere/at/all", "./nano", "a/b/c"])
def test_a_name_that_cannot_be_had_offline_gives_one_line(name: str) -> None:
    with pytest.raises(IdgrError) as caught:
        load_backbone(name)
    assert repr(name) in str(caught.value)
    for way_out in ("local", "nano", "init-gen", "keyphrase", "HF_HOME"):
        assert way_out in str(caught.value)


def test_a_hub_that_does_not_answer_is_asked_once_and_silently() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # no one listens: connections are refused
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        script = (
            "from idgr.errors import IdgrError\nfrom idgr.models.tokenizer import load_tokenizer\n"
            "try:\n    load_tokenizer('someone/some-model')\nexcept IdgrError as fault:\n    print(fault)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": "/nonexistent/hub", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert "the hub cannot be reached" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
