"""`train-text-ranker`: its features by their definition, and what it makes of a platform that it has never seen."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.item_models.text_features import AGES, N_FEATURES, TextFeatures
from idgr.item_models.text_ranker import TextRankerScores
from idgr.models.text_ranker import TextRankerConfig, new_text_ranker

TEXTS = [
    "title: acme red soap bar",
    "title: acme blue soap",
    "title: zorro red lamp",
    "title: zorro green lamp shade",
    "title: plain towel",
    "title: acme red lamp bar",
    "",
]
HISTORIES = [[0, 2], [4], [], [1, 0, 3, 5, 2], [6]]


def cosine(first: list[Any], second: list[Any], rows: list[list[Any]]) -> float:
    held_by = Counter(word for row in rows for word in set(row))
    idf = {word: math.log(len(rows) / n) for word, n in held_by.items()}
    lengths = [math.sqrt(sum(idf[word] ** 2 for word in set(row))) for row in (first, second)]
    return sum(idf[word] ** 2 for word in {*first} & {*second}) / math.prod(lengths) if all(lengths) else 0.0


def test_features_are_what_they_are_said_to_be() -> None:
    """Against the definitions, written out."""
    heads = [text.removeprefix("title: ").split() for text in TEXTS]  # most texts hold "title", so it is no word
    kinds = [heads, [head[:3] for head in heads], [list(pairwise(head)) for head in heads]]
    found = TextFeatures(TEXTS).candidates(HISTORIES, 4)
    for row, history in enumerate(HISTORIES):
        sums = [
            [sum(cosine(k[i], k[c], k) / (1 + age) for age, i in enumerate(history[::-1])) for c in range(7)]
            for k in kinds
        ]
        likeness = np.array(sums[0]) + sums[2]
        np.testing.assert_allclose(found.likeness_BI[row], likeness, atol=1e-6)
        order = sorted({*range(7)} - {*history}, key=lambda item: (-round(likeness[item], 6), item))[:4]
        expected = [*order, *[-1] * (4 - len(order))]
        assert found.items_BC[row].tolist() == expected
        assert not found.features_BCF[row, len(order) :].any()
        for place, item in enumerate(order):
            told = found.features_BCF[row, place]
            for kind, rows in enumerate(kinds):
                alone = [cosine(rows[i], rows[item], rows) for i in history[::-1]][:AGES]
                ages = [sums[kind][item], *alone, *[0.0] * (AGES - len(alone))]
                begin = kind * (1 + AGES)
                assert told[begin : begin + 1 + AGES].tolist() == pytest.approx(ages, abs=1e-6)
            rest = [math.log1p(place), math.log1p(len(history))]
            assert told[13:15].tolist() == pytest.approx(rest, abs=1e-6)
    own = TextFeatures(TEXTS).own_IG
    assert (own.shape, N_FEATURES) == ((7, 5), 20)
    firsts = np.log([3, 3, 2, 2, 1, 3, 1])
    np.testing.assert_allclose(own[:, 3], (firsts - firsts.mean()) / firsts.std(), atol=1e-4)


def test_scores_depend_neither_on_the_batch_nor_on_the_order_of_the_catalogue() -> None:
    model = new_text_ranker(TextRankerConfig(N_FEATURES, 4, 3), seed=1).eval()
    scores = TextRankerScores(model, TextFeatures(TEXTS)).scores(HISTORIES)
    alone = [TextRankerScores(model, TextFeatures(TEXTS)).scores([history])[0] for history in HISTORIES]
    np.testing.assert_allclose(scores, alone, rtol=1e-6)
    assert np.isfinite(scores).all()
    turned = TextRankerScores(model, TextFeatures(TEXTS[::-1])).scores([[6 - item for item in [0, 2]]])
    np.testing.assert_allclose(turned[0][::-1], scores[0], rtol=1e-4)
    best = np.argsort(-scores[0], kind="stable")[:3]
    candidates = TextFeatures(TEXTS).candidates([[0, 2]], 3).items_BC[0]
    assert {*best.tolist()} == {*candidates.tolist()}, "candidates come before all others"
    assert np.exp(np.sort(scores[0])[-3:]).sum() == pytest.approx(1)


def brands(folder: Path, words: str, seed: int) -> Path:
    """A platform whose users stay with a brand, the first word of a text; what else texts share says nothing."""
    rng = np.random.default_rng(seed)
    names = [f"{words}{n}" for n in range(12)]
    items = [
        {
            "item_id": f"{words}-{n}",
            "text": f"{names[n % 12]} {' '.join(f'{words}x{one}' for one in rng.choice(150, 3))}",
        }
        for n in range(96)
    ]
    rows, valid, test = [], [], []
    for user in range(120):
        keys = [f"{words}-{12 * n + user % 12}" for n in rng.choice(8, 5, replace=False)]
        rows.append({"user_id": f"{words}{user}", "items": keys[:3]})
        valid.append({"user_id": f"{words}{user}", "history": keys[:3], "target": keys[3]})
        test.append({"user_id": f"{words}{user}", "history": keys[:4], "target": keys[4]})
    folder.mkdir()
    for name, lines in (("items", items), ("train", rows), ("valid", valid), ("test", test)):
        write_jsonl(folder / f"{name}.jsonl", lines)
    return folder


@pytest.fixture(scope="module")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("platforms")
    for seed, words in enumerate(("a", "b", "c")):
        brands(folder / words, words, seed)
    assert train(folder) == 0
    return folder


def train(folder: Path, *options: str, output: str = "ranker") -> int:
    data = [str(folder / "a"), str(folder / "b")]
    few = ["--epochs", "40", "--lr", "1e-2", "--candidates", "40", "--width", "8", "--device", "cpu"]
    return run(["train-text-ranker", *data, *few, "-o", str(folder / output), *options])


def hits(folder: Path, *ranker: str) -> int:
    """Of 120 users of the platform that nobody has seen, whose target is among the first four of 92."""
    items, test = str(folder / "c" / "items.jsonl"), folder / "c" / "test.jsonl"
    words = ["recommend", str(test), "--items", items, "-k", "4", "-o", str(folder / "recs.jsonl")]
    assert run([*words, *ranker]) == 0
    files = (test, folder / "recs.jsonl")
    truth, found = ([json.loads(line) for line in path.read_text().splitlines()] for path in files)
    return sum(row["target"] in told["items"] for row, told in zip(truth, found, strict=True))


def test_what_it_learns_holds_where_it_has_never_been(platforms: Path) -> None:
    record = json.loads((platforms / "ranker" / "run.json").read_text())
    assert [name for name in record["inputs"] if name.startswith("items")] == ["items-1", "items-2"]
    assert {*record["outputs"]} == {"config.json", "model.safetensors"}
    learnt, rule = hits(platforms, "--rec", str(platforms / "ranker")), hits(platforms, "--baseline", "text")
    assert learnt > 105 > 90 > rule, "four items of the brand are left"
    (platforms / "allow").write_text("c-1\nc-2\n")
    hits(platforms, "--rec", str(platforms / "ranker"), "--allow", str(platforms / "allow"))
    found = [json.loads(line)["items"] for line in (platforms / "recs.jsonl").read_text().splitlines()]
    assert {item for items in found for item in items} == {"c-1", "c-2"}


def test_the_same_bytes_each_time_and_a_forecast(platforms: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights = []
    for name in ("one", "two"):
        assert train(platforms, "--epochs", "2", "--max-users", "50", output=name) == 0
        weights.append(load_file(platforms / name / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert train(platforms, "--dry-run", output="none") == 0
    assert not (platforms / "none").exists()
    assert "parameters" in capfd.readouterr().out


def test_what_it_refuses(platforms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rec, items = str(platforms / "ranker"), str(platforms / "c" / "items.jsonl")
    words = ["recommend", str(platforms / "c" / "test.jsonl"), "--rec", rec, "-o", str(tmp_path / "r")]
    for given, message in (
        ([], "is a ranker of texts, which keeps no items; give --items, its catalogue"),
        (["--items", items, "--keep-history"], "leave it out; it has learnt to tell new items apart"),
        (["--items", items, "--precision", "bf16"], "a ranker of texts, whose few weights stay in fp32; leave it out"),
        (["--items", items, "--ids", "x"], "knows no textual IDs, so --ids says nothing to it"),
    ):
        assert run([*words, *given]) == 2
        assert message in capfd.readouterr().err
    other = shutil.copytree(rec, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"features": 7}
    (other / "config.json").write_text(json.dumps(config))
    assert run([*words[:3], str(other), *words[4:], "--items", items]) == 1
    assert "where its config.json asks for" in capfd.readouterr().err
    assert run(["train-text-ranker", str(tmp_path / "missing"), "-o", str(tmp_path / "x")]) == 1
    assert "missing" in capfd.readouterr().err
    strange = shutil.copytree(platforms / "a", tmp_path / "strange")
    write_jsonl(strange / "items.jsonl", ({"item_id": f"a-{n}", "text": ""} for n in range(96)))
    write_jsonl(strange / "train.jsonl", [{"user_id": "a0", "items": ["a-0", "a-1", "a-9"]}])
    assert run(["train-text-ranker", str(strange), "--candidates", "2", "-o", str(tmp_path / "x")]) == 1
    assert "no target is among the items whose texts are likest to the history's" in capfd.readouterr().err
