"""The files of a model folder: safetensors of the folder alone are opened, and what is in them is whole."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr.errors import IdgrError
from idgr.models.backbone import Backbone, load_backbone, load_causal_backbone, save_backbone
from idgr.models.tokenizer import load_tokenizer

from ..decoding.oracle import tiny_llama

Q = "encoder.block.1.layer.0.SelfAttention.q.weight"
_OPENED: list[str] = []
_WATCHING: list[bool] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING and event in ("open", "pickle.find_class", "import") and arguments:
        _OPENED.append(f"{event} {arguments[0]}" if event != "open" else str(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def watched() -> Iterator[list[str]]:
    """The paths that Python opens inside the block, and the classes that it unpickles."""
    _OPENED.clear()
    _WATCHING.append(True)
    try:
        yield _OPENED
    finally:
        _WATCHING.pop()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The folder with its weights in two files and an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    (folder / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for shard, tensors in shards.items():
        save_file({name: weights[name] for name in tensors}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, tensors in shards.items() for name in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def remap(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(IdgrError, match=match) as caught:
        load_backbone(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert caught.value.todo


def test_weights_in_several_files_are_those_in_one(sharded: Path, tiny: Backbone) -> None:
    found, wanted = load_backbone(sharded).model.state_dict(), tiny.model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("name", ["weights.bin", "pytorch_model.bin", "weights.pt", "model.gguf", 3, None, ["a"]])
def test_an_index_that_names_no_safetensors_is_refused(name: Any, sharded: Path, tmp_path: Path) -> None:
    if isinstance(name, str):
        (sharded / name).write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    remap(sharded, lambda shard_of: shard_of.update({Q: name}))
    refused(sharded, "which is no safetensors file")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "sub/a.safetensors", "..\\a"])
def test_an_index_that_leaves_the_folder_is_refused(name: str, sharded: Path) -> None:
    save_file({Q: torch.zeros(16, 16)}, sharded.parent / "outside.safetensors")
    remap(sharded, lambda shard_of: shard_of.update({Q: name}))
    with watched() as opened:
        refused(sharded, "which is no (file of the folder|safetensors file)")
    assert not [path for path in opened if "outside" in path]


def test_an_index_that_does_not_fit_its_files_is_refused(sharded: Path) -> None:
    remap(sharded, lambda shard_of: shard_of.update(more="model-00002-of-00002.safetensors"))
    refused(sharded, "looks for 'more' in model-00002-of-00002.safetensors, which does not hold it")
    remap(sharded, lambda shard_of: shard_of.update(more="model-00003-of-00002.safetensors"))
    refused(sharded, "names model-00003-of-00002.safetensors, which is missing")
    (sharded / "model.safetensors.index.json").write_text("{}")
    refused(sharded, "has no weight_map")


def test_a_tensor_in_two_files_is_refused(sharded: Path) -> None:
    first, second = (sharded / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    weights = load_file(first)
    save_file(weights | {min(load_file(second)): torch.zeros(1)}, first)
    refused(sharded, "twice")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_link_that_leaves_the_folder_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, f"its {name} is a link that leaves the folder; put the file itself there")
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "nothing")
    refused(folder, "its ")


def test_a_link_within_the_folder_and_to_the_folder_will_do(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.safetensors").hardlink_to(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    (tmp_path / "latest").symlink_to(folder)
    load_backbone(tmp_path / "latest")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub, empty; transformers and the hub's library have read its place at their import."""
    from huggingface_hub import constants, file_download

    place = tmp_path / "hub"
    place.mkdir()
    for module in (constants, file_download):
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return place


