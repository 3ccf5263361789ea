"""CTranslate2 beside idgr in `bench decode`: another engine's beam search, without the tree."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.bench import decode_ctranslate2 as other_engine
from idgr.bench.commands import DecodeOptions
from idgr.bench.decode import DecodeBench, bench_against_peer
from idgr.decoding.beam import SearchOptions
from idgr.errors import IdgrError, UsageError
from idgr.models.backbone import Backbone, CausalPreset, new_causal_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

from .test_bench_decode import IDS
from .test_bench_decode import bench as bench

needs_ctranslate2 = pytest.mark.skipif(find_spec("ctranslate2") is None, reason="the package ctranslate2 is missing")


@pytest.fixture
def backbone() -> Backbone:
    return new_causal_backbone(CausalPreset(16, 32, 2, 2, 400), train_tokenizer(IDS, 400), seed=0)


@needs_ctranslate2
def test_another_engine_is_a_contender_without_the_tree(bench: DecodeBench) -> None:
    bench = replace(bench, arch="causal")
    records = {record["contender"]: record for record in bench_against_peer(bench, with_ctranslate2=True)}
    theirs = records["ctranslate2, unconstrained"]
    assert theirs["users_per_s"] > 0
    assert theirs["batch_size"] in (1, 2, 4, 16)
    assert "constraint_overhead" not in theirs
    assert list(records)[:5] == [record["contender"] for record in bench_against_peer(bench)]


@needs_ctranslate2
def test_it_finds_what_transformers_finds_without_a_tree(backbone: Backbone, tmp_path: Path) -> None:
    save_backbone(backbone, tmp_path)
    other_engine.convert(str(tmp_path))
    engine = other_engine.Engine(str(tmp_path), "cpu", "fp32")
    model: Any = backbone.model.eval()
    end = model.config.eos_token_id
    prompts = [[5, 6, 7, end], [9, end], [8, end, 11, 12, end]]
    found = engine.search(prompts, end, 3, SearchOptions(4, 6), batch_size=2)
    for prompt, answers in zip(prompts, found, strict=True):
        theirs = model.generate(
            input_ids=torch.tensor([prompt]),
            num_beams=6,
            num_return_sequences=4,
            do_sample=False,
            length_penalty=0.0,
            early_stopping="never",
            max_new_tokens=3,
            min_new_tokens=3,
        )
        assert answers == theirs[:, len(prompt) :].tolist()


@needs_ctranslate2
def test_a_model_that_it_would_read_otherwise_is_refused(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone.model.config.item_slots = 20
    save_backbone(backbone, tmp_path)
    with pytest.raises(IdgrError, match="begins items at places of their own"):
        other_engine.convert(str(tmp_path))
    backbone.model.config.item_slots = 0
    save_backbone(backbone, tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("model.layers\nare gone")

    monkeypatch.setattr("ctranslate2.converters.TransformersConverter.convert", broken)
    with pytest.raises(IdgrError) as fault:
        other_engine.convert(str(tmp_path))
    assert "\n" not in str(fault.value)


def test_where_it_is_missing_the_extra_is_named(bench: DecodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_engine, "find_spec", lambda _: None)
    with pytest.raises(IdgrError, match=r"pip install 'idgr\[bench\]'"):
        next(bench_against_peer(replace(bench, arch="causal"), with_ctranslate2=True))


@pytest.mark.parametrize("more", [{}, {"arch": "causal", "items": [100]}, {"arch": "causal", "against": "exact"}])
def test_it_is_a_contender_against_transformers_alone(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--beside"):
        DecodeOptions(beside="ctranslate2", **more)
