"""`recommend --baseline star`: a plain implementation, dense and sparse vectors of texts, blocks, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from idgr.cli.main import run
from idgr.evaluation import item_scores
from idgr.evaluation.shared_words import fit_shared_words
from idgr.evaluation.star import fit_star
from idgr.formats.jsonl import write_jsonl
from idgr.ids.schemes.text_vectors import text_vectors

from ..encoder_folder import tiny_bert

N = 6
Sequences = list[list[int]]


def plain_score(vectors: list[list[float]], sequences: Sequences, history: list[int], candidate: int) -> float:
    """The definition, item by item and user by user."""

    def semantic(one: int, other: int) -> float:
        length = math.hypot(*vectors[one]) * math.hypot(*vectors[other])
        return sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True)) / length if length else 0.0

    def collaborative(one: int, other: int) -> float:
        buyers = [{user for user, items in enumerate(sequences) if item in items} for item in (one, other)]
        both = len(buyers[0] & buyers[1])
        return both / math.sqrt(len(buyers[0]) * len(buyers[1])) if both else 0.0

    score = 0.0
    for age, item in enumerate(reversed(history)):
        if age < 3:
            score += 0.7**age * (0.5 * semantic(candidate, item) + 0.5 * collaborative(candidate, item))
    return score


histories_strategy = st.lists(st.lists(st.integers(0, N - 1), max_size=6), max_size=5)
vectors_strategy = st.lists(st.lists(st.integers(-2, 3), min_size=2, max_size=2), min_size=N, max_size=N)


@settings(derandomize=True, deadline=None)
@given(vectors_strategy, histories_strategy, histories_strategy, st.booleans())
def test_scores_are_those_of_the_definition(
    vectors: list[list[float]], sequences: Sequences, histories: Sequences, dense: bool
) -> None:
    texts: Any = np.array([[x / (math.hypot(*row) or 1) for x in row] for row in vectors])
    found = fit_star(texts if dense else sparse.csr_matrix(texts), sequences).rank(histories, N, keep_history=True)
    for history, (items, scores) in zip(histories, found, strict=True):
        assert sorted(items) == list(range(N))
        expected = [plain_score(vectors, sequences, history, item) for item in items]
        assert scores == pytest.approx(expected, abs=1e-12)
        assert scores == sorted(scores, reverse=True)


TEXTS = ["red soap", "blue comb", "red towel", "green soap", "comb lamp"]
TRAIN = [[0, 1, 4], [0, 1, 1], [2, 3]]


def test_buyers_and_texts_and_the_newest_count() -> None:
    star = fit_star(np.zeros((5, 1), np.float32), TRAIN)  # of texts nothing is known
    assert star.rank([[0]], 2) == [([1, 4], pytest.approx([0.5, 0.5 / math.sqrt(2)]))]
    # Item 0 is the fourth newest; 3 is the only item that a buyer of 2 has.
    assert star.rank([[0, 2, 2, 2]], 4) == [([3, 1, 4], pytest.approx([0.5 * (1 + 0.7 + 0.49), 0, 0]))]
    alone = fit_star(fit_shared_words(TEXTS).items_IW, [])
    words = fit_shared_words(TEXTS).rank([[0]], 4)[0]
    assert alone.rank([[0]], 4)[0] == (words[0], pytest.approx([0.5 * score for score in words[1]]))


def test_only_what_is_allowed_and_ties_by_the_catalogue() -> None:
    star = fit_star(np.zeros((5, 1)), TRAIN)
    allowed = np.array([True, False, True, True, True])
    assert star.rank([[0], []], 9, allowed=allowed) == [([4, 2, 3], pytest.approx([0.5 / math.sqrt(2), 0, 0])),
                                                        ([0, 2, 3, 4], [0, 0, 0, 0])]  # fmt: skip


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklmnop"), 5)) for _ in range(50)]
    sequences, histories = ([rng.integers(0, 50, n % 7).tolist() for n in range(40)] for _ in range(2))
    star, done = fit_star(fit_shared_words(texts).items_IW, sequences), list[int]()
    whole = star.rank(histories, 10)
    monkeypatch.setattr(item_scores, "_BLOCK", 150)
    assert star.rank(histories, 10, advance=done.append) == whole
    assert done == [3] * 13 + [1]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(TEXTS)))
    rows = ({"user_id": f"u{n}", "items": [f"i{item}" for item in items]} for n, items in enumerate(TRAIN))
    write_jsonl(tmp_path / "train.jsonl", rows)
    histories = [{"user_id": "u", "history": ["i0", "gone"]}, {"user_id": "v", "history": ["i3"]}]
    write_jsonl(tmp_path / "histories.jsonl", histories)
    return tmp_path


def ask(shop: Path, *options: str) -> int:
    files = ["--items", str(shop / "items.jsonl"), "--train", str(shop / "train.jsonl"), "-o", str(shop / "recs.jsonl")]
    return run(["recommend", str(shop / "histories.jsonl"), *files, "--baseline", "star", *options])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(shop, "-k", "2") == 0
    expected = fit_star(fit_shared_words(TEXTS).items_IW, TRAIN).rank([[0], [3]], 2)
    for row, (items, scores) in zip(rows_of(shop / "recs.jsonl"), expected, strict=True):
        assert (row["items"], row["scores"]) == ([f"i{item}" for item in items], scores)
    assert "left 1 unknown items out of 1 of 2 histories" in capfd.readouterr().err
    record = json.loads((shop / "recs.jsonl.run.json").read_text())
    assert set(record["inputs"]) == {"histories", "items", "train"}
    write_jsonl(shop / "train.jsonl", [{"user_id": "u", "items": ["i0", "i9"]}])
    assert ask(shop) == 1
    assert "train.jsonl:1: unknown item 'i9'; give IDs or items that cover every history" in capfd.readouterr().err


def test_a_sentence_encoder_in_place_of_words(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = str(tiny_bert(sorted({word for text in TEXTS for word in text.split()}), shop / "encoder"))
    assert ask(shop, "-k", "4", "--text-vectors", encoder) == 0
    vectors = text_vectors(TEXTS, encoder).tolist()
    for row, history in zip(rows_of(shop / "recs.jsonl"), [[0], [3]], strict=True):
        score_of = {f"i{item}": plain_score(vectors, TRAIN, history, item) for item in range(5) if item not in history}
        assert row["items"] == sorted(score_of, key=lambda item: -score_of[item])
        assert row["scores"] == pytest.approx([score_of[item] for item in row["items"]], abs=1e-6)
    record = json.loads((shop / "recs.jsonl.run.json").read_text())
    assert set(record["inputs"]) == {"histories", "items", "train", "text-vectors"}
    capfd.readouterr()
    assert ask(shop, "--text-vectors", str(shop / "none")) == 1
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "t"], "--baseline star needs --items; give items.jsonl"),
        (["--items", "i"], "--baseline star needs --train; give train.jsonl"),
        (["--items", "i", "--train", "t", "--ids", "x"], "--baseline star ranks the items of --items; leave --ids out"),
        (["--items", "i", "--train", "t", "--rec", "r"], "leave --rec, --adapter, --prompts, --trie, and --gen out"),
        (["--items", "i", "--train", "t", "--prompts", "p"], "leave --rec"),
    ],
)
def test_what_does_not_go_together(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "h", "--baseline", "star", *options]) == 2
    assert message in capsys.readouterr().err
