"""Model folders of strangers: weights are read as safetensors only, and no code that comes with them is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from idgr.errors import IdgrError
from idgr.models.backbone import load_backbone


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "ran")))  # noqa: S301 - our own
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_a_pickle_alone_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(IdgrError, match="holds its weights as pickle, which idgr does not read; convert them"):
        load_backbone(folder)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_not_read(folder: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "rng_state.pth"):
        (folder / name).write_bytes(trap)
    load_backbone(folder)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(IdgrError, match="holds no usable model"):
        load_backbone(folder)
    assert not (tmp_path / "ran").exists()


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    for name in ("modeling_mine.py", "configuration_mine.py", "tokenization_mine.py"):
        (folder / name).write_text(code + "class Mine: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_mine.Mine",
        "AutoModelForSeq2SeqLM": "modeling_mine.Mine",
        "AutoTokenizer": ["tokenization_mine.Mine", None],
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words["auto_map"] = {"AutoTokenizer": ["tokenization_mine.Mine", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    load_backbone(folder)
    assert not (tmp_path / "ran").exists()
    config["model_type"] = "mine"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(IdgrError):
        load_backbone(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"[", b"\xff\x00", b"{}", b"[" * 100_000], ids=["none", "open", "raw", "bare", "deep"]
)
def test_a_broken_file_is_told_in_one_line(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    if (name, content) == ("tokenizer_config.json", b"{}"):
        return  # a tokenizer without settings may do
    with pytest.raises(IdgrError) as caught:
        load_backbone(folder)
    assert str(folder) in str(caught.value)
    assert caught.value.todo
