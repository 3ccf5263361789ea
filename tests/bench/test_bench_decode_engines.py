"""Other engines beside idgr in `bench decode`: their beam searches, without the tree."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from idgr.bench import decode_ctranslate2, decode_onnxruntime
from idgr.bench.commands import DecodeOptions
from idgr.bench.decode import DecodeBench, Engine, bench_against_peer
from idgr.decoding.beam import SearchOptions
from idgr.errors import IdgrError, UsageError
from idgr.models.backbone import Backbone, CausalPreset, new_causal_backbone, save_backbone
from idgr.models.llama import item_slots
from idgr.models.tokenizer import train_tokenizer

from .test_bench_decode import IDS
from .test_bench_decode import bench as bench

needs_ctranslate2 = pytest.mark.skipif(find_spec("ctranslate2") is None, reason="the package ctranslate2 is missing")
needs_onnxruntime = pytest.mark.skipif(
    not all(map(find_spec, ("onnxruntime_genai", "onnx", "onnx_ir"))), reason="onnxruntime-genai or onnx is missing"
)
ENGINES = [pytest.param("ctranslate2", marks=needs_ctranslate2), pytest.param("onnxruntime", marks=needs_onnxruntime)]
MODULES: dict[str, ModuleType] = {"ctranslate2": decode_ctranslate2, "onnxruntime": decode_onnxruntime}

Search = Callable[[list[int], int, SearchOptions], list[list[int]]]


@pytest.fixture
def backbone() -> Backbone:
    return new_causal_backbone(CausalPreset(32, 64, 2, 2, 400), train_tokenizer(IDS, 400), seed=0)


def search_of(engine: str, folder: str, end: int) -> Search:
    MODULES[engine].convert(folder)
    if engine == "onnxruntime":
        return decode_onnxruntime.Engine(folder).search
    other = decode_ctranslate2.Engine(folder, "cpu", "fp32")
    return lambda prompt, steps, options: other.search([prompt], end, steps, options, batch_size=2)[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_is_a_contender_without_the_tree(
    bench: DecodeBench, backbone: Backbone, tmp_path: Path, engine: Engine
) -> None:
    save_backbone(backbone, tmp_path)
    bench = replace(bench, arch="causal", model=str(tmp_path))
    records = {record["contender"]: record for record in bench_against_peer(bench, beside=engine)}
    theirs = records[f"{engine}, unconstrained"]
    assert theirs["users_per_s"] > 0
    assert theirs["batch_size"] in ((1,) if engine == "onnxruntime" else (1, 2, 4, 16))
    assert "constraint_overhead" not in theirs
    assert list(records)[:5] == [record["contender"] for record in bench_against_peer(bench)]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_finds_what_transformers_finds_without_a_tree(backbone: Backbone, tmp_path: Path, engine: str) -> None:
    save_backbone(backbone, tmp_path)
    model: Any = backbone.model.eval()
    end = model.config.eos_token_id
    search = search_of(engine, str(tmp_path), end)
    for prompt in [[5, 6, 7, end], [9, end], [8, end, 11, 12, end]]:
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
        assert search(prompt, 3, SearchOptions(4, 6)) == theirs[:, len(prompt) :].tolist()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_of_places_for_items_is_refused(
    bench: DecodeBench, backbone: Backbone, tmp_path: Path, engine: Engine
) -> None:
    backbone.model.config.item_slots = 20
    assert item_slots(backbone.model) == 20
    save_backbone(backbone, tmp_path)
    with pytest.raises(UsageError, match=f"--beside {engine} with a model that begins items at places of their own"):
        next(bench_against_peer(replace(bench, arch="causal", model=str(tmp_path)), beside=engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_it_cannot_convert_is_said_in_one_line(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        if engine == "onnxruntime":
            return subprocess.CompletedProcess(
                [], 1, "", "Traceback\n  of many lines\nKeyError: 'model.layers are gone'\n"
            )
        raise KeyError("model.layers\nare gone")

    save_backbone(backbone, tmp_path)
    fails = {"ctranslate2": "ctranslate2.converters.TransformersConverter.convert", "onnxruntime": "subprocess.run"}
    monkeypatch.setattr(fails[engine], broken)
    with pytest.raises(UsageError, match=r"cannot convert the model .*are gone") as fault:
        MODULES[engine].convert(str(tmp_path))
    assert "\n" not in str(fault.value)


@needs_onnxruntime
def test_what_onnxruntime_cannot_run_is_said_in_one_line(tmp_path: Path) -> None:
    save_backbone(new_causal_backbone(CausalPreset(16, 32, 2, 2, 400), train_tokenizer(IDS, 400), seed=0), tmp_path)
    with pytest.raises(UsageError, match=r"cannot run the model .*multiple of 16") as fault:
        decode_onnxruntime.convert(str(tmp_path))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("engine", ["ctranslate2", "onnxruntime"])
def test_where_it_is_missing_the_extra_is_named(
    bench: DecodeBench, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    monkeypatch.setattr(MODULES[engine], "find_spec", lambda _: None)
    with pytest.raises(IdgrError, match=r"pip install 'idgr\[bench\]'"):
        next(bench_against_peer(replace(bench, arch="causal"), beside=engine))


@needs_onnxruntime
def test_onnxruntime_is_run_on_the_cpu_in_fp32_alone(bench: DecodeBench) -> None:
    with pytest.raises(UsageError, match="--beside onnxruntime on cpu in bf16"):
        next(bench_against_peer(replace(bench, arch="causal", dtype="bf16"), beside="onnxruntime"))


@pytest.mark.parametrize("more", [{}, {"arch": "causal", "items": [100]}, {"arch": "causal", "against": "exact"}])
def test_it_is_a_contender_against_transformers_alone(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--beside"):
        DecodeOptions(beside="ctranslate2", **more)
