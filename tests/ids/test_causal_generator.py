"""`idgr gen-ids` with a Llama."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.cli.main import run
from idgr.errors import IdgrError, UsageError
from idgr.formats.records import Item, read_ids
from idgr.formats.run_info import read_run
from idgr.ids.generation import first_candidates, generate_ids
from idgr.ids.options import GenerationOptions
from idgr.ids.spelling import can_spell, clean_id
from idgr.models import memory
from idgr.models.backbone import Backbone, load_either
from idgr.models.memory import check_memory, free_memory

SMOLLM2 = Path(__file__).parents[2] / "models" / "smollm2"  # of recipes/pretrained.sh
CATALOGUE = [
    Item(f"i{n}", f"title: {colour} {thing}; brand: Aurora")
    for n, (colour, thing) in enumerate(
        (colour, thing) for colour in ("Red", "blue", "Red") for thing in ("Nail Polish", "hair dryer", "Soap")
    )
]
OPTIONS = GenerationOptions(penalty_stop=0.3, max_length_rounds=2, batch_size=4)


@pytest.fixture
def items(tmp_path: Path) -> str:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"item_id": one.item_id, "text": one.text}) + b"\n" for one in CATALOGUE))
    return str(path)


def test_ids_are_unique_clean_and_come_back_from_their_tokens(causal_generator: Backbone) -> None:
    made = generate_ids(CATALOGUE, lambda: causal_generator, causal_generator.tokenizer, OPTIONS)
    texts = [record.id for record in made.ids]
    assert [record.item_id for record in made.ids] == [item.item_id for item in CATALOGUE]
    assert len(set(texts)) == len(CATALOGUE)
    assert all(text and clean_id(text) == text == text.lower() for text in texts)
    assert all(can_spell(causal_generator.tokenizer, texts))
    for batch_size in (1, 100):
        options = replace(OPTIONS, batch_size=batch_size)
        again = generate_ids(CATALOGUE, lambda: causal_generator, causal_generator.tokenizer, options)
        assert again.ids == made.ids


def test_what_is_shown_decides_the_candidates(causal_generator: Backbone) -> None:
    texts = [item.text for item in CATALOGUE[:3]]
    whole = first_candidates(texts, causal_generator, OPTIONS)
    assert len({tuple(row) for row in whole}) > 1
    short = replace(OPTIONS, max_text_tokens=2)
    assert first_candidates(["red nail polish"], causal_generator, short) == first_candidates(
        ["red nail soap"], causal_generator, short
    )


def test_a_prompt_that_the_model_cannot_read_names_the_option(causal_folder: Path) -> None:
    backbone = load_either(str(causal_folder))
    backbone.model.config.max_position_embeddings = 200
    with pytest.raises(UsageError, match="--max-text-tokens 256 makes a prompt of"):
        first_candidates(["red " * 300], backbone, OPTIONS)


def test_the_command_tells_a_llama_from_its_folder(
    items: str, causal_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ids.jsonl"
    model = ["--model", str(causal_folder)]
    assert run(["gen-ids", items, *model, "-o", str(output)]) == 0
    assert "gen-ids: 9 items" in capsys.readouterr().err
    assert len({record.id for record in read_ids(str(output))}) == len(CATALOGUE)
    assert read_run(str(output))["inputs"]["model"]["sha256"]
    for number in (1, 2):
        shard = str(tmp_path / f"cand.{number}.jsonl")
        assert run(["gen-ids", items, *model, "--shard", f"{number}/2", "-o", shard]) == 0
    joined = tmp_path / "joined.jsonl"
    assert run(["gen-ids", items, *model, "--assign", str(tmp_path / "cand.?.jsonl"), "-o", str(joined)]) == 0
    assert joined.read_bytes() == output.read_bytes()


def test_a_model_without_room_in_memory_is_refused_before_it_is_loaded(
    items: str, causal_folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(
        "MemTotal: 999 kB\nMemAvailable:   64 kB\nSwapFree:    16 kB\nHugePages_Total: 0\n"
    )
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr("idgr.models.backbone.read_tensors", lambda *_: pytest.fail("it was loaded"))
    assert free_memory() == 80 << 10
    assert run(["gen-ids", items, "--model", str(causal_folder), "-o", str(tmp_path / "ids.jsonl")]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"idgr: error: {causal_folder}: needs about 0.0 GiB of memory for its weights")
    assert "give a smaller model" in told
    assert not (tmp_path / "ids.jsonl").exists()


@pytest.mark.parametrize("content", [None, "", "MemTotal: 999 kB\n", "MemAvailable: many\n", "\xff"])
def test_a_system_that_does_not_tell_its_memory_is_not_asked(
    content: str | None, causal_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "meminfo").write_text(content, encoding="latin-1")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert free_memory() is None
    check_memory(str(causal_folder), 1 << 40)


def test_memory_is_counted_from_the_headers(causal_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_either(str(causal_folder)).model
    n = sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr(memory, "free_memory", lambda: 15 * n)
    check_memory(str(causal_folder), 15)
    with pytest.raises(IdgrError, match="needs about"):
        check_memory(str(causal_folder), 16)


@pytest.mark.parametrize("chat", [True, False])
def test_a_pretrained_model_names_products_from_their_text(chat: bool) -> None:
    if not SMOLLM2.is_dir():
        pytest.skip(f"no pretrained model in {SMOLLM2}")
    backbone = load_either(str(SMOLLM2))
    if not chat:
        backbone.tokenizer.chat_template = None
    texts = ["title: garnier fructis color shield conditioner, 25 ounce; categories: hair care, conditioners"]
    found = first_candidates(texts, backbone, replace(OPTIONS, length_step=16))[0]
    assert {"garnier", "fructis", "color", "shield", "conditioner"} & set(found[0].split())
