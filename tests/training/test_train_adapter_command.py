"""`train-rec --word-tokens --lora` and `train-adapter`, and `recommend` with an adapter and without."""

from __future__ import annotations

import signal
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.engine import trainer
from idgr.formats.adapter_folder import weights_hash
from idgr.formats.jsonl import write_jsonl
from idgr.formats.run_info import hash_folder, sha256_file
from idgr.models import lora
from idgr.models.backbone import Backbone, CausalPreset, load_causal_backbone, new_causal_backbone, save_backbone
from idgr.models.lora import CONFIG, WEIGHTS, add_lora, save_adapter
from idgr.models.tokenizer import id_tokens, train_tokenizer

from .conftest import TEXTUAL_IDS
from .test_stage import forked, stop_after

SHAPE = CausalPreset(d_model=16, d_ff=24, num_layers=1, num_heads=2, vocab_size=400)
QUICK = ["--valid-beams", "10", "--epochs", "2", "--batch-size", "4", "--lr", "1e-2"]


def train_rec(data: Path, *options: str, ids: str = "ids.jsonl", output: str = "rec") -> list[str]:
    return ["train-rec", str(data / "train.jsonl"), "--ids", str(data / ids), "--arch", "causal", "--valid",
            str(data / "valid.jsonl"), *QUICK, "-o", str(data / output), *options]  # fmt: skip


def train_adapter(data: Path, *options: str, output: str = "adapter") -> list[str]:
    return ["train-adapter", str(data / "train.jsonl"), "--rec", str(data / "rec"), "--ids", str(data / "ids.jsonl"),
            "--valid", str(data / "valid.jsonl"), "--rank", "2", *QUICK, "-o", str(data / output),
            *options]  # fmt: skip


def recommend(data: Path, *options: str, output: str = "recs.jsonl") -> list[str]:
    return ["recommend", str(data / "valid.jsonl"), "--rec", str(data / "rec"), "--ids", str(data / "ids.jsonl"), "-k",
            "5", "-o", str(data / output), *options]  # fmt: skip


@pytest.fixture
def rec(data: Path) -> Path:
    """A trained causal recommender of the folder's IDs, in `rec`."""
    backbone = new_causal_backbone(SHAPE, train_tokenizer(TEXTUAL_IDS, 400), seed=3)
    (data / "start").mkdir()
    save_backbone(backbone, data / "start")
    assert run(train_rec(data, "--model", str(data / "start"), "--epochs", "4")) == 0
    return data / "rec"


