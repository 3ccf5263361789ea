"""Rankings by a recommender's prefix tree and its item head together, and what a damaged head is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.formats.jsonl import write_jsonl
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.models.backbone import load_causal_backbone, new_causal_backbone
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.recommender import item_head
from idgr.recommender.item_head import IdTokens, new_item_head

from ..decoding.oracle import plain_places, score_every_item
from .conftest import TEXTUAL_IDS
from .test_causal_command import train_rec
from .test_item_head import EOS, HEAD, SHAPE


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained recommender with a head in out/, and what it was trained on."""
    from .conftest import data as folder

    made_of: Callable[[Path], Path] = folder.__wrapped__  # type: ignore[attr-defined]
    data = made_of(tmp_path_factory.mktemp("head"))
    assert run(train_rec(data, *HEAD, "--epochs", "3", "--max-history", "3")) == 0
    return data


def recommend(shop: Path, output: Path, *options: str) -> int:
    asked = ["recommend", str(shop / "valid.jsonl"), "--rec", str(shop / "out"), "-k", "4", "-o", str(output)]
    return run([*asked, *options])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def scores_by_hand(shop: Path, ids: list[str], known: dict[str, int], keys: list[str], history: list[int]) -> Any:
    """Of every item, the log-probability of its ID and that of the head, from the files."""
    backbone = load_causal_backbone(shop / "out")
    model = backbone.model.eval()
    rows = id_tokens(backbone.tokenizer, ids)
    head = load_file(shop / "out" / ITEM_HEAD)
    free_ID = torch.stack([head["free_ID"][known[key]] if key in known else torch.zeros(128) for key in keys])
    prompt = [token for item in history[-3:] for token in (EOS, *rows[item])]
    first = score_every_item(model, rows, prompt, length_penalty=0.0, normalize="trie")
    with torch.no_grad():
        means = torch.stack([model.model.embed_tokens.weight[row].mean(0) for row in rows])
        places = torch.tensor([plain_places([*prompt, EOS], model.config.item_slots)])
        state_D = model.model(torch.tensor([[*prompt, EOS]]), position_ids=places)[0][0, -1]
        query_D = head["query.weight"] @ state_D + head["query.bias"]
        second = ((free_ID + means @ head["projection.weight"].T) @ query_D).log_softmax(0)
    return np.array(first), second.numpy()


@pytest.mark.parametrize("beams", ["4", "10"])
def test_rankings_are_those_of_every_item_scored_by_hand(shop: Path, tmp_path: Path, beams: str) -> None:
    known = {f"I{i}": i for i in range(len(TEXTUAL_IDS))}
    assert recommend(shop, tmp_path / "r", "--item-head-weight", "1.5", "--beams", beams) == 0
    for row, query in zip(rows_of(tmp_path / "r"), rows_of(shop / "valid.jsonl"), strict=True):
        history = [known[item] for item in query["history"]]
        first, second = scores_by_hand(shop, TEXTUAL_IDS, known, list(known), history)
        score = first + 1.5 * second
        may = [item for item in range(len(score)) if item not in history]
        best = sorted(may, key=lambda item: -score[item])[:4]
        if beams == "10":
            assert row["items"] == [f"I{item}" for item in best]
        np.testing.assert_allclose(row["scores"], [score[known[item]] for item in row["items"]], atol=1e-4)


