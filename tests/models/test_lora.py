"""Low-rank updates: what learns and what does not, and that a search, a merge and peft itself see the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgr.decoding.beam import SearchOptions, beam_search
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError
from idgr.models.lora import CONFIG, WEIGHTS, add_lora, load_adapter, merge_lora, save_adapter
from idgr.recommender.sequences import make_windows, window_loss

from ..decoding.oracle import random_ids, tiny_llama

EOS = 1
TOKENS = [37, 39]


def disturb(model: Any) -> None:
    """Let the updates be more than zeros."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))


def learn(model: Any) -> None:
    ids = random_ids(np.random.default_rng(0), 12, longest=4)
    ids = [*ids, *([token] for token in TOKENS)]
    windows = make_windows([[0, 12, 3, 13], [5, 13, 12, 2]], 4)
    loss_of = window_loss(model, build_trie(ids, EOS), windows, "full")
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(np.arange(2), 0)[0].backward()
        optimizer.step()


@pytest.mark.parametrize("tied", [True, False])
def test_only_updates_and_new_rows_learn(tied: bool) -> None:
    model = tiny_llama(1, tie_word_embeddings=tied)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    add_lora(model, 2, seed=0, tokens=TOKENS)
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(learning) == 2 * 7 * 2 + (1 if tied else 2)
    learn(model)
    layer = model.model.layers[0].self_attn.q_proj
    assert torch.equal(layer.base_layer.weight, before["model.layers.0.self_attn.q_proj.weight"])
    assert layer.lora_B["default"].weight.abs().max() > 0

    wanted = model(torch.tensor([[1, 5, 6, *TOKENS]])).logits
    merge_lora(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    kept = [token for token in range(40) if token not in TOKENS]
    for name, weight in after.items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(weight[kept], before[name][kept])
            assert (weight[TOKENS] != before[name][TOKENS]).any(dim=1).all()
        else:
            assert torch.equal(weight, before[name]) == ("norm" in name)
    torch.testing.assert_close(model(torch.tensor([[1, 5, 6, *TOKENS]])).logits, wanted, atol=1e-5, rtol=1e-5)


def test_a_search_sees_the_updates_as_a_merged_model_has_them() -> None:
    generator = np.random.default_rng(3)
    ids = random_ids(generator, 30, longest=6)
    trie, prompts = build_trie(ids, EOS), [[EOS, *ids[3], EOS, *ids[8]], [], [EOS, *ids[5]]]

    def search(model: Any) -> list[Any]:
        return [(found.items, found.scores) for found in beam_search(model, trie, prompts, SearchOptions(8, 8))]

    model = tiny_llama(2, num_attention_heads=4, num_key_value_heads=2)
    plain = search(model)
    add_lora(model, 3, seed=0, tokens=[9])
    assert search(model) == plain, "B is zeros at first"
    disturb(model)
    updated = search(model)
    assert updated != plain
    merge_lora(model)
    assert search(model) == updated


def test_a_folder_is_peft_s_and_the_base_is_untouched(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    adapter.mkdir()
    model = tiny_llama(1)
    model.save_pretrained(base)
    tokens = torch.tensor([[1, 5, 6, 9]])
    plain = model(tokens).logits
    add_lora(model, 2, seed=0)
    disturb(model)
    save_adapter(model, adapter, str(base))
    assert sorted(path.name for path in adapter.iterdir()) == [CONFIG, WEIGHTS]

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    assert not torch.allclose(theirs(tokens).logits, plain, atol=1e-3)
    with theirs.disable_adapter():
        assert torch.equal(theirs(tokens).logits, plain)
    ours = tiny_llama(1)
    load_adapter(ours, adapter)
    assert type(ours.model.layers[0].self_attn.q_proj) is torch.nn.Linear
    torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    model = tiny_llama(1)
    add_lora(model, 2, seed=0)
    save_adapter(model, tmp_path, "base")
    with pytest.raises(IdgrError, match="holds no usable adapter"):
        load_adapter(tiny_llama(1, hidden_size=32), tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(IdgrError, match=f"holds no {WEIGHTS}; give a folder"):
        load_adapter(tiny_llama(1), tmp_path)


@pytest.mark.parametrize("key", ["target_modules", "r", "lora_alpha", "peft_type"])
def test_a_strange_value_in_an_adapters_configuration_is_told(tmp_path: Path, key: str) -> None:
    model = tiny_llama(1)
    add_lora(model, 2, seed=0)
    save_adapter(model, tmp_path, "base")
    path = tmp_path / "adapter_config.json"
    told = json.loads(path.read_text())
    for strange in (None, True, "", "x", [], {}, [[]], [{}], [*told["target_modules"], []]):
        path.write_text(json.dumps({**told, key: strange}))
        with pytest.raises(IdgrError, match=r"adapter_config\.json.*; give a folder"):
            load_adapter(tiny_llama(1), tmp_path)
