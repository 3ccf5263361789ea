"""`gen-ids --neighbours`: what a causal generator is shown of the items that are bought with an item."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.formats.records import Item, read_ids
from idgr.formats.run_info import read_run
from idgr.ids.causal_prompts import causal_prompts
from idgr.ids.generation import first_candidates, generate_ids
from idgr.ids.neighbours import short_texts, shortened
from idgr.ids.options import GenerationOptions
from idgr.models.backbone import TAUGHT, Backbone
from idgr.models.tokenizer import train_tokenizer

from .test_causal_prompts import CHAT

TEXTS = ["title: red soap; brand: a", "blue soap", "green lamp; price: 3", "", "title: red soap; brand: b"]
OPTIONS = GenerationOptions(penalty_stop=0.3, max_length_rounds=2, batch_size=4)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 7), max_size=9), max_size=6), st.integers(1, 4))
def test_the_most_often_bought_with_an_item_in_their_order(sequences: list[list[int]], n: int) -> None:
    texts = [f"thing {place}" for place in range(8)]
    together: list[Counter[int]] = [Counter() for _ in texts]
    for row in sequences:
        for one, item in enumerate(row):
            for other in row[:one]:
                if other != item:
                    together[item][other] += 1
                    together[other][item] += 1
    wanted = [sorted(counts, key=lambda other: (-counts[other], other))[:n] for counts in together]
    assert short_texts(texts, sequences, n) == [tuple(texts[other] for other in row) for row in wanted]


def test_texts_are_short_and_different_and_never_empty() -> None:
    assert shortened("title: TRAILMATE  2-Person Tent - Waterproof, Green Canvas; brand: T") == (
        "TRAILMATE 2-Person Tent - Waterproof, Green"
    )
    assert shortened("x" * 100) == "x" * 24
    assert short_texts(TEXTS, [[1, 3, 0, 4], [1, 2]], 5) == [
        ("blue soap", "red soap"), ("red soap", "green lamp"), ("blue soap",), ("red soap", "blue soap"),
        ("red soap", "blue soap"),
    ]  # fmt: skip


@pytest.mark.parametrize("chat", [True, False])
def test_the_prompt_shows_them_behind_the_text(chat: bool) -> None:
    tokenizer = train_tokenizer([*TEXTS, "write a short name of ordinary words often bought with"], 500)
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.chat_template = CHAT if chat else None
    shown = [("blue soap", "green </s> lamp"), ()]
    with_them, without = causal_prompts(tokenizer, [TEXTS[0], TEXTS[0]], 256, shown)
    told = str(tokenizer.decode(with_them.tolist()))
    label = "bought together with these products:\n*" if chat else "\nBought with:"
    assert told.count(f"{label} blue soap; green ") == 1
    assert with_them.tolist().count(tokenizer.eos_token_id) == int(chat)  # no text closes a turn
    assert told.index("red soap; brand: a") < told.index("blue soap")
    assert told.endswith("<|assistant|>\n" if chat else "\nName:")
    assert without.tolist() == causal_prompts(tokenizer, [TEXTS[0]], 256)[0].tolist()


def test_like_texts_with_other_neighbours_are_other_prompts(causal_generator: Backbone) -> None:
    texts = ["title: red nail polish"] * 3
    beside = [("hair dryer",), (), ("hair dryer",)]
    found = first_candidates(texts, causal_generator, OPTIONS, beside=beside)
    assert found[0] == found[2]
    assert found[0] != found[1]
    assert found[1] == first_candidates(texts[:1], causal_generator, OPTIONS)[0]
    items = [Item(f"i{n}", text) for n, text in enumerate(texts)]
    tokenizer = causal_generator.tokenizer
    made = generate_ids(items, lambda: causal_generator, tokenizer, OPTIONS, beside=beside)
    assert made.ids[0].id in found[0]
    assert len({record.id for record in made.ids}) == 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    items = [f"title: {colour} {thing}" for colour in ("red", "blue") for thing in ("nail polish", "soap", "lamp")]
    rows = [{"item_id": f"i{n}", "text": text} for n, text in enumerate(items)]
    sequences = [{"user_id": "a", "items": ["i0", "i1", "i4"]}, {"user_id": "b", "items": ["i0", "i4", "i2"]}]
    for name, records in (("items", rows), ("train", sequences)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in records))
    return tmp_path


def gen_ids(data: Path, model: Path | str | None, output: str, *more: str) -> int:
    given = [*(["--model", str(model)] if model is not None else []), *more, "-o", str(data / output)]
    return run(["gen-ids", str(data / "items.jsonl"), *given])


def test_the_command(data: Path, causal_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = ["--neighbours", "2", "--train", str(data / "train.jsonl")]
    assert gen_ids(data, causal_folder, "ids.jsonl", *shown) == 0
    record = read_run(data / "ids.jsonl")
    assert record["options"]["neighbours"] == 2
    assert set(record["inputs"]) == {"items", "model", "train"}
    assert gen_ids(data, causal_folder, "plain.jsonl") == 0
    assert set(read_run(data / "plain.jsonl")["inputs"]) == {"items", "model"}
    assert len({one.id for one in read_ids(str(data / "ids.jsonl"))}) == 6

    assert gen_ids(data, causal_folder, "shown.jsonl", *shown, "--shard", "1/1") == 0
    assert gen_ids(data, causal_folder, "alone.jsonl", "--shard", "1/1") == 0
    rows = ((data / name).read_bytes().splitlines() for name in ("shown.jsonl", "alone.jsonl"))
    same = [
        orjson.loads(one)["candidates"] == orjson.loads(other)["candidates"] for one, other in zip(*rows, strict=True)
    ]
    assert same == [False, False, False, True, False, True]  # nobody bought i3 and i5

    for number in (1, 2):
        assert gen_ids(data, causal_folder, f"part{number}.jsonl", *shown, "--shard", f"{number}/2") == 0
    parts = ["--assign", str(data / "part?.jsonl")]
    assert gen_ids(data, causal_folder, "joined.jsonl", *shown, *parts) == 0
    assert (data / "joined.jsonl").read_bytes() == (data / "ids.jsonl").read_bytes()
    capfd.readouterr()
    assert gen_ids(data, causal_folder, "other.jsonl", *parts) == 1
    assert "made from another text, with another generator or with other options" in capfd.readouterr().err


def test_what_does_not_go_together_is_refused(
    data: Path, causal_folder: Path, generator_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taught = tmp_path / "taught"
    taught.mkdir()
    for path in causal_folder.iterdir():
        (taught / path.name).write_bytes(path.read_bytes())
    (taught / "run.json").write_bytes(orjson.dumps({"command": "init-gen", **TAUGHT}))
    train = ["--train", str(data / "train.jsonl")]
    cases: list[tuple[Any, list[str], str]] = [
        (causal_folder, ["--neighbours", "2"], "--neighbours 2 without --train; give the train.jsonl"),
        (causal_folder, train, "--train given with --scheme textual"),
        ("keyphrase", ["--neighbours", "2", *train], "--neighbours given with --model keyphrase, a rule"),
        (generator_folder, ["--neighbours", "2", *train], f"--neighbours given with --model {generator_folder}, a T5"),
        (taught, ["--neighbours", "2", *train], "which was taught to write IDs of texts alone"),
        (None, ["--neighbours", "2", *train, "--scheme", "shared"], "--neighbours given with --scheme shared"),
    ]
    for model, more, said in cases:
        assert gen_ids(data, model, "none.jsonl", *more) == 2
        assert said in capfd.readouterr().err
    (data / "train.jsonl").write_bytes(b'{"user_id": "a", "items": ["i0", "strange"]}\n')
    assert gen_ids(data, causal_folder, "none.jsonl", "--neighbours", "2", *train) == 1
    assert "train.jsonl:1: unknown item 'strange'" in capfd.readouterr().err
    assert not (data / "none.jsonl").exists()