def cached(hub: Path, folder: Path, *names: str) -> None:
    """Put files of a folder into the cache as the hub's library does: blobs, and links to them."""
    home = hub / "models--someone--some-model"
    snapshot = home / "snapshots" / ("c" * 40)
    (home / "refs").mkdir(parents=True)
    (home / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    (home / "refs" / "main").write_text("c" * 40)
    for number, name in enumerate(names or sorted(path.name for path in folder.iterdir())):
        blob = f"{number:040x}"
        shutil.copy(folder / name, home / "blobs" / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")


def test_a_model_of_the_hub_s_cache_is_read(hub: Path, folder: Path, tiny: Backbone) -> None:
    cached(hub, folder)
    found = load_backbone("someone/some-model")
    assert torch.equal(found.model.shared.weight, tiny.model.shared.weight)
    assert load_tokenizer("someone/some-model").get_vocab() == tiny.tokenizer.get_vocab()


def test_pickled_weights_of_the_hub_s_cache_are_told_as_those_of_a_folder(
    hub: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    cached(hub, folder)
    sentence = "holds its weights as pickle, which idgr does not read; convert them: load the model where you trust it"
    for source in (str(folder), "someone/some-model"):
        with pytest.raises(IdgrError, match=f"^{source}: {sentence}"):
            load_backbone(source)
    assert not (tmp_path / "ran").exists()


def test_a_part_of_a_model_in_the_hub_s_cache_is_told(hub: Path, folder: Path) -> None:
    cached(hub, folder, "tokenizer.json", "tokenizer_config.json")
    load_tokenizer("someone/some-model")
    with pytest.raises(IdgrError, match=r"holds no model of it, only tokenizer\.json, tokenizer_config\.json"):
        load_backbone("someone/some-model")


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_read_into_float32(kind: torch.dtype, folder: Path) -> None:
    weights = {name: weight.to(kind) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    found = load_backbone(folder).model
    assert found.dtype == torch.float32
    assert torch.equal(found.state_dict()[Q], weights[Q].float())


def change_weights(folder: Path, **changes: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    for name, change in changes.items():
        weights[name] = change(weights.get(name))
    save_file({name: weight for name, weight in weights.items() if weight is not None}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "weight", "match"),
    [
        (Q, lambda old: old.index_fill(0, torch.tensor([3]), float("nan")), f"its '{Q}' holds values that are not fin"),
        (Q, lambda old: old.index_fill(0, torch.tensor([0]), float("inf")), "not finite"),
        (Q, lambda old: old.double() * 1e300, "not finite"),
        (Q, lambda old: old.to(torch.int8), f"its '{Q}' holds numbers of type I8"),
        (Q, lambda old: old.to(torch.float8_e4m3fn), "holds numbers of type F8_E4M3"),
        (Q, lambda old: old > 0, "holds numbers of type BOOL"),
        (Q, lambda old: None, f"misses the weights of 1 tensors, such as {Q}"),
        (Q, lambda old: old[:5].clone(), rf"its {Q} is \[5, 16\], where its config.json asks for \[16, 16\]"),
        (f"{Q}s", lambda old: torch.zeros(3), f"does not know 1 tensors, such as {Q}s"),
        ("encoder.block.7.layer.0.layer_norm.weight", lambda old: torch.zeros(3), "have 3 layers"),
        ("decoder.embed_tokens.weight", lambda old: torch.zeros(5, 16), r"its decoder.embed_tokens.weight is"),
        ("lm_head.weight", lambda old: torch.zeros(5, 16), r"its lm_head.weight is \[5, 16\]"),
        ("shared.weight", lambda old: None, "misses the weights of"),
    ],
)  # fmt: skip
def test_weights_that_are_not_whole_are_refused(name: str, weight: Any, match: str, folder: Path) -> None:
    change_weights(folder, **{name: weight})
    refused(folder, match)


def test_tables_of_encoder_and_decoder_that_differ_are_refused(folder: Path) -> None:
    change_weights(folder, **{"decoder.embed_tokens.weight": lambda _: torch.zeros(vocabulary(folder), 16)})
    refused(folder, "reads with other embeddings in its decoder than in its encoder")


def vocabulary(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def test_what_transformers_leaves_unread_is_no_fault(folder: Path) -> None:
    """Old T5s have a table that they never used, and tied tables as copies."""
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    tied = {name: lambda _: shared.clone() for name in ("lm_head.weight", "encoder.embed_tokens.weight")}
    change_weights(folder, **{unused: lambda _: torch.zeros(32, 2)}, **tied)
    load_backbone(folder)


def test_a_pickle_in_any_other_role_is_not_opened(folder: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    for name in (".metadata", "pytorch_model.bin.index.json", "adapter_model.bin", "model.pt", "vocab.pkl"):
        (folder / name).write_bytes(trap)
    (folder / "__0_0.distcp").write_bytes(trap)
    adapter = {"base_model_name_or_path": str(tmp_path / "x"), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with watched() as opened:
        load_backbone(folder)
    assert not (tmp_path / "ran").exists()
    assert not [path for path in opened if path.endswith((".metadata", ".distcp", ".bin", ".pt", ".pkl", "find_class"))]


def test_a_broken_generation_config_is_told(folder: Path) -> None:
    for content in ("{", "[]", '{"eos_token_id": '):
        (folder / "generation_config.json").write_text(content)
        refused(folder, r"its generation_config\.json")


# Tokenizers.


def settings(folder: Path, **told: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "merges_file", "fast_tokenizer_files"])
def test_a_tokenizer_that_names_a_file_elsewhere_is_refused(key: str, folder: Path) -> None:
    outside = folder.parent / "tokenizer.9.json"
    shutil.copy(folder / "tokenizer.json", outside)
    for name in (str(outside), "../tokenizer.9.json"):
        settings(folder, **{key: [name] if key.endswith("s") else name})
        with watched() as opened:
            refused(folder, r"its tokenizer_config\.json names .*, which is no file of the folder; put the file into")
        assert not [path for path in opened if "tokenizer.9" in path]


def test_what_old_libraries_noted_of_other_machines_is_no_fault(folder: Path) -> None:
    settings(folder, tokenizer_file="/home/x/tokenizer.json", special_tokens_map_file=None, name_or_path="/a/b")
    load_backbone(folder)


def test_what_is_saved_tells_nothing_of_the_machine(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    save_backbone(load_backbone(folder), again)
    told = json.loads((again / "tokenizer_config.json").read_text())
    assert not {"local_files_only", "is_local", "name_or_path", "trust_remote_code", "tokenizer_file"} & told.keys()
    for path in again.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    for name in (
        "tokenizer_config.json",
        "tokenizer.json",
        "config.json",
        "model.safetensors",
        "generation_config.json",
    ):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_tokenizer_with_tokens_beyond_the_model_s_is_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"][-1] |= {"id": 10**6, "content": "<far>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(IdgrError):
        load_backbone(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_whose_files_are_missing_is_told(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refused(folder, "tokenizer")


def test_a_tokenizer_without_eos_is_told(folder: Path) -> None:
    told = json.loads((folder / "tokenizer_config.json").read_text())
    del told["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    refused(folder, "the tokenizer has no eos_token; name one in tokenizer_config.json")


# Causal models as they come.


@pytest.fixture
def llama(tiny: Backbone, tmp_path: Path) -> Path:
    place = tmp_path / "llama"
    place.mkdir()
    tiny_llama(3, len(tiny.tokenizer), pad_token_id=None).save_pretrained(place)
    tiny.tokenizer.save_pretrained(place)
    return place


@pytest.mark.parametrize("pad", [None, 0, 1], ids=["none", "its own", "EOS"])
def test_the_row_before_every_item_learns_whatever_the_padding(pad: int | None, llama: Path) -> None:
    import numpy as np

    from idgr.decoding.trie import build_trie
    from idgr.recommender.sequences import make_windows, window_loss

    config = json.loads((llama / "config.json").read_text()) | {"pad_token_id": pad}
    (llama / "config.json").write_text(json.dumps(config))
    if pad is None:
        settings(llama, pad_token=None)
    backbone = load_causal_backbone(llama)
    assert backbone.model.config.pad_token_id == pad
    trie = build_trie([[5, 6], [7], [8, 9, 4]], backbone.tokenizer.eos_token_id)
    windows = make_windows([[0, 1, 2], [2, 0]], 5)
    losses = window_loss(backbone.model, trie, windows, "full")(np.arange(2), 0)[0]
    losses.backward()
    assert backbone.model.model.embed_tokens.weight.grad[1].abs().sum() > 0


def test_the_loss_does_not_depend_on_the_padding(llama: Path) -> None:
    import numpy as np

    from idgr.decoding.trie import build_trie
    from idgr.recommender.sequences import make_windows, window_loss

    found = []
    for pad in (None, 0, 1, 9):
        config = json.loads((llama / "config.json").read_text()) | {"pad_token_id": pad}
        (llama / "config.json").write_text(json.dumps(config))
        model = load_causal_backbone(llama).model
        trie, windows = build_trie([[5, 6], [7], [8, 9, 4]], 1), make_windows([[0, 1, 2], [2, 0]], 5)
        found.append(window_loss(model, trie, windows, "trie")(np.arange(2), 0)[0].item())
    assert found == pytest.approx([found[0]] * 4, abs=1e-5)


def test_a_llama_is_told_from_a_t5(llama: Path, folder: Path) -> None:
    from idgr.models.backbone import arch_of, check_t5

    assert [arch_of(str(source)) for source in (llama, folder, "nano", "nano-causal")] == [
        "causal",
        "t5",
        "t5",
        "causal",
    ]
    check_t5(folder, "train-gen")
    with pytest.raises(IdgrError, match="is a Llama, and train-gen takes a T5"):
        check_t5(llama, "train-gen")
    with pytest.raises(IdgrError, match="is a Llama; give a model of the T5 architecture"):
        load_backbone(llama)
    with pytest.raises(IdgrError, match="is a T5; give a model of the Llama architecture"):
        load_causal_backbone(folder)
