"""User IDs: made of exactly what is shown, each history once, and the same at training and at test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.engine.options import TrainingOptions
from idgr.formats.jsonl import write_jsonl
from idgr.generator.training import train_generator
from idgr.ids.generation import first_candidates
from idgr.ids.options import GenerationOptions
from idgr.ids.user_ids import UserIds
from idgr.models.backbone import PRESETS, Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import decode, encode, train_tokenizer
from idgr.prompts.rendering import PromptRenderer

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)
IDS = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("tent", "stove", "lamp")]
TEXTS = [f"title: {text}" for text in IDS]
SEQUENCES = [[0, 1, 2], [3, 4, 5], [0, 3, 1, 4]]
TEMPLATES = ["history: {history}; next:", "after {history}, then"]


@pytest.fixture(scope="module")
def generator() -> Backbone:
    """A generator that makes something of a text, the newest item's ID as a rule."""
    tokenizer = train_tokenizer([*TEXTS, *IDS, *TEMPLATES, "user: ;"], TINY.vocab_size)
    backbone = new_backbone(TINY, tokenizer, seed=0)
    loop = TrainingOptions(epochs=20, lr=1e-2, batch_size=3, dropout=0.0)
    pairs = list(zip(TEXTS, IDS, strict=True))
    train_generator(backbone, pairs, loop, max_text_tokens=64, held_out=0.0, on_epoch=lambda record: None)
    backbone.model.eval()
    return backbone


