"""Pairs of near items for items that a head was not trained on: those of the texts that `--items` gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr import Recommender
from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats.jsonl import write_jsonl
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.recommender.item_head import ItemHead, new_item_head
from idgr.recommender.item_head_file import load_item_head, save_item_head
from idgr.recommender.item_loss import add_near
from idgr.recommender.near_items import AGES, NearItems, near_items

from .conftest import TEXTUAL_IDS
from .test_causal_command import train_rec
from .test_item_head import EOS, SEQUENCES, made
from .test_near_items import TEXTS

KEYS = [f"I{item}" for item in range(len(TEXTS))]
NEW = {"N0": "blue soap remover", "N1": "lipstick, blue"}


def saved(folder: Path, n: int) -> ItemHead:
    """A head whose pairs weigh differently for each age and kind."""
    model, rows, _ = made()
    head = new_item_head(model, rows, 1.0, 0.0, 4, EOS, near=near_items(TEXTS, SEQUENCES, n)).head
    assert head.near_weight is not None
    with torch.no_grad():
        head.near_weight.copy_(torch.arange(1.0, 1 + head.near_weight.numel()).view_as(head.near_weight))
        head.free_ID.fill_(1)
    save_item_head(head, KEYS, folder)
    return head


def added(head: ItemHead, near: NearItems | None, n_items: int) -> torch.Tensor:
    """What pairs add to the scores of a catalogue's items, each item in turn being the newest, then others."""
    assert near is not None
    assert head.near_weight is not None
    newest = (np.arange(n_items)[:, None] + np.array([0, 3, 4, 2, 7])[:AGES]) % n_items
    scores = torch.zeros(n_items, n_items)
    add_near(scores, near.scores(newest), head.near_weight.detach())
    return scores


def renumbered(keys: Sequence[str]) -> list[list[int]]:
    """The training sequences with the numbers that items have among these keys; others are left out."""
    return [[keys.index(f"I{item}") for item in row if f"I{item}" in keys] for row in SEQUENCES]


@pytest.mark.parametrize(
    ("keys", "n"),
    [
        (["N1", *KEYS[:4], "N0", *KEYS[4:]], 2),  # pairs that new ones crowd out
        (["N1", *KEYS[:4], "N0", *KEYS[4:]], 99),
        ([*KEYS[3:], "N1", "N0"], 99),
        ([*KEYS[2:9]], 99),  # none is new; what words tell has changed
    ],
)
def test_a_grown_catalogue_has_the_pairs_of_a_head_that_was_trained_on_it(
    keys: list[str], n: int, tmp_path: Path
) -> None:
    head = saved(tmp_path, n)
    texts = [NEW[key] if key in NEW else TEXTS[int(key[1:])] for key in keys]
    wanted = added(head, near_items(texts, renumbered(keys), n), len(keys))
    loaded = load_item_head(tmp_path, keys, 16, texts)
    assert loaded.near is not None
    torch.testing.assert_close(added(loaded, loaded.near, len(keys)), wanted)
    assert loaded.near.count[[keys.index(key) for key in NEW if key in keys]].tolist() == [0] * sum(
        key in keys for key in NEW
    )
    without = load_item_head(tmp_path, keys, 16)
    assert not torch.allclose(added(without, without.near, len(keys)), wanted)
    for key in set(NEW).intersection(keys):
        assert wanted[:, keys.index(key)].any()
        assert not added(without, without.near, len(keys))[:, keys.index(key)].any()


def test_a_wholly_new_catalogue_has_pairs_of_texts_alone(tmp_path: Path) -> None:
    head = saved(tmp_path, 2)
    texts = ["green tea", "black tea", "tea pot", "black pot", "spoon"]
    keys = [f"T{item}" for item in range(len(texts))]
    loaded = load_item_head(tmp_path, keys, 16, texts)
    assert not loaded.free_ID.any()
    assert loaded.near is not None
    assert not len(loaded.near.use.other)
    wanted = added(head, near_items(texts, [[]], 2), len(keys))
    assert wanted.any()
    torch.testing.assert_close(added(loaded, loaded.near, len(keys)), wanted)
    without = load_item_head(tmp_path, keys, 16)
    assert not added(without, without.near, len(keys)).any()


def test_the_catalogue_of_the_training_keeps_its_pairs(tmp_path: Path) -> None:
    head = saved(tmp_path, 3)
    loaded = load_item_head(tmp_path, KEYS, 16, TEXTS[::-1])  # whatever the texts are now
    assert torch.equal(added(loaded, loaded.near, len(KEYS)), added(head, head.near, len(KEYS)))


@pytest.mark.parametrize("n", [2, 3])
def test_a_file_that_does_not_tell_the_number_of_pairs(n: int, tmp_path: Path) -> None:
    saved(tmp_path, n)
    whole = load_file(tmp_path / ITEM_HEAD)
    assert whole.pop("pairs.n") == n
    save_file(whole, tmp_path / ITEM_HEAD, metadata={"items": orjson.dumps(KEYS).decode()})
    loaded = load_item_head(tmp_path, [*KEYS, *NEW], 16, [*TEXTS, *NEW.values()])
    assert loaded.near is not None
    assert loaded.near.n == n
    save_file(
        whole | {"pairs.n": torch.zeros(2)}, tmp_path / ITEM_HEAD, metadata={"items": orjson.dumps(KEYS).decode()}
    )
    with pytest.raises(IdgrError, match="pairs of items do not fit"):
        load_item_head(tmp_path, KEYS, 16)


