"""A GGUF file is read as the model it was made from, and told in one line where it cannot be."""

from __future__ import annotations

import json
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats.jsonl import write_jsonl
from idgr.models import gguf, memory
from idgr.models.backbone import Backbone, arch_of, load_causal_backbone, load_either, save_backbone
from idgr.models.gguf_header import read_gguf_header
from idgr.models.memory import check_memory
from idgr.models.tokenizer import decode, encode, load_tokenizer

from ..decoding.oracle import tiny_llama
from .gguf_files import write_gguf

needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="the package gguf is not installed")
IDS = ("chi pro hair dryer", "chi hair brush", "red nail polish", "blue nail polish", "aloe", "aloe cream", "soap bar")
KEYS = [f"I{n}" for n in range(len(IDS))]


def byte_level_tokenizer() -> Any:
    """A byte-level BPE with GPT-2's cut into words, as the file calls it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*IDS, " ".join(IDS), *IDS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **{"pad_token": "<pad>", "eos_token": "<end>"})


def grouped_llama(seed: int, vocabulary: int, **changes: Any) -> Any:
    """A Llama of which two heads of queries share one of keys; its width is one that 8-bit blocks divide."""
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    return tiny_llama(seed, vocabulary, **shape, **changes)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_level_tokenizer()


@needs_gguf
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_the_model_it_was_made_from(tmp_path: Path, tokenizer: Any, tied: bool) -> None:
    model = grouped_llama(3, len(tokenizer), tie_word_embeddings=tied)
    path = write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    (tmp_path / "tokenizer_config.json").write_text("{ no JSON")  # nothing beside the file is read
    for source in (path, tmp_path):
        found = load_causal_backbone(source)
        assert type(found.model) is type(model)
        assert all(weight.dtype == torch.float32 for weight in found.model.parameters())
        tokens = torch.tensor([encode(tokenizer, ["chi hair dryer, red"])[0]])
        with torch.no_grad():
            assert torch.equal(found.model(tokens).logits, model(tokens).logits)
    assert arch_of(str(path)) == "causal"


@needs_gguf
def test_the_tokenizer_reads_as_the_one_it_was_made_from(tmp_path: Path, tokenizer: Any) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", grouped_llama(3, len(tokenizer)), tokenizer)
    found = load_tokenizer(str(path))
    texts = [*IDS, "Chi's  hair,\nred 12 é", "<end>"]
    assert encode(found, texts) == encode(tokenizer, texts)
    assert decode(found, encode(found, texts)) == decode(tokenizer, encode(tokenizer, texts))
    assert (found.eos_token, found.pad_token, found.name_or_path) == ("<end>", "<pad>", str(path))


@needs_gguf
def test_packed_weights_are_unpacked(tmp_path: Path, tokenizer: Any) -> None:
    import gguf as package

    model = grouped_llama(3, len(tokenizer))
    path = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, packed=True)
    found = load_causal_backbone(path).model
    weight = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    kind = package.GGMLQuantizationType.Q8_0
    wanted = package.quants.dequantize(package.quants.quantize(weight, kind), kind)
    assert torch.equal(found.model.layers[0].mlp.up_proj.weight, torch.from_numpy(wanted))


@needs_gguf
def test_memory_is_counted_as_unpacked(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = grouped_llama(3, len(tokenizer))
    n = sum(weight.numel() for weight in model.parameters())
    path = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, packed=True)
    assert path.stat().st_size < 4 * n
    monkeypatch.setattr(memory, "free_memory", lambda: 15 * n)
    check_memory(str(path), 15)
    with pytest.raises(IdgrError, match="needs about"):
        check_memory(str(tmp_path), 16)


@needs_gguf
def test_commands_take_the_file(tmp_path: Path, tokenizer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model = grouped_llama(3, len(tokenizer))
    path = str(write_gguf(tmp_path / "tiny.gguf", model, tokenizer))
    folder = tmp_path / "folder"
    folder.mkdir()
    save_backbone(Backbone(model, tokenizer), folder)
    data = tmp_path / "data"
    data.mkdir()
    rows = zip(KEYS, IDS, strict=True)
    write_jsonl(data / "items.jsonl", ({"item_id": key, "text": f"title: {text}"} for key, text in rows))
    write_jsonl(tmp_path / "ids.jsonl", ({"item_id": key, "id": text} for key, text in zip(KEYS, IDS, strict=True)))
    write_jsonl(data / "train.jsonl", [{"user_id": "a", "items": KEYS[:4]}, {"user_id": "b", "items": KEYS}])
    write_jsonl(data / "test.jsonl", [{"user_id": "a", "history": KEYS[:3], "target": "I5"}])
    ids, items, train = str(tmp_path / "ids.jsonl"), str(data / "items.jsonl"), str(data / "train.jsonl")
    for name, source in (("file", path), ("whole", str(folder))):
        out = tmp_path / name
        out.mkdir()
        asked = ["recommend", str(data / "test.jsonl"), "--ids", ids, "-k", "3", "--beams", "7", "--device", "cpu"]
        assert run([*asked, "--rec", source, "--force", "-o", str(out / "recs.jsonl")]) == 0
        gen = ["gen-ids", items, "--model", source, "--penalty-stop", "0.3", "--device", "cpu"]
        assert run([*gen, "-o", str(out / "ids.jsonl")]) == 0
        fit = ["train-rec", train, "--ids", ids, "--model", source, "--epochs", "1", "--device", "cpu"]
        assert run([*fit, "-o", str(out / "rec")]) == 0
        assert run([*asked, "--rec", str(out / "rec"), "-o", str(out / "trained.jsonl")]) == 0
        assert "GGUF" not in capfd.readouterr().err
    for name in ("recs.jsonl", "ids.jsonl", "trained.jsonl"):
        assert (tmp_path / "file" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    record = json.loads((tmp_path / "file" / "rec" / "run.json").read_text())
    assert record["inputs"]["model"]["path"].endswith("tiny.gguf")
    assert record["inputs"]["model"]["sha256"]
    assert "quantization_config" not in (tmp_path / "file" / "rec" / "config.json").read_text()
    zero = ["zeroshot", str(data), "--rec", path, "--scheme", "keyphrase", "-k", "3", "--beams", "7"]
    assert run([*zero, "--device", "cpu", "-o", str(tmp_path / "zero")]) == 0


@needs_gguf
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"arch": "qwen2"}, "is a GGUF file of the architecture 'qwen2'"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type is 'yarn'"),
        ({"extra": ["rope_freqs.weight"]}, "as that of Llama 3.1 is"),
        ({"extra": ["blk.0.attn_q.bias"]}, "has a tensor blk.0.attn_q.bias, which a plain Llama has not"),
        ({"llama.attention.key_length": 6}, "turns 16 of the 6 numbers of a head by their place"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(
    tmp_path: Path, tokenizer: Any, changes: dict[str, Any], what: str
) -> None:
    model = grouped_llama(3, len(tokenizer))
    path = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, **changes)
    with pytest.raises(IdgrError) as caught:
        load_either(str(path))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*pairs: bytes, version: int = 3, tensors: bytes = b"", n_tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, len(pairs)) + b"".join(pairs) + tensors


def told(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


ARCHITECTURE = told("general.architecture", "llama")
TENSOR = text("a") + struct.pack("<IQIQ", 1, 4, 0, 0)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"GGUF", "is a damaged GGUF file: it is cut off"),
        (header(version=1), "is a GGUF file of version 1"),
        (header(version=0x03000000), "is a GGUF file of version"),
        (header(ARCHITECTURE)[:-2], "is a damaged GGUF file: it is cut off"),
        (header(text("a") + struct.pack("<I", 99)), "its metadata has a value of type 99"),
        (header(text("a") + struct.pack("<IIQ", 9, 9, 1)), "an array of values of type 9"),
        (header(text("a") + struct.pack("<IIQ", 9, 8, 1 << 62)), "it is cut off"),
        (header(text("a") + struct.pack("<IIQ", 9, 4, 1 << 62)), "it is cut off"),
        (header(struct.pack("<Q", (1 << 64) - 1)), "it is cut off"),
        (header(struct.pack("<Q", 1) + b"\xff"), "damaged GGUF file"),
        (header(n_tensors=1 << 63), "it is cut off"),
        (header(tensors=text("a") + struct.pack("<I", 5), n_tensors=1), "its tensor 'a' has 5 dimensions"),
        (header(tensors=TENSOR * 2, n_tensors=2), "it has two tensors 'a'"),
        (header(), "is a GGUF file of none"),
        (header(told("general.architecture", "t5")), "is a GGUF file of the architecture 't5'"),
        (header(ARCHITECTURE), "its metadata tells no llama.attention.head_count"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(
    tmp_path: Path, content: bytes, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "text": "title: red soap"}\n')
    for source in (path, tmp_path):
        more = ["--model", str(source), "-o", str(tmp_path / "ids.jsonl")]
        assert run(["gen-ids", str(tmp_path / "items.jsonl"), *more]) == 1
        said = capfd.readouterr().err
        assert what in said
        assert said.count("\n") == 1


def test_the_header_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    array = text("list") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("yy")
    number = text("n") + struct.pack("<If", 6, 0.5)
    tensor = text("w") + struct.pack("<IQQIQ", 2, 4, 3, 0, 0)
    path.write_bytes(header(ARCHITECTURE, array, number, tensors=tensor, n_tensors=1))
    found = read_gguf_header(path)
    assert (found.architecture, found.metadata["n"], found.lengths) == ("llama", 0.5, {"list": 2})
    assert found.shapes == {"w": (3, 4)}


def test_a_folder_of_several_or_of_none(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(header(ARCHITECTURE))
    with pytest.raises(IdgrError, match=r"holds 2 GGUF files, such as a\.gguf and b\.gguf; name one of them"):
        load_either(str(tmp_path))
    (tmp_path / "b.gguf").unlink()
    (tmp_path / "a.gguf").write_bytes(b"something else")
    with pytest.raises(IdgrError, match=r"its a\.gguf is no GGUF file"):
        load_either(str(tmp_path))


def test_the_extra_is_named_where_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise gguf.PackageNotFoundError(name)

    monkeypatch.setattr(gguf, "version", missing)
    keys = ("context_length", "embedding_length", "feed_forward_length", "block_count", "attention.head_count")
    numbers = [text(f"llama.{key}") + struct.pack("<II", 4, 4) for key in keys]
    epsilon = text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    (tmp_path / "a.gguf").write_bytes(header(ARCHITECTURE, *numbers, epsilon))
    with pytest.raises(IdgrError, match=r"the package gguf, and that is not installed; pip install 'idgr\[gguf\]'"):
        load_tokenizer(str(tmp_path / "a.gguf"))
