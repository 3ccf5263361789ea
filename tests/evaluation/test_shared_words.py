"""`recommend --baseline text`: a plain implementation, ties by the catalogue's order, blocks, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.evaluation import item_scores
from idgr.evaluation.shared_words import fit_shared_words
from idgr.formats.jsonl import write_jsonl

WORDS = ["red", "Red", "brush", "soap", "kit", "towel"]


def plain_scores(texts: list[str], history: list[int]) -> list[float]:
    """The definition, word by word."""
    split = [set(text.lower().split()) for text in texts]
    idf = {word: math.log(len(texts) / sum(word in own for own in split)) for word in set().union(*split)}
    length = [math.sqrt(sum(idf[word] ** 2 for word in own)) or 1.0 for own in split]

    def likeness(one: int, other: int) -> float:
        return sum(idf[word] ** 2 for word in split[one] & split[other]) / length[one] / length[other]

    newest_first = list(enumerate(reversed(history)))
    return [sum(likeness(item, read) / (1 + age) for age, read in newest_first) for item in range(len(texts))]


texts_strategy = st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), min_size=1, max_size=9)


@settings(derandomize=True, deadline=None)
@given(texts_strategy, st.lists(st.lists(st.integers(0, 8), max_size=5), max_size=4))
def test_scores_are_those_of_the_definition(texts: list[str], drawn: list[list[int]]) -> None:
    histories = [[item % len(texts) for item in history] for history in drawn]
    found = fit_shared_words(texts).rank(histories, len(texts), keep_history=True)
    for history, (items, scores) in zip(histories, found, strict=True):
        expected = plain_scores(texts, history)
        assert sorted(items) == list(range(len(texts)))
        assert scores == pytest.approx([expected[item] for item in items], abs=1e-12)
        assert scores == sorted(scores, reverse=True)
        for place in range(1, len(items)):
            if scores[place] == scores[place - 1]:
                assert items[place] > items[place - 1]


TEXTS = ["title: red soap", "title: blue comb", "title: red towel", "title: RED soap", "title: comb lamp", ""]


def test_ties_come_in_the_catalogue_order_and_names_of_fields_are_no_words() -> None:
    model = fit_shared_words(TEXTS)
    ((items, scores),) = model.rank([[0]], 6)
    assert items == [3, 2, 1, 4, 5]  # the same words, one word, none
    assert scores[0] == pytest.approx(1)
    assert scores[2:] == [0, 0, 0]
    ((items, scores),) = model.rank([[]], 2)
    assert (items, scores) == ([0, 1], [0, 0])
    assert fit_shared_words(["one", "one"]).rank([[0]], 2)[0] == ([1], [0])  # a word of all texts tells nothing


def test_only_what_is_allowed_and_the_history_if_asked() -> None:
    model = fit_shared_words(TEXTS)
    allowed = np.array([True, False, True, False, True, False])
    assert model.rank([[0, 2]], 9, allowed=allowed)[0][0] == [4]
    assert model.rank([[0, 2]], 9, allowed=allowed, keep_history=True)[0][0] == [2, 0, 4]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklmnop"), 5)) for _ in range(50)]
    histories = [rng.integers(0, 50, n % 7).tolist() for n in range(40)]
    model, done = fit_shared_words(texts), list[int]()
    whole = model.rank(histories, 10)
    monkeypatch.setattr(item_scores, "_BLOCK", 150)
    assert model.rank(histories, 10, advance=done.append) == whole
    assert done == [3] * 13 + [1]
    monkeypatch.setattr(item_scores, "_BLOCK", 1)
    assert model.rank(histories, 10) == whole


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(TEXTS[:5])))
    rows: list[dict[str, Any]] = [
        {"user_id": "u", "history": ["i0"], "target": "i1"},
        {"user_id": "v", "history": ["i0", "gone", "i1"], "target": "i2"},
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)
    return tmp_path


def ask(shop: Path, *options: str) -> int:
    files = [str(shop / "test.jsonl"), "--items", str(shop / "items.jsonl"), "-o", str(shop / "recs.jsonl")]
    return run(["recommend", *files, "--baseline", "text", *options])


def lists(shop: Path) -> list[list[str]]:
    return [json.loads(line)["items"] for line in (shop / "recs.jsonl").read_text().splitlines()]


def test_the_command(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(shop, "-k", "3") == 0
    assert lists(shop) == [["i3", "i2", "i1"], ["i3", "i4", "i2"]]
    assert "left 1 unknown items out of 1 of 2 histories" in capfd.readouterr().err
    record = json.loads((shop / "recs.jsonl.run.json").read_text())
    assert set(record["inputs"]) == {"histories", "items"}
    assert ask(shop, "--unknown", "error") == 1
    assert "test.jsonl:2: unknown item 'gone'; give --items that cover every history" in capfd.readouterr().err
    (shop / "allow").write_text("i0\ni4\n")
    assert ask(shop, "--allow", str(shop / "allow"), "--keep-history", "--batch-size", "1") == 0
    assert lists(shop) == [["i0", "i4"], ["i0", "i4"]]
    (shop / "allow").write_text("i9\n")
    assert ask(shop, "--allow", str(shop / "allow")) == 1
    assert "allow:1: unknown item 'i9'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "t"], "--baseline text reads the texts of --items alone; leave --train and --ids out"),
        (["--ids", "i"], "--baseline text reads the texts of --items alone"),
        (["--rec", "r"], "--baseline asks no model; leave --rec"),
        (["--gen", "g"], "--baseline asks no model"),
    ],
)
def test_options_that_do_not_go_with_it(
    shop: Path, options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(shop, *options) == 2
    assert message in capfd.readouterr().err
    assert run(["recommend", str(shop / "test.jsonl"), "--baseline", "text"]) == 2
    assert "--baseline text needs --items; give items.jsonl" in capfd.readouterr().err