def test_a_head_is_written_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    written = set()
    for _ in range(8):  # of two entries of metadata either would be the first as often
        saved(tmp_path, 3)
        written.add((tmp_path / ITEM_HEAD).read_bytes())
    assert len(written) == 1


def test_alike_texts_raise_a_new_item(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N0 has the text of I4, whose buyers are asked; the words of its ID are those of others."""
    items, grown, rec = str(data / "items.jsonl"), str(data / "grown.jsonl"), str(data / "out")
    options = ["--item-head", "1", "--near-items", "3", "--items", items]
    assert run(train_rec(data, *options, "--epochs", "1")) == 0
    ids = dict(zip([f"I{item}" for item in range(len(TEXTUAL_IDS))], TEXTUAL_IDS, strict=True)) | {"N0": "delta basil"}
    write_jsonl(data / "grown.jsonl", [{"item_id": key, "id": text} for key, text in ids.items()])
    rows = [orjson.loads(line) for line in (data / "items.jsonl").read_bytes().splitlines()]
    write_jsonl(data / "texts.jsonl", [*rows, {"item_id": "N0", "text": rows[4]["text"]}])
    write_jsonl(data / "histories.jsonl", [{"user_id": "u", "history": ["I9", "I4"]}])
    asked = ["recommend", str(data / "histories.jsonl"), "--rec", rec, "-k", "9", "--device", "cpu"]

    def ranked(*more: str) -> tuple[list[str], str]:
        capsys.readouterr()
        assert run([*asked, *more, "-o", str(data / "recs")]) == 0
        return orjson.loads((data / "recs").read_bytes())["items"], capsys.readouterr().err

    weighs = ["--item-head-weight", "1"]
    plain, told = ranked("--ids", grown, *weighs)
    note = "recommend: 1 of the 11 items are new and have no near items; give all texts with --items\n"
    assert told.count(note) == 1
    better, told = ranked("--ids", grown, "--items", str(data / "texts.jsonl"), *weighs)
    assert "near items" not in told
    assert better.index("N0") < plain.index("N0")
    loaded = Recommender.load(rec, ids=grown, items=str(data / "texts.jsonl"), device="cpu", item_head_weight=1.0)
    assert [one.item for one in loaded.recommend([["I9", "I4"]], k=9)[0]] == better

    # Neither is the note for those that were there, nor for a head that does not count.
    same, told = ranked(*weighs, "-k", "8")
    assert "near items" not in told
    assert ranked(*weighs, "-k", "8", "--items", items)[0] == same
    zero, told = ranked("--ids", grown, "--item-head-weight", "0")
    assert "near items" not in told
    assert ranked("--ids", grown, "--item-head-weight", "0", "--items", str(data / "texts.jsonl"))[0] == zero

    assert run([*asked, "--ids", grown, "--items", items, *weighs, "-o", str(data / "recs")]) == 1
    assert f"idgr: error: {items}: has no item 'N0'; give" in capsys.readouterr().err


def test_zeroshot_gives_the_texts(data: Path) -> None:
    options = ["--item-head", "1", "--near-items", "3", "--items", str(data / "items.jsonl")]
    assert run(train_rec(data, *options, "--epochs", "1")) == 0
    head = load_file(data / "out" / ITEM_HEAD)
    assert head["near_weight"].all()
    record = orjson.loads((data / "out" / "run.json").read_bytes())
    (data / "out" / "run.json").write_bytes(orjson.dumps(record | {"item_head": {"weight": 1.0, "lambda": 1.0}}))
    there = data / "there"
    there.mkdir()
    texts = ["ember basil", "ember cedar", "fjord cedar", "fjord delta", "amber delta", "basil"]
    write_jsonl(there / "items.jsonl", [{"item_id": f"T{n}", "text": f"title: {text}"} for n, text in enumerate(texts)])
    write_jsonl(there / "train.jsonl", [{"user_id": "a", "items": ["T0", "T1", "T2"]}])
    write_jsonl(there / "test.jsonl", [{"user_id": "a", "history": ["T1", "T2"], "target": "T3"}])
    out, rec = data / "zeroshot", str(data / "out")
    assert run(["zeroshot", str(there), "--scheme", "keyphrase", "--rec", rec, "-k", "4", "-o", str(out)]) == 0
    asked = ["recommend", str(there / "test.jsonl"), "--rec", rec, "--ids", str(out / "ids.jsonl"), "-k", "4"]
    asked += ["--force"]
    assert run([*asked, "--items", str(there / "items.jsonl"), "-o", str(data / "with")]) == 0
    assert run([*asked, "-o", str(data / "without")]) == 0
    assert (out / "recs.jsonl").read_bytes() == (data / "with").read_bytes() != (data / "without").read_bytes()
