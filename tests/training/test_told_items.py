"""Items told beside their IDs: what training adds at separators is what searches add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr.cli.main import run
from idgr.decoding.beam import BeamSearch
from idgr.decoding.candidates import CandidateSearch
from idgr.decoding.exact import ExactSearch
from idgr.decoding.options import SearchOptions
from idgr.decoding.trie import build_trie
from idgr.formats.jsonl import write_jsonl
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.recommender.item_head import ItemObjective, new_item_head, told_items
from idgr.recommender.item_head_file import load_item_head, save_item_head
from idgr.recommender.sequences import Windows, window_loss
from idgr.recommender.told_items import ToldItems

from .conftest import TEXTUAL_IDS
from .test_causal_command import lists_of, train_rec
from .test_item_head import EOS, made

GIVEN = np.random.default_rng(5).normal(size=(len(TEXTUAL_IDS), 6)).astype(np.float32)


def objective_for(model: object, rows: list[list[int]], *, given: bool) -> ItemObjective:
    found = new_item_head(model, rows, 0.7, 0.0, 4, EOS, GIVEN if given else None, tells=True)  # type: ignore[arg-type]
    assert found.head.telling is not None
    assert not found.head.telling.weight.any()
    with torch.no_grad():
        for weight in found.head.parameters():
            weight.copy_(torch.from_numpy(np.random.default_rng(len(weight)).normal(size=weight.shape)))
    found.head.eval()
    return found


def test_separators_and_the_items_before_them() -> None:
    vectors = torch.arange(1.0, 7.0).view(3, 2)
    told = ToldItems.of(vectors, [[7], [7, 8], [9]], EOS)
    prompts = [[EOS, 7, 8, EOS, 9], [7, EOS, 5, EOS, 7], []]
    (row, place, added), last = told.within(prompts), told.behind(prompts)
    # Behind the unknown ID 5, before the first item and where there is no history, nothing is told.
    none = [0.0, 0.0]
    assert list(zip(row.tolist(), place.tolist(), added.tolist(), strict=True)) == [
        (0, 0, none),
        (0, 3, [3.0, 4.0]),
        (1, 1, [1.0, 2.0]),
        (1, 3, none),
    ]
    assert last.tolist() == [[5.0, 6.0], [1.0, 2.0], none]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_what_searches_score_is_what_training_costs(normalize: str, slots: bool, given: bool) -> None:
    model, rows, _ = made(slots=slots)
    both = objective_for(model, rows, given=given)
    trie, history = build_trie(rows, EOS), [3, 0, 8]
    cost, seen = {}, []
    for objective in (both, None):
        for target in range(len(rows)):
            items = np.array([*history, target])
            last = Windows(items, *(np.array([place]) for place in (0, 3, 4, 0)))
            loss, terms = window_loss(model, trie, last, normalize, None, objective)(np.array([0]), 0)
            if objective is not None:
                loss = loss - 0.7 * terms * both.found["item_head"][0]
                cost[target] = -loss.item()
            else:
                seen.append(abs(-loss.item() - cost[target]))
    assert min(seen) > 1e-3  # it matters
    prompt = [token for item in history for token in (EOS, *rows[item])]
    options = SearchOptions(10, 10, normalize=normalize)
    told = both.told_items()
    for search in (BeamSearch(model, trie, options, told=told), ExactSearch(model, trie, options, told=told)):
        (ranking,) = search.search([prompt])
        assert sorted(ranking.items) == list(range(10))
        np.testing.assert_allclose(ranking.scores, [cost[item] for item in ranking.items], atol=1e-4)
    few = SearchOptions(2, 2, normalize=normalize)
    search = CandidateSearch(BeamSearch(model, trie, few, told=told), trie, both.scores(model))
    for found in search.candidates([prompt, prompt[:-1], prompt], batch_size=3)[::2]:
        np.testing.assert_allclose(found.first, [cost[item] for item in found.items], atol=1e-4)


def test_given_vectors_stay_and_are_saved(tmp_path: Path) -> None:
    model, rows, _ = made()
    both = objective_for(model, rows, given=True)
    given_IE = both.head.given_IE
    assert given_IE is not None
    assert given_IE.square().mean().item() == pytest.approx(1)
    assert "given_IE" not in dict(both.head.named_parameters())
    keys = [f"I{item}" for item in range(len(rows))]
    save_item_head(both.head, keys, tmp_path)
    loaded = load_item_head(tmp_path, ["new", *keys[::-1]], 16)
    assert loaded.given_IE is not None
    assert not loaded.given_IE[0].any()
    assert torch.equal(loaded.given_IE[1:].flip(0), given_IE)
    told = told_items(loaded, [[999], *rows[::-1]], EOS)
    assert told is not None
    assert not told.vector_ID[0].any()


def test_the_command_with_the_vectors_of_a_sasrec(data: Path) -> None:
    asked = ["train-sasrec", str(data / "train.jsonl"), "--items", str(data / "items.jsonl"), "--epochs", "1"]
    assert run([*asked, "--width", "8", "--max-history", "5", "-o", str(data / "sasrec")]) == 0
    options = ["--item-head", "1", "--item-vectors", str(data / "sasrec"), "--tell-items"]
    assert run(train_rec(data, *options, "--epochs", "3")) == 0
    head = load_file(data / "out" / ITEM_HEAD)
    layers = {f"{name}.weight" for name in ("adaptor", "projection", "query", "telling")}
    assert set(head) == {"given_IE", "query.bias"} | layers
    assert head["telling.weight"].any()
    record = orjson.loads((data / "out" / "run.json").read_bytes())
    assert "item-vectors" in record["inputs"]
    assert lists_of(data, "1") == lists_of(data, "32")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tell-items"], "--tell-items without --item-head"),
        (["--item-vectors", "sasrec"], "--item-vectors without --contrast-behavior or --item-head"),
    ],
)
def test_what_does_not_go_together(
    data: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train_rec(data, *options)) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("tells", [["--tell-items"], []])
def test_new_items_have_vectors_of_zeros(tells: list[str], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the same head would rank whose file had zeros for them, and not as one that had something else."""
    assert run(train_rec(data, "--item-head", "1", *tells, "--epochs", "3")) == 0
    path, keys = data / "out" / ITEM_HEAD, [f"I{item}" for item in range(len(TEXTUAL_IDS))]
    grown = [("N0", "amber fjord"), *zip(keys[1:], TEXTUAL_IDS[1:], strict=True), ("N1", "delta basil")]
    write_jsonl(data / "grown.jsonl", [{"item_id": key, "id": text} for key, text in grown])
    rows = [["I1", "N0"], ["N1"], ["N0", "I5", "N1", "I2"]]
    write_jsonl(data / "histories.jsonl", [{"user_id": f"u{n}", "history": row} for n, row in enumerate(rows)])
    asked = ["recommend", str(data / "histories.jsonl"), "--rec", str(data / "out"), "--ids", str(data / "grown.jsonl")]
    asked += ["-k", "8", "--item-head-weight", "0.5", "--device", "cpu"]
    capsys.readouterr()
    assert run([*asked, "-o", str(data / "recs-0")]) == 0
    assert f"recommend: 2 of the 11 items of {data / 'grown.jsonl'} are new to" in capsys.readouterr().err

    head = load_file(path)
    for name, fill in (("recs-1", 0.0), ("recs-2", 9.0)):
        longer = torch.cat([head["free_ID"], torch.full((2, head["free_ID"].shape[1]), fill)])
        told = {"items": orjson.dumps([*keys, "N0", "N1"]).decode()}
        save_file({**head, "free_ID": longer}, path, metadata=told)
        assert run([*asked, "-o", str(data / name)]) == 0
    found = [(data / f"recs-{n}").read_bytes() for n in range(3)]
    assert found[0] == found[1] != found[2]


def test_what_reads_the_tokens_alone_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train_rec(data, "--item-head", "1", "--tell-items", "--epochs", "1")) == 0
    rec, given = str(data / "out"), [str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl")]
    assert run(["train-adapter", *given, "--rec", rec, "-o", str(data / "adapter")]) == 1
    assert "out: reads a vector of each item beside its ID (--tell-items); give one" in capsys.readouterr().err
    assert run(["export", rec, "--to", "transformers", "-o", str(data / "served")]) == 1
    assert "out: reads a vector of each item beside its ID (--tell-items); export one" in capsys.readouterr().err
    asked = ["--items", str(data / "items.jsonl"), "--gen", rec, "-o", str(data / "gen")]
    assert run(["train-gen", *given, "--rec", rec, *asked]) == 1
    assert "was not taught" in capsys.readouterr().err
