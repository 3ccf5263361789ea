"""The head over items beside the prefix tree: its loss, what is saved of it, and rankings by both scores."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from idgr import Recommender
from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.evaluation.metrics import ndcg, target_ranks
from idgr.formats.jsonl import write_jsonl
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.formats.run_info import hash_folder
from idgr.models.backbone import CausalPreset, load_causal_backbone, new_causal_backbone
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.recommender import item_head
from idgr.recommender import item_loss as item_loss_module
from idgr.recommender.contrast import beside
from idgr.recommender.item_head import LAMBDAS, UNVALIDATED, IdTokens, ItemObjective, ItemTargets, new_item_head
from idgr.recommender.item_loss import item_loss
from idgr.recommender.sequences import Windows, make_windows, window_loss

from ..decoding.oracle import plain_places, score_every_item
from .conftest import TEXTUAL_IDS
from .test_causal_command import FILES, train_rec
from .test_distributed import TORCHRUN, compare, launch
from .test_stage import forked, log_of, stop_after

SHAPE = CausalPreset(d_model=16, d_ff=24, num_layers=2, num_heads=2, vocab_size=400)
EOS = 1
SEQUENCES = [[0, 3, 1, 8, 2], [5, 9], [4, 4, 6], [7, 6, 0, 2]]
TARGETS = ItemTargets(np.array([2, 0, 2]), np.full((3, 3), -1), np.zeros(3, dtype=np.int64))


def made(*, slots: bool = True) -> tuple[Any, list[list[int]], Windows]:
    tokenizer = train_tokenizer(TEXTUAL_IDS, SHAPE.vocab_size)
    model = new_causal_backbone(SHAPE, tokenizer, seed=3).model.eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    rows = id_tokens(tokenizer, TEXTUAL_IDS)
    model.config.item_slots = 0
    if slots:
        fit_item_slots(model, rows, new=True)
    return model, rows, make_windows(SEQUENCES, 6)


def head_for(model: Any, rows: list[list[int]], weight: float = 0.7, share: float = 0.0) -> ItemObjective:
    """A head whose free vectors are not zeros any more."""
    objective = new_item_head(model, rows, weight, share, 4, EOS)
    assert not objective.head.free_ID.any()
    with torch.no_grad():
        objective.head.free_ID.copy_(torch.from_numpy(np.random.default_rng(0).normal(size=(len(rows), 16))))
    return objective


def plain_vectors(head: Any, embedding_VD: Tensor, rows: list[list[int]]) -> Tensor:
    means = torch.stack([embedding_VD[row].mean(0) for row in rows])
    return head.free_ID + means @ head.projection.weight.T


def gradients_of(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("most", [1, 25, 1 << 24])
def test_the_loss_and_its_gradient_are_those_of_cross_entropy(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(item_loss_module._MOST_SCORES, "cpu", most)
    drawn = np.random.default_rng(1)
    query = torch.tensor(drawn.normal(size=(7, 4)), dtype=torch.float32, requires_grad=True)
    vectors = torch.tensor(drawn.normal(size=(9, 4)), dtype=torch.float32, requires_grad=True)
    items = torch.from_numpy(drawn.integers(0, 9, size=7))
    wanted = F.cross_entropy(query @ vectors.T, items, reduction="sum")
    expected = torch.autograd.grad(2 * wanted, [query, vectors])
    loss = item_loss(query, vectors, items)
    found = torch.autograd.grad(2 * loss, [query, vectors])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert item_loss(query.detach(), vectors.detach(), items).item() == loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = item_loss(query, vectors, items)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(wanted.item(), rel=0.02)
    for mine, theirs in zip(torch.autograd.grad(2 * rough, [query, vectors]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("slots", "leads"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("objective", ["trie", "full"])
def test_gradients_are_those_of_generation_and_of_a_head_written_by_hand(
    objective: str, slots: bool, leads: bool
) -> None:
    model, rows, windows = made(slots=slots)
    trie, batch = build_trie(rows, EOS), np.arange(len(windows.begin))
    both = head_for(model, rows)
    with beside(model, None, both):
        plain, terms = window_loss(model, trie, windows, objective, leads=leads)(batch, 0)
        generation = gradients_of(model, plain)
        vectors_ID = plain_vectors(both.head, model.model.embed_tokens.weight, rows)
        costs = []
        for begin, first, end in zip(windows.begin, windows.first, windows.end, strict=True):
            for place in range(first, end):  # each prefix alone, with the separator behind it
                tokens = [token for item in windows.items[begin:place] for token in (EOS, *rows[item])]
                tokens = [*tokens, EOS][not leads :]
                places = torch.tensor([plain_places(tokens, model.config.item_slots)])
                state_D = model.model(torch.tensor([tokens]), position_ids=places)[0][0, -1]
                query_D = both.head.query.weight @ state_D + both.head.query.bias
                costs.append(-(vectors_ID @ query_D).log_softmax(0)[windows.items[place]])
        expected = 0.7 * torch.stack(costs).mean() * terms
        drawn = gradients_of(model, expected)
        loss, again = window_loss(model, trie, windows, objective, None, both, leads=leads)(batch, 0)
        whole = gradients_of(model, loss)
    assert again == terms
    assert len(costs) == 10
    assert loss.item() == pytest.approx((plain + expected).item(), rel=1e-5)
    assert both.found["item_head"].tolist() == pytest.approx([torch.stack(costs).sum().item(), 10], rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(value, generation[name] + drawn[name], rtol=1e-3, atol=1e-4)
        assert name.startswith("item_head.") == bool(not generation[name].any() and drawn[name].any()), name
    assert {name for name in whole if name.startswith("item_head.")} == {
        f"item_head.{name}" for name in ("free_ID", "projection.weight", "query.weight", "query.bias")
    }


def test_the_words_of_an_id_learn_through_the_projection() -> None:
    model, rows, _ = made()
    both = head_for(model, rows)
    state = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    loss = both.cost(model, state, TARGETS, terms=3)
    loss.backward()  # type: ignore[no-untyped-call]
    slope = model.model.embed_tokens.weight.grad
    used = sorted({token for row in rows for token in row})
    assert slope[used].abs().amax(1).min() > 0
    assert not slope[[token for token in range(len(slope)) if token not in used]].any()


def test_dropout_is_there_in_training_alone() -> None:
    model, rows, _ = made()
    both = head_for(model, rows, share=0.5)
    state = torch.randn(3, 16)
    both.head.eval()
    still = both.cost(model, state, TARGETS, 3).item()
    both.head.train()
    assert len({both.cost(model, state, TARGETS, 3).item() for _ in range(5)}) == 5
    both.head.eval()
    assert both.cost(model, state, TARGETS, 3).item() == still


HEAD = ["--item-head", "0.5"]


def test_it_is_saved_beside_a_model_that_transformers_load(data: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert run(train_rec(data, *HEAD, "--epochs", "6")) == 0
    out = data / "out"
    assert {path.name for path in out.iterdir()} == FILES | {ITEM_HEAD}
    first, *_, last, _ = log_of(out)
    assert set(first) == {"epoch", "loss", "instances", "hr@10", "ndcg@10", "item_head", "lambda"}
    assert last["item_head"] < first["item_head"] < 1.2 * math.log(len(TEXTUAL_IDS))
    record = orjson.loads((out / "run.json").read_bytes())
    assert record["item_head"] == {"weight": 0.5, "lambda": record["kept"]["lambda"]}
    assert record["options"]["item-head-dropout"] == 0.2
    _, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    assert run(train_rec(data, *HEAD, "--epochs", "1", "--item-head-dropout", "0", output="other")) == 0
    assert hash_folder(data / "other")[ITEM_HEAD] != hash_folder(out)[ITEM_HEAD]


def test_without_validation_lambda_is_the_usual_one(data: Path) -> None:
    command = train_rec(data, *HEAD, "--epochs", "1")
    place = command.index("--valid")
    assert run([*command[:place], *command[place + 2 :]]) == 0
    record = orjson.loads((data / "out" / "run.json").read_bytes())
    assert record["item_head"] == {"weight": 0.5, "lambda": UNVALIDATED}


def test_no_weight_changes_nothing(data: Path) -> None:
    assert run(train_rec(data, output="plain")) == 0
    assert run(train_rec(data, "--item-head", "0", output="zero")) == 0
    plain, zero = (hash_folder(data / name) for name in ("plain", "zero"))
    assert {name for name in FILES if plain.get(name) != zero.get(name)} <= {"log.jsonl"}
    assert ITEM_HEAD not in zero
    assert log_of(data / "plain") == log_of(data / "zero")


@pytest.mark.parametrize("options", [[], ["--ema", "0.9"], ["--objective", "full", "--preference", "0.5"]])
def test_stopped_within_an_epoch_it_goes_on_to_the_same_bytes(
    data: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = train_rec(data, *HEAD, "--items", str(data / "items.jsonl"), "--reconstruction", "0.5", *options)
    assert run(command) == 0
    whole, log = hash_folder(data / "out"), log_of(data / "out")
    with monkeypatch.context() as patch:
        stop_after(patch, 3, signal.SIGTERM)
        assert forked(lambda: run([*command, "--overwrite"])) == 128 + signal.SIGTERM
    for path in (data / "out").iterdir():
        path.unlink()
    assert run(command) == 0
    assert hash_folder(data / "out") == whole
    assert log_of(data / "out") == log


def test_two_processes_train_as_one(data: Path) -> None:
    command = train_rec(data, *HEAD, "--item-head-dropout", "0", "--dropout", "0", "--device", "cpu", output="one")
    launch(TORCHRUN, [str(data / "two") if part == str(data / "one") else part for part in command])
    assert run(command) == 0
    compare(data / "one", data / "two")
    one, two = (load_file(data / name / ITEM_HEAD) for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)


def test_validation_takes_the_best_lambda_and_its_lists_are_those_of_recommend(data: Path) -> None:
    assert run(train_rec(data, *HEAD, "--epochs", "3", "--valid-beams", "10")) == 0
    kept = orjson.loads((data / "out" / "run.json").read_bytes())["kept"]
    rows = [orjson.loads(line) for line in (data / "valid.jsonl").read_bytes().splitlines()]
    found = {}
    for weight in LAMBDAS:
        ranker = Recommender.load(data / "out", beams=10, item_head_weight=weight, device="cpu")
        lists = ranker.recommend([row["history"] for row in rows], k=10)
        keys = [[one.item for one in ranked] for ranked in lists]
        found[weight] = ndcg(target_ranks(keys, [row["target"] for row in rows]), 10)
    assert kept["ndcg@10"] == max(found.values())
    assert kept["lambda"] == max(found, key=lambda weight: found[weight])


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


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--item-head", "-1"], "--item-head -1; give a number of at least 0"),
        (["--item-head", "1", "--item-head-dropout", "1"], "--item-head-dropout 1; give a share from 0 to below 1"),
        (["--item-head-dropout", "0.5"], "--item-head-dropout without --item-head"),
        (["--item-head", "1", "--arch", "t5"], "--item-head given with --arch t5"),
    ],
)
def test_training_refuses(data: Path, options: list[str], hint: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(train_rec(data, *options)) == 2
    assert hint in capfd.readouterr().err


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


def test_a_dry_run_counts_it(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = []
    for options in ([], HEAD):
        capfd.readouterr()
        assert run(train_rec(data, *options, "--dry-run")) == 0
        found.append(orjson.loads(capfd.readouterr().out)["parameters"])
    assert found[1] - found[0] == 10 * 128 + 2 * 128 * 128 + 128