def record_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(output.read_bytes())
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_index_words_are_tokens_and_learn_under_lora(data: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    tokenizer = train_tokenizer(["amber basil", "cedar amber basil"], 400)
    config = new_causal_backbone(SHAPE, tokenizer, seed=3).model.config
    config.tie_word_embeddings = tied
    torch.manual_seed(3)
    start = Backbone(LlamaForCausalLM(config), tokenizer)
    (data / "start").mkdir()
    save_backbone(start, data / "start")
    old = {name: weight.detach() for name, weight in start.model.named_parameters()}

    codes = [f"a{a}b b{b}c" for a in "ab" for b in "abcde"]
    write_jsonl(data / "codes.jsonl", ({"item_id": f"I{i}", "id": text} for i, text in enumerate(codes)))
    options = ["--model", str(data / "start"), "--word-tokens", "--lora", "2"]
    assert run(train_rec(data, *options, ids="codes.jsonl")) == 0
    read = AutoTokenizer.from_pretrained(data / "rec")
    assert all(len(row) == 2 for row in id_tokens(read, codes))
    after = dict(AutoModelForCausalLM.from_pretrained(data / "rec").named_parameters())
    assert after.keys() == old.keys()
    for name, weight in after.items():
        if "embed_tokens" in name or "lm_head" in name:
            assert len(weight) == len(old[name]) + 7
            assert torch.equal(weight[: len(old[name])], old[name])
        else:
            assert torch.equal(weight, old[name]) == ("norm" in name)
    row = ["recommend", str(data / "valid.jsonl"), "--rec", str(data / "rec"), "--ids", str(data / "codes.jsonl")]
    assert run([*row, "-k", "5", "-o", str(data / "recs.jsonl")]) == 0


def test_an_adapter_beside_its_base(data: Path, rec: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    before = hash_folder(rec)
    assert run(train_adapter(data)) == 0
    assert hash_folder(rec) == before
    adapter = data / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == [CONFIG, WEIGHTS, "log.jsonl", "run.json"]
    record = record_of(adapter / "run.json")
    assert record["base"] == sha256_file(rec / "model.safetensors")
    assert record["ids_fingerprint"] == record_of(rec / "run.json")["ids_fingerprint"]
    assert record["kept"]["epoch"] in (1, 2)

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(rec), adapter).eval()
    tokens = torch.tensor([[1, 5, 6, 7]])
    with theirs.disable_adapter():
        assert torch.equal(theirs(tokens).logits, load_causal_backbone(rec).model.eval()(tokens).logits)

    assert run(recommend(data, "--adapter", str(adapter), output="on.jsonl")) == 0
    assert run(recommend(data, output="off.jsonl")) == 0
    assert (data / "on.jsonl").read_bytes() != (data / "off.jsonl").read_bytes()
    assert record_of(data / "on.jsonl.run.json")["inputs"]["adapter"]["sha256"]
    assert "adapter" not in record_of(data / "off.jsonl.run.json")["inputs"]

    zero = data / "zero"
    model = load_causal_backbone(rec).model
    add_lora(model, 2, seed=5)  # B is zeros
    zero.mkdir()
    save_adapter(model, zero, str(rec))
    (zero / "run.json").write_bytes(orjson.dumps({"base": record["base"]}))
    assert run(recommend(data, "--adapter", str(zero), output="zero.jsonl")) == 0
    assert (data / "zero.jsonl").read_bytes() == (data / "off.jsonl").read_bytes()


def test_the_base_in_memory_is_bit_identical(data: Path, rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(lora, "save_adapter", lambda model, *rest: kept.append(model) or save_adapter(model, *rest))
    assert run(train_adapter(data, "--ema", "0.5")) == 0
    (model,) = kept
    trained = {name.replace(".base_layer", ""): weight for name, weight in model.named_parameters()}
    for name, weight in load_causal_backbone(rec).model.named_parameters():
        assert torch.equal(trained[name], weight)
    assert any(weight.abs().max() > 0 for name, weight in trained.items() if "lora_B" in name)


def test_what_was_stopped_ends_with_the_same_bytes(
    data: Path, rec: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(train_adapter(data, output="whole")) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 4, signal.SIGTERM)
        assert forked(lambda: run(train_adapter(data))) == 128 + signal.SIGTERM
    assert run(train_adapter(data)) == 0
    assert "train-adapter: goes on in epoch 2" in capfd.readouterr().err
    assert hash_folder(data / "adapter") == hash_folder(data / "whole")


def test_a_dry_run_writes_nothing(data: Path, rec: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    before = set(data.iterdir())
    assert run(train_adapter(data, "--dry-run")) == 0
    assert orjson.loads(capfd.readouterr().out)["instances_per_epoch"] == 30
    assert set(data.iterdir()) == before


def test_what_does_not_go_together_is_refused(
    data: Path, rec: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(command: list[str], code: int, hint: str) -> None:
        capfd.readouterr()
        assert run(command) == code
        assert hint in capfd.readouterr().err

    assert run(train_adapter(data, "--epochs", "1")) == 0
    adapter = str(data / "adapter")
    refused(recommend(data, "--adapter", str(rec)), 1, f"{rec}: holds no run.json that tells the base of an adapter")
    refused(train_rec(data, "--lora", "2", output="other"), 2, "--lora with --model nano-causal")
    refused([*train_rec(data, "--lora", "2", output="other"), "--arch", "t5"], 2, "--lora is for --arch causal")
    popularity = ["recommend", str(data / "valid.jsonl"), "--baseline", "popularity", "--train"]
    refused([*popularity, str(data / "train.jsonl"), "--adapter", adapter], 2, "--baseline asks no model")
    refused([*recommend(data, "--adapter", adapter, "--force"), "--rec", str(small_folder)], 2, "is a T5")
    order = (data / "ids.jsonl").read_bytes().splitlines(True)
    (data / "others.jsonl").write_bytes(b"".join(order[1:]) + order[0].replace(b"amber", b"fjord"))
    refused([*train_adapter(data, output="other"), "--ids", str(data / "others.jsonl")], 1, "trained on other IDs")

    assert run(train_rec(data, "--model", str(data / "start"), "--seed", "2", "--overwrite")) == 0
    refused(recommend(data, "--adapter", adapter), 1, f"{adapter}: is an adapter of another recommender than {rec}")

    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lora, "version", nothing)
    needs = "needs peft, which is not installed; pip install 'idgr[lora]'"
    refused(train_adapter(data, output="other"), 1, f"train-adapter {needs}")
    refused(train_rec(data, "--lora", "2", "--model", str(data / "start"), output="other"), 1, f"--lora {needs}")
    refused(recommend(data, "--adapter", adapter), 1, f"--adapter {needs}")
    assert not (data / "other").exists()


def test_the_base_is_the_recommender_as_it_was_read(data: Path, rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what lies in its place when the training is over."""
    base, train = weights_hash(rec), trainer.run_epochs

    def replaced_meanwhile(*arguments: Any) -> dict[str, Any]:
        (rec / "model.safetensors").write_bytes((rec / "model.safetensors").read_bytes() + b" ")
        return train(*arguments)

    monkeypatch.setattr(trainer, "run_epochs", replaced_meanwhile)
    assert run(train_adapter(data, "--epochs", "1")) == 0
    assert record_of(data / "adapter" / "run.json")["base"] == base != weights_hash(rec)