def test_no_weight_gives_the_lists_of_a_folder_without_a_head(shop: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "out"
    bare.mkdir(parents=True)
    for path in (shop / "out").iterdir():
        if path.name != ITEM_HEAD:
            (bare / path.name).write_bytes(path.read_bytes())
    record = orjson.loads((bare / "run.json").read_bytes())
    del record["item_head"]
    (bare / "run.json").write_bytes(orjson.dumps(record))
    (bare.parent / "valid.jsonl").write_bytes((shop / "valid.jsonl").read_bytes())
    assert recommend(bare.parent, tmp_path / "without") == 0
    assert recommend(shop, tmp_path / "zero", "--item-head-weight", "0") == 0
    assert recommend(shop, tmp_path / "both", "--item-head-weight", "1") == 0
    assert (tmp_path / "without").read_bytes() == (tmp_path / "zero").read_bytes()
    assert rows_of(tmp_path / "both") != rows_of(tmp_path / "zero")
    assert recommend(shop, tmp_path / "usual") == 0
    weight = orjson.loads((shop / "out" / "run.json").read_bytes())["item_head"]["lambda"]
    assert recommend(shop, tmp_path / "told", "--item-head-weight", str(weight)) == 0
    assert (tmp_path / "usual").read_bytes() == (tmp_path / "told").read_bytes()


def test_allowed_items_alone(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text("I1\nI7\nI9\n")
    assert recommend(shop, tmp_path / "r", "--item-head-weight", "1", "--allow", str(tmp_path / "allow")) == 0
    for row, query in zip(rows_of(tmp_path / "r"), rows_of(shop / "valid.jsonl"), strict=True):
        assert set(row["items"]) == {"I1", "I7", "I9"} - set(query["history"])
    keep = ["--allow", str(tmp_path / "allow"), "--keep-history"]
    assert recommend(shop, tmp_path / "r", "--item-head-weight", "1", *keep) == 0
    assert all(set(row["items"]) == {"I1", "I7", "I9"} for row in rows_of(tmp_path / "r"))


def test_items_that_are_new_are_known_by_their_words(shop: Path, tmp_path: Path) -> None:
    """A catalogue that has grown, in another order."""
    old = {f"I{i}": i for i in range(len(TEXTUAL_IDS))}
    ids = [*TEXTUAL_IDS[5:], "delta amber", "basil delta fjord", *TEXTUAL_IDS[:5]]
    keys = [*list(old)[5:], "N0", "N1", *list(old)[:5]]
    write_jsonl(tmp_path / "ids", ({"item_id": key, "id": text} for key, text in zip(keys, ids, strict=True)))
    options = ["--ids", str(tmp_path / "ids"), "--item-head-weight", "0.8", "--beams", "12", "-k", "12"]
    assert recommend(shop, tmp_path / "r", *options, "--keep-history") == 0
    number = {key: place for place, key in enumerate(keys)}
    for row, query in zip(rows_of(tmp_path / "r"), rows_of(shop / "valid.jsonl"), strict=True):
        first, second = scores_by_hand(shop, ids, old, keys, [number[item] for item in query["history"]])
        score = first + 0.8 * second
        assert row["items"] == [keys[item] for item in np.argsort(-score)]
        np.testing.assert_allclose(row["scores"], np.sort(-score) * -1, atol=1e-4)


def test_half_precision_ranks_nearly_alike(shop: Path, tmp_path: Path) -> None:
    assert recommend(shop, tmp_path / "r", "--item-head-weight", "1") == 0
    assert recommend(shop, tmp_path / "b", "--item-head-weight", "1", "--precision", "bf16") == 0
    for row, rough in zip(rows_of(tmp_path / "r"), rows_of(tmp_path / "b"), strict=True):
        np.testing.assert_allclose(row["scores"], rough["scores"], atol=0.3)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--search", "exact"], "--search exact with an item head; add --item-head-weight 0, or leave --search exact"),
        (["--calibration-weight", "1", "--normalize", "full"], "--calibration-weight with an item head; add"),
        (["--item-head-weight", "-1"], "--item-head-weight -1; give a number of at least 0"),
    ],
)
def test_what_does_not_go_together_is_refused(
    shop: Path, tmp_path: Path, options: list[str], hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [] if "--item-head-weight" in options else ["--item-head-weight", "0.4"]
    assert recommend(shop, tmp_path / "r", *options, *given) == 2
    assert hint in capfd.readouterr().err
    assert recommend(shop, tmp_path / "r", *options, "--item-head-weight", "0") == 0


def damaged(shop: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "out"
    copy.mkdir()
    for path in (shop / "out").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (tmp_path / "valid.jsonl").write_bytes((shop / "valid.jsonl").read_bytes())
    return copy


def test_a_head_that_is_not_whole_is_told(shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = damaged(shop, tmp_path) / ITEM_HEAD
    whole = place.read_bytes()
    tensors, keys = load_file(place), {"items": orjson.dumps([f"I{i}" for i in range(10)]).decode()}

    def told(hint: str, code: int = 1) -> None:
        capfd.readouterr()
        assert recommend(tmp_path, tmp_path / "r", "--item-head-weight", "1") == code
        assert hint in capfd.readouterr().err

    place.unlink()
    told("holds no item_head.safetensors; give the folder as `idgr train-rec` wrote it, or --item-head-weight 0")
    place.write_bytes(whole[:200])
    told("holds no usable item head (its item_head.safetensors cannot be read")
    save_file(tensors, place)
    told("does not tell the keys of its items")
    save_file(tensors, place, metadata={"items": "[1]"})
    told("does not tell the keys of its items")
    save_file(tensors, place, metadata={"items": '["I0"]'})
    told("its free_ID is [10, 128], where [1, 128] is expected")
    save_file({name: tensor for name, tensor in tensors.items() if name != "query.bias"}, place, metadata=keys)
    told("its query.bias is missing, where [128] is expected")
    save_file(tensors | {"query.bias": torch.full((128,), torch.nan)}, place, metadata=keys)
    told("its 'query.bias' holds values that are not finite numbers")
    record = orjson.loads((tmp_path / "out" / "run.json").read_bytes())
    for value in ("much", {"lambda": -1}, {"lambda": True}, {"weight": 1}):
        (tmp_path / "out" / "run.json").write_bytes(orjson.dumps(record | {"item_head": value}))
        told("its run.json tells item_head")
    (tmp_path / "out" / "run.json").write_bytes(orjson.dumps({**record, "item_head": None}))
    told("has no item head; leave it out, or train it with `idgr train-rec --item-head`", 2)


def test_a_search_of_the_whole_of_a_large_catalogue_has_no_head() -> None:
    from idgr.decoding.options import SearchOptions
    from idgr.errors import UsageError
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.recommender import ranking

    tokenizer = train_tokenizer(TEXTUAL_IDS, SHAPE.vocab_size)
    backbone: Backbone = new_causal_backbone(SHAPE, tokenizer, seed=3)
    rows = [[5 + n % 200, 5 + n // 200] for n in range(300)]
    renderer = HistoryRenderer(EOS, rows, 5, 100)
    second = item_head.item_scores(
        new_item_head(backbone.model, rows, 1.0, 0.0, 0, EOS).head,
        backbone.model,
        IdTokens.of(rows, torch.device("cpu")),
        EOS,
    )
    keys, trie, options = [f"k{n}" for n in range(300)], build_trie(rows, EOS), SearchOptions(5, 300)
    with pytest.raises(UsageError, match="--beams 300 follow the whole catalogue"):
        ranking.Recommender(backbone, keys, renderer, trie, options, second=second, weight=0.5)
    assert ranking.Recommender(backbone, keys, renderer, trie, options, second=second).both is None
