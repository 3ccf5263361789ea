"""The head over items beside the prefix tree: its loss, what is saved of it, and rankings by both scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from idgr import Recommender
from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.evaluation.metrics import ndcg, target_ranks
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.formats.run_info import hash_folder
from idgr.models.backbone import CausalPreset, new_causal_backbone
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.recommender.contrast import beside
from idgr.recommender.item_head import LAMBDAS, UNVALIDATED, ItemObjective, ItemTargets, new_item_head
from idgr.recommender.sequences import Windows, make_windows, window_loss

from ..decoding.oracle import plain_places
from .conftest import TEXTUAL_IDS
from .test_causal_command import FILES, train_rec
from .test_distributed import TORCHRUN, compare, launch
from .test_stage import check_goes_on, log_of

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
    assert set(first) == {"epoch", "step", "loss", "instances", "hr@10", "ndcg@10", "item_head", "lambda"}
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
    check_goes_on(command, data / "out", monkeypatch, 3)


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


def test_a_dry_run_counts_it(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = []
    for options in ([], HEAD):
        capfd.readouterr()
        assert run(train_rec(data, *options, "--dry-run")) == 0
        found.append(orjson.loads(capfd.readouterr().out)["parameters"])
    assert found[1] - found[0] == 10 * 128 + 2 * 128 * 128 + 128
