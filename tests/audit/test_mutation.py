"""Other held-out items, the same bytes: the mutation and canary tests, and proof that they find a leak."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import read_ids, read_items
from idgr.models.backbone import PRESETS, Preset
from idgr.models.tokenizer import encode, load_tokenizer
from idgr.prompts.rendering import Prompt, PromptRenderer
from idgr.stages import mutation
from idgr.stages.recommend import Options

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)
CANARY = "zyxcanaryq"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setitem(PRESETS, "nano", TINY)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = random.Random(3)
    things = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("tent", "stove", "lamp")]
    write_jsonl(tmp_path / "meta.jsonl", ({"item_id": f"i{n}", "title": thing} for n, thing in enumerate(things)))
    write_jsonl(
        tmp_path / "events.jsonl",
        (
            {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": 1_600_000_000 + place}
            for user in range(12)
            for place, item in enumerate(rng.sample(range(len(things)), 5))
        ),
    )
    command = ["prep", "jsonl", str(tmp_path / "events.jsonl"), "--meta", str(tmp_path / "meta.jsonl"), "--k-core", "0"]
    assert run([*command, "-o", str(tmp_path / "data")]) == 0
    return tmp_path / "data"


def mutate(data: Path, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, tuple[str, str]]:
    capsys.readouterr()
    assert run(["audit", str(data), "--mutate", "-o", "-"]) == code
    checks = json.loads(capsys.readouterr().out)["checks"]
    return {check["name"]: (check["verdict"], check["evidence"]) for check in checks[-6:]}


def test_other_held_out_items_change_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compared: list[str] = []
    compare = mutation._compare

    def watched(first: Path, second: Path, names: Any) -> Any:
        for name in names:
            assert (first / name).exists()
            compared.append(name)
        # The folders that are compared were made from different held-out items.
        if first.name == "original" and second.name in ("test", "both"):
            assert (first / "test.jsonl").read_bytes() != (second / "test.jsonl").read_bytes()
        return compare(first, second, names)

    monkeypatch.setattr(mutation, "_compare", watched)
    found = mutate(data, capsys, 0)
    assert list(found) == [
        "prep gives the same training files",
        "training does not depend on held-out items",
        "the epoch kept does not depend on test items",
        "validation items choose the epoch and nothing else",
        "a prompt does not depend on its target",
        "a canary word reaches its own ID only",
    ]
    assert {verdict for verdict, _ in found.values()} == {"PASS"}
    assert {"train.jsonl", "gen", "ids.jsonl", "rec", "gen-2", "rec-valid", "prompts.jsonl"} <= set(compared)


def test_training_that_reads_held_out_items_is_found(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_rec = mutation.train_rec.run

    def leaky(options: Any) -> object:
        """Appends each user's test item to the training sequence."""
        train = options.train
        rows = [json.loads(line) for line in Path(train).read_text().splitlines()]
        held = [json.loads(line) for line in Path(train).with_name("test.jsonl").read_text().splitlines()]
        target = {row["user_id"]: row["target"] for row in held}
        known = {record.item_id for record in read_ids(options.ids)}
        for row in rows:
            row["items"] += [item for item in [target[row["user_id"]]] if item in known]
        leaked = Path(train).with_name("leaked.jsonl")
        write_jsonl(leaked, rows)
        return train_rec(replace(options, train=str(leaked)))

    monkeypatch.setattr(mutation.train_rec, "run", leaky)
    found = mutate(data, capsys, 1)
    assert {name for name, (verdict, _) in found.items() if verdict == "FAIL"} == {
        "training does not depend on held-out items",
        "the epoch kept does not depend on test items",
        "validation items choose the epoch and nothing else",
        "a canary word reaches its own ID only",
    }
    assert "rec/model.safetensors differs" in found["training does not depend on held-out items"][1]


def test_prompts_that_show_the_target_are_found(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recommend = mutation.recommend.run

    def leaky(options: Options) -> int:
        histories = options.histories
        rows = [json.loads(line) for line in Path(histories).read_text().splitlines()]
        for row in rows:
            row["history"] = [*row["history"][1:], row["target"]]
        write_jsonl(leaked := Path(histories).with_name("leaked.jsonl"), rows)
        return recommend(replace(options, histories=str(leaked)))

    monkeypatch.setattr(mutation.recommend, "run", leaky)
    found = mutate(data, capsys, 1)
    assert found["a prompt does not depend on its target"][0] == "FAIL"
    assert found["a canary word reaches its own ID only"][0] == "FAIL"
    assert found["training does not depend on held-out items"][0] == "PASS"


@pytest.mark.parametrize("user_ids", [False, True])
def test_a_canary_word_is_in_no_input_of_training_nor_prompt(
    user_ids: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prompt that any stage renders is looked at, in training, validation and recommending."""
    items = [{"item_id": item.item_id, "text": item.text} for item in read_items(data / "items.jsonl")]
    write_jsonl(data / "items.jsonl", [*items, {"item_id": "canary", "text": f"title: {CANARY} tent"}])
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    rows[0]["target"] = "canary"
    write_jsonl(data / "test.jsonl", rows)
    gen, ids, rec = tmp_path / "gen", tmp_path / "ids.jsonl", tmp_path / "rec"

    shown: list[Prompt] = []
    render_all = PromptRenderer.render_all

    def watched(self: PromptRenderer, *arguments: Any) -> list[Prompt]:
        prompts = render_all(self, *arguments)
        shown.extend(prompts)
        return prompts

    monkeypatch.setattr(PromptRenderer, "render_all", watched)
    words = ["--gen", str(gen), "--items", str(data / "items.jsonl")] if user_ids else []
    few = ["--tokenizer", str(gen), "--epochs", "2", "--valid-beams", "10", *words]
    few += ["--user-ids", "history"] if user_ids else []
    held = ["--valid", str(data / "valid.jsonl")]
    for command in (
        ["init-gen", str(data / "items.jsonl"), "--epochs", "2", "-o", str(gen)],
        ["gen-ids", str(data / "items.jsonl"), "--model", "keyphrase", "--rec-tokenizer", str(gen), "-o", str(ids)],
        ["train-rec", str(data / "train.jsonl"), "--ids", str(ids), *held, *few, "-o", str(rec)],
        ["recommend", str(data / "test.jsonl"), "--rec", str(rec), "--ids", str(ids), "--beams", "10", *words,
         "-o", str(tmp_path / "recs.jsonl")],
    ):  # fmt: skip
        assert run(command) == 0
    texts = {record.item_id: record.id for record in read_ids(ids)}
    assert CANARY in texts.pop("canary"), "the word is in the item's own ID"
    assert all(CANARY not in text for text in texts.values())
    tokenizer = load_tokenizer(str(gen))
    spelled = tuple(encode(tokenizer, [CANARY])[0])
    assert len(shown) > 30
    assert not any(holds(prompt.tokens, spelled) for prompt in shown)
    # The test can fail: a prompt with the item in its history holds the word.
    assert holds(encode(tokenizer, [f"history: red lamp, {CANARY}"])[0], spelled)


def holds(tokens: list[int], part: tuple[int, ...]) -> bool:
    return any(tuple(tokens[place : place + len(part)]) == part for place in range(len(tokens)))
