"""Pretrained models that will not do: each is told in one line, with what to do, before the work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.models import memory
from idgr.models.memory import check_room, free_memory

from ..models.gguf_files import write_gguf
from .test_pretrained_causal import IDS, KEYS, byte_level_tokenizer, place, recommend, save_llama

__all__ = ["place"]


def told(capfd: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("idgr: error:")]
    return line.removeprefix("idgr: error: ")


def commands(place: Path, model: Path, out: Path) -> list[list[str]]:
    """Each command that takes a causal model as it comes."""
    data, ids = place / "data", str(place / "ids.jsonl")
    items, train = str(data / "items.jsonl"), str(data / "train.jsonl")
    more = ["-o", str(out)]
    return [
        ["gen-ids", items, "--model", str(model), *more],
        ["recommend", str(place / "histories.jsonl"), "--rec", str(model), "--ids", ids, "--force", *more],
        ["train-rec", train, "--ids", ids, "--model", str(model), *more],
        ["zeroshot", str(data), "--scheme", "keyphrase", "--rec", str(model), *more],
    ]


def test_a_gguf_file_of_another_architecture(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(place / "llama")
    path = write_gguf(tmp_path / "qwen.gguf", model, byte_level_tokenizer(), arch="qwen2")
    for command in commands(place, path, tmp_path / "out"):
        assert run(command) == 1
        line = told(capfd)
        assert line.startswith(f"{path}: is a GGUF file of the architecture 'qwen2'")
        assert "; give " in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["recommend", "train-rec"])
def test_a_tokenizer_that_does_not_read_ids_back(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    from tokenizers import normalizers

    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    folder = save_llama(tokenizer, tmp_path / "lower")
    ids = tmp_path / "ids.jsonl"
    write_jsonl(ids, ({"item_id": key, "id": text.title()} for key, text in zip(KEYS, IDS, strict=True)))
    given = next(words for words in commands(place, folder, tmp_path / "out") if words[0] == command)
    assert run([*given, "--ids", str(ids)]) == 1
    line = told(capfd)
    assert "the recommender's tokenizer reads the ID 'Chi Pro Hair Dryer' back as 'chi pro hair dryer'" in line
    assert "; make the IDs with `gen-ids --rec-tokenizer`" in line


def test_a_broken_chat_template(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without any a model is shown examples, since nothing in its folder tells that it is one for chats."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = "{{ nothing.like.this }}{% for"
    folder = save_llama(tokenizer, tmp_path / "chat")
    asked = ["gen-ids", str(place / "data" / "items.jsonl"), "--model", str(folder), "-o", str(tmp_path / "ids.jsonl")]
    assert run(asked) == 1
    line = told(capfd)
    assert "holds no usable chat template" in line
    assert not (tmp_path / "ids.jsonl").exists()


def test_a_model_larger_than_the_memory_is_not_loaded(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    monkeypatch.setattr("idgr.models.backbone.read_tensors", lambda *_: pytest.fail("it was loaded"))
    for command in commands(place, place / "llama", tmp_path / "out"):
        assert run([*command, "--device", "cpu"]) == 1
        line = told(capfd)
        assert line.startswith(
            f"{place / 'llama'}: needs about 0.0 GiB of memory for its weights, and 0.0 GiB are free"
        )
        assert line.endswith("; give a smaller model, or take a machine with more memory")
    assert not (tmp_path / "out").exists()


def test_a_whole_model_that_learns_needs_four_times_as_much(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    n = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(place / "llama").parameters())
    monkeypatch.setattr(memory, "free_memory", lambda: 15 * n)
    assert recommend(place, tmp_path / "recs.jsonl", "--force") == 0
    train = next(words for words in commands(place, place / "llama", tmp_path / "out") if words[0] == "train-rec")
    assert run([*train, "--device", "cpu", "--epochs", "1"]) == 1
    assert "of memory for its weights" in told(capfd)
    assert run([*train, "--device", "cpu", "--epochs", "1", "--freeze", "1"]) == 0


GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with 8 GiB free, and what sets a control group of it."""
    (tmp_path / "meminfo").write_text(f"MemAvailable: {8 << 20} kB\nSwapFree: {1 << 20} kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")

    def group(path: str, limit: object, used: int, cached: int, *, version: int = 2) -> None:
        folder = tmp_path / "cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for name, value in zip(names, (limit, used), strict=True):
            (folder / name).write_text(f"{value}\n")
        stat = "inactive_file" if version == 2 else "total_inactive_file"
        (folder / "memory.stat").write_text(f"anon 5\n{stat} {cached}\n")

    return group


def test_free_memory_is_what_the_container_leaves(machine: Any, tmp_path: Path) -> None:
    assert free_memory() == 9 * GIB
    (tmp_path / "own").write_text("0::/a/b\n")
    assert free_memory() == 9 * GIB
    machine("a/b", "max", 7 * GIB, 0)
    assert free_memory() == 9 * GIB
    machine("a", 4 * GIB, 3 * GIB, GIB // 2)  # what files take there is given up when it is needed
    assert free_memory() == GIB + GIB // 2 + GIB
    machine("a/b", 2 * GIB, 3 * GIB, 0)
    assert free_memory() == GIB
    machine("a/b", "many", 0, 0)
    assert free_memory() == GIB + GIB // 2 + GIB
    (tmp_path / "own").write_bytes(b"\xff\n")
    assert free_memory() == 9 * GIB


def test_groups_of_the_first_version(machine: Any, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("9:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/\n")
    machine("memory/docker/abc", 3 * GIB, GIB, 0, version=1)
    machine("memory", (1 << 63) - 4096, 5, 0, version=1)
    assert free_memory() == 3 * GIB
    check_room(3 * GIB // 4, 4, "it")


def test_what_is_needed_is_told(machine: Any, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    machine("", 3 * GIB, 2 * GIB, 0)
    with pytest.raises(Exception, match=r"it: needs about 4\.0 GiB of memory for its weights, and 2\.0 GiB are free"):
        check_room(GIB, 4, "it")
