"""recipes/foundation/without_tree.py against plain transformers: free answers, their grounding, yes or no, the tree."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.formats.jsonl import write_jsonl

from ..cli.test_pretrained_causal import HISTORIES, IDS, KEYS, byte_level_tokenizer, plain_scores, save_llama

FOLDER = Path(__file__).parents[2] / "recipes" / "foundation"
TARGETS = ("I1", "I5", "I6", "I4")
CHAT = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<answer>"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import without_tree

    def run(*words: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["without_tree.py", *map(str, words)])
        without_tree.main()

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answers")
    save_llama(byte_level_tokenizer(), place / "llama")
    rows = list(zip(KEYS, IDS, strict=True))
    write_jsonl(place / "items.jsonl", ({"item_id": key, "text": f"title: {text}"} for key, text in rows))
    write_jsonl(place / "ids.jsonl", ({"item_id": key, "id": text} for key, text in rows))
    queries = zip(HISTORIES, TARGETS, strict=True)
    test = [{"user_id": f"u{n}", "history": row, "target": target} for n, (row, target) in enumerate(queries)]
    write_jsonl(place / "test.jsonl", test)
    return place


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_model(place: Path) -> list[str | Path]:
    return ["--rec", place / "llama", "--ids", place / "ids.jsonl", "--device", "cpu", "--batch-size", "3"]


def drawn(place: Path, scripts: Any, tmp_path: Path, n: int = 3) -> list[dict[str, Any]]:
    path = tmp_path / "candidates.jsonl"
    scripts("draw", place / "test.jsonl", "--items", place / "items.jsonl", "--n", str(n), "-o", path)
    return lines(path)


def test_candidates_are_the_target_and_others_not_bought(place: Path, scripts: Any, tmp_path: Path) -> None:
    found = drawn(place, scripts, tmp_path)
    assert [row["history"] for row in found] == HISTORIES
    for row, target in zip(found, TARGETS, strict=True):
        assert len(set(row["candidates"])) == 3
        assert target in row["candidates"]
        assert not set(row["candidates"]) & (set(row["history"]) - {target})
    assert len({row["candidates"].index(target) for row, target in zip(found, TARGETS, strict=True)}) > 1
    assert found == drawn(place, scripts, tmp_path)
    everyone = drawn(place, scripts, tmp_path, 20)
    assert {*everyone[0]["candidates"]} == {*KEYS} - {*HISTORIES[0]}


def test_the_tree_ranks_candidates_by_the_scores_of_their_ids(place: Path, scripts: Any, tmp_path: Path) -> None:
    text_of = dict(zip(KEYS, IDS, strict=True))
    rows = drawn(place, scripts, tmp_path)
    scripts("rank", tmp_path / "candidates.jsonl", "--by", "tree", *of_model(place), "-o", tmp_path / "recs")
    for row, found in zip(rows, lines(tmp_path / "recs"), strict=True):
        history = [text_of[key] for key in row["history"]]
        wanted = plain_scores(place / "llama", [text_of[key] for key in row["candidates"]], history)
        assert dict(zip(found["items"], found["scores"], strict=True)) == pytest.approx(
            {key: wanted[text_of[key]] for key in row["candidates"]}, abs=1e-4
        )
        assert found["scores"] == sorted(found["scores"], reverse=True)


@pytest.mark.parametrize("chat", [False, True])
def test_yes_or_no(place: Path, scripts: Any, tmp_path: Path, chat: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = place / "llama"
    if chat:
        tokenizer = byte_level_tokenizer()
        tokenizer.chat_template = CHAT
        folder = save_llama(tokenizer, tmp_path / "chat")
    rows, text_of = drawn(place, scripts, tmp_path), dict(zip(KEYS, IDS, strict=True))
    asked = [*of_model(place), "--rec", folder, "--history", "2"]
    scripts("rank", tmp_path / "candidates.jsonl", "--by", "yes-no", *asked, "-o", tmp_path / "recs")
    model, plain = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for row, found in zip(rows, lines(tmp_path / "recs"), strict=True):
        scores = dict(zip(found["items"], found["scores"], strict=True))
        assert {*scores} == {*row["candidates"]}
        for key in row["candidates"]:
            shown = "\n".join(text_of[item] for item in row["history"][-2:])
            text = f"A customer bought these products, one a line, the oldest first:\n{shown}\n\n"
            text += f"Will the customer buy this product next?\n{text_of[key]}\n\nAnswer with Yes or No alone."
            text = f"<user>{text}<answer>" if chat else f"{text}\nAnswer:"
            space = "" if chat else " "
            ends = [plain(f"{space}{word}")["input_ids"] for word in ("Yes", "No")]
            alike = 0 if chat else 1  # the space is a piece of its own here
            assert ends[0][:alike] == ends[1][:alike]
            before = plain(text)["input_ids"] + ends[0][:alike]
            with torch.no_grad():
                logits = model(torch.tensor([before])).logits[0, -1]
            assert scores[key] == pytest.approx(float(logits[ends[0][alike]] - logits[ends[1][alike]]), abs=1e-4)


def last_state(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0, -1]


def test_free_answers_and_the_items_nearest_to_them(place: Path, scripts: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told = tmp_path / "told.json"
    scripts("free", place / "test.jsonl", *of_model(place), "--told", told, "--beams", "2", "-o", tmp_path / "recs")
    model, plain = (kind.from_pretrained(place / "llama") for kind in (AutoModelForCausalLM, AutoTokenizer))
    text_of = dict(zip(KEYS, IDS, strict=True))
    (newline,) = plain("\n")["input_ids"]
    room = max(len(plain(text)["input_ids"]) for text in IDS) + 1
    found, shown = lines(tmp_path / "recs"), json.loads(told.read_text())
    for row, history, answer in zip(found, HISTORIES, shown["examples"], strict=True):
        prompt = plain("".join(f"{text_of[key]}\n" for key in history) or "\n")["input_ids"]
        with torch.no_grad():
            (written,) = model.generate(
                torch.tensor([prompt]), num_beams=2, do_sample=False, min_new_tokens=1, max_new_tokens=room,
                eos_token_id=newline, pad_token_id=0,
            ).tolist()  # fmt: skip
        assert plain.decode(written[len(prompt) :], skip_special_tokens=True).split("\n")[0].strip() == answer
        state = last_state(model, [newline, *plain(answer)["input_ids"]])
        distance = {
            key: float((last_state(model, [newline, *plain(text_of[key])["input_ids"]]) - state).norm())
            for key in KEYS
            if key not in history
        }
        assert row["items"] == sorted(distance, key=lambda key: distance[key])
        assert row["scores"] == pytest.approx([-distance[key] for key in row["items"]], abs=1e-3)
    assert shown["answers"] == len(HISTORIES)
    assert shown["name_no_item"] == sum(text not in IDS for text in shown["examples"]) / len(HISTORIES)


def test_popularity_of_candidates(place: Path, scripts: Any, tmp_path: Path) -> None:
    rows = drawn(place, scripts, tmp_path)
    write_jsonl(tmp_path / "train.jsonl", [{"user_id": "a", "items": [*KEYS, "I4", "I4"]}])
    asked = ["--by", "popularity", "--train", tmp_path / "train.jsonl", "-o", tmp_path / "recs"]
    scripts("rank", tmp_path / "candidates.jsonl", *asked)
    for row, found in zip(rows, lines(tmp_path / "recs"), strict=True):
        first = ["I4"] if "I4" in row["candidates"] else []
        assert found["items"] == [*first, *(key for key in row["candidates"] if key != "I4")]


def test_a_model_that_counts_no_places_is_refused(place: Path, scripts: Any, tmp_path: Path) -> None:
    folder = save_llama(byte_level_tokenizer(), tmp_path / "slots", item_slots=8)
    asked = [*of_model(place), "--rec", folder, "--told", tmp_path / "told", "-o", tmp_path / "recs"]
    with pytest.raises(SystemExit, match=r"begins items at fixed distances.*; give a model"):
        scripts("free", place / "test.jsonl", *asked)


def test_the_speed_of_a_generator(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import names

    folder = save_llama(byte_level_tokenizer(), tmp_path / "taught", max_position_embeddings=1024)
    (folder / "run.json").write_text('{"prompt": "plain"}')
    names.speed(str(place / "items.jsonl"), str(folder), "2")
    found = capsys.readouterr().out
    assert re.fullmatch(r"taught: \d+\.\d\d items a second in batches, \d+\.\d\d one by one \(2 items\)\n", found)