def test_a_history_is_looked_at_once_and_newest_first(generator: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watched(texts: Sequence[str], *rest: Any) -> list[list[str]]:
        asked.extend(texts)
        return first_candidates(texts, *rest)

    monkeypatch.setattr("idgr.ids.user_ids.first_candidates", watched)
    users = UserIds(generator, TEXTS, generator.tokenizer, GenerationOptions())
    found = users([[0, 1], [2], [0, 1], []])
    assert asked == ["title: red stove; title: red tent", "title: red lamp"]
    assert found[0] == found[2]
    assert found[3] == []
    assert users([[2], [1, 0]])[0] == found[1]
    assert asked[2:] == ["title: red tent; title: red stove"]  # another order is another history
    assert all(0 < len(row) <= users.room for row in found[:3])
    (expected,) = first_candidates(["title: red lamp"], generator, GenerationOptions())
    assert decode(generator.tokenizer, [found[1]]) == [expected[0]]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(history=st.lists(st.integers(0, 5), max_size=8), template=st.integers(0, 1), room=st.integers(30, 60))
def test_the_id_is_made_of_exactly_what_is_shown(history: list[int], template: int, room: int) -> None:
    tokenizer = train_tokenizer_once()
    given_histories: list[list[int]] = []

    def user_ids(histories: Sequence[Sequence[int]]) -> list[list[int]]:
        given_histories.extend(list(one) for one in histories)
        return [[7, 8, 9] if one else [] for one in histories]

    renderer = PromptRenderer(tokenizer, TEMPLATES, encode(tokenizer, IDS), 5, room, user_ids=user_ids, user_room=3)
    prompt = renderer.render(history, template)
    assert given_histories == [[item for item, _, _ in prompt.spans]]
    assert len(prompt.tokens) <= room
    lead = len(renderer.user_before)
    if prompt.spans:
        assert prompt.tokens[: lead + 3] == [*renderer.user_before, 7, 8, 9]
    for item, start, end in prompt.spans:
        assert prompt.tokens[start:end] == renderer.id_tokens[item]
    alone = PromptRenderer(
        tokenizer, TEMPLATES, encode(tokenizer, IDS), 5, room, user_ids=user_ids, user_room=3, show_history=False
    ).render(history, template)
    assert alone.spans == []
    assert given_histories[1] == given_histories[0]


_TOKENIZER: list[Any] = []


def train_tokenizer_once() -> Any:
    if not _TOKENIZER:
        _TOKENIZER.append(train_tokenizer([*IDS, *IDS, *TEMPLATES, "user: ;"], TINY.vocab_size))
    return _TOKENIZER[0]


@pytest.fixture(scope="module")
def place(generator: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    (folder / "gen").mkdir()
    save_backbone(generator, folder / "gen")
    write_jsonl(folder / "items.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(TEXTS)))
    write_jsonl(folder / "ids.jsonl", ({"item_id": f"i{n}", "id": text} for n, text in enumerate(IDS)))
    rows = [[f"i{item}" for item in row] for row in SEQUENCES]
    write_jsonl(folder / "train.jsonl", ({"user_id": f"u{n}", "items": row} for n, row in enumerate(rows)))
    held = [{"user_id": f"u{n}", "history": row, "target": "i5"} for n, row in enumerate(rows[:1])]
    write_jsonl(folder / "valid.jsonl", held)
    return folder


def train(place: Path, output: str, *more: str) -> int:
    files = ["--ids", str(place / "ids.jsonl"), "--tokenizer", str(place / "gen"), "--device", "cpu", "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        return run(["train-rec", str(place / "train.jsonl"), *files, *more, "-o", str(place / output)])


def shown(place: Path, rec: str, *more: str) -> list[str]:
    files = ["--rec", str(place / rec), "--ids", str(place / "ids.jsonl"), "-k", "3", "-o", str(place / "recs.jsonl")]
    prompts = ["--prompts", str(place / "prompts.jsonl"), "--device", "cpu"]
    assert run(["recommend", str(place / "valid.jsonl"), *files, *prompts, *more]) == 0
    return [orjson.loads(line)["text"] for line in (place / "prompts.jsonl").read_bytes().splitlines()]


def test_training_and_recommending_with_user_ids(place: Path, generator: Backbone) -> None:
    source = ["--gen", str(place / "gen"), "--items", str(place / "items.jsonl")]
    assert train(place, "named", "--user-ids", "history", *source) == 0
    assert train(place, "alone", "--user-ids", "history", "--history", "none", *source) == 0
    users = UserIds(generator, TEXTS, generator.tokenizer, GenerationOptions())
    (user,) = decode(generator.tokenizer, users([SEQUENCES[0]]))
    (both,) = shown(place, "named", *source)
    assert both.startswith(f"user: {user};")
    assert all(IDS[item] in both.removeprefix(f"user: {user};") for item in SEQUENCES[0])
    (alone,) = shown(place, "alone", *source)
    assert alone.startswith(f"user: {user};")
    assert not any(IDS[item] in alone.removeprefix(f"user: {user};") for item in SEQUENCES[0])
    record = orjson.loads((place / "named" / "run.json").read_bytes())
    assert (record["user_ids"], record["history"]) == ("history", "shown")


def test_no_id_is_learnt_where_none_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--gen", str(place / "gen"), "--items", str(place / "items.jsonl")]
    assert train(place, "alone", "--user-ids", "history", "--history", "none", *source) == 0
    files = ["--ids", str(place / "ids.jsonl"), "--rec", str(place / "alone"), "--device", "cpu"]
    assert run(["train-gen", str(place / "train.jsonl"), *files, *source, "-o", str(place / "learnt")]) == 1
    assert "alone: shows no item's ID, so none can be learnt through it" in capsys.readouterr().err
    assert not (place / "learnt").exists()


def test_what_is_held_out_changes_no_training_artifact(place: Path) -> None:
    source = ["--user-ids", "history", "--gen", str(place / "gen"), "--items", str(place / "items.jsonl")]
    assert train(place, "one", *source, "--valid", str(place / "valid.jsonl")) == 0
    rows = [orjson.loads(line) for line in (place / "valid.jsonl").read_bytes().splitlines()]
    write_jsonl(place / "other.jsonl", (row | {"target": "i4"} for row in rows))
    assert train(place, "two", *source, "--valid", str(place / "other.jsonl")) == 0
    assert (place / "one" / "model.safetensors").read_bytes() == (place / "two" / "model.safetensors").read_bytes()


def test_a_run_in_turns_has_user_ids_of_its_own_generator(place: Path, tmp_path: Path) -> None:
    few = ["--rounds", "2", "--rec.epochs", "1", "--valid-beams", "10", "--device", "cpu", "--user-ids", "history"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        assert run(["alternate", str(place), "--gen", str(place / "gen"), *few, "-o", str(tmp_path / "run")]) == 0
    final = tmp_path / "run" / "final"
    source = ["--gen", str(final / "gen"), "--items", str(place / "items.jsonl")]
    files = ["--rec", str(final / "rec"), "--ids", str(final / "ids.jsonl"), "-k", "3", "--device", "cpu"]
    assert run(["recommend", str(place / "valid.jsonl"), *files, *source, "-o", str(tmp_path / "recs.jsonl")]) == 0


def test_refuses_what_does_not_fit(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--gen", str(place / "gen"), "--items", str(place / "items.jsonl")]
    assert train(place, "named", "--user-ids", "history", *source) == 0
    assert train(place, "plain") == 0
    capsys.readouterr()

    def refused(code: int, result: int) -> str:
        assert result == code
        return capsys.readouterr().err

    assert "--history none" in refused(2, train(place, "x", "--history", "none"))
    assert "need --gen and --items" in refused(2, train(place, "x", "--user-ids", "history"))
    assert "no user IDs are wanted" in refused(2, train(place, "x", *source))
    files = ["--ids", str(place / "ids.jsonl"), "--device", "cpu", "-k", "3"]
    valid = str(place / "valid.jsonl")
    assert "need --gen" in refused(2, run(["recommend", valid, "--rec", str(place / "named"), *files]))
    assert "no user IDs" in refused(2, run(["recommend", valid, "--rec", str(place / "plain"), *files, *source]))
    (tmp_path / "gen").mkdir()
    tokenizer = train_tokenizer_once()
    save_backbone(new_backbone(TINY, tokenizer, seed=5), tmp_path / "gen")
    other = ["--gen", str(tmp_path / "gen"), *source[2:]]
    line = refused(1, run(["recommend", valid, "--rec", str(place / "named"), *files, *other]))
    assert "is not the generator" in line
    run_folder = ["--gen", str(place / "gen"), "--history", "none", "--user-ids", "history", "-o", str(tmp_path / "r")]
    assert "--mode rec-only" in refused(2, run(["alternate", str(place), *run_folder]))


def test_under_mixed_precision_a_users_id_is_that_of_serving(
    generator: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def watched(*given: Any) -> list[list[str]]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return first_candidates(*given)

    monkeypatch.setattr("idgr.ids.user_ids.first_candidates", watched)
    plain = UserIds(generator, TEXTS, generator.tokenizer, GenerationOptions())([[0, 1], [2]])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = UserIds(generator, TEXTS, generator.tokenizer, GenerationOptions())([[0, 1], [2]])
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False, False]
    assert mixed == plain
