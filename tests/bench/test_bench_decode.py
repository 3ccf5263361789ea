"""The contenders of `bench decode` do the same work, and the records say what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from idgr.bench import decode
from idgr.bench import decode_contenders as contenders
from idgr.bench.commands import DecodeOptions
from idgr.bench.decode import DecodeBench, bench_against_cpu, bench_against_exact, bench_against_peer, bench_catalogues
from idgr.bench.decode_contenders import FreeSearch, Task
from idgr.bench.decode_inputs import draw, made_up_histories, readable_ids
from idgr.bench.processes import Measurement
from idgr.bench.synthetic_ids import synthetic_ids
from idgr.cli.main import run
from idgr.decoding.beam import BeamSearch, SearchOptions
from idgr.decoding.trie import build_trie
from idgr.errors import UsageError
from idgr.formats.records import ItemId
from idgr.models.backbone import (
    CAUSAL_PRESETS,
    PRESETS,
    CausalPreset,
    Preset,
    load_backbone,
    new_backbone,
    new_causal_backbone,
    save_backbone,
)
from idgr.models.separator import separator_token
from idgr.models.tokenizer import train_tokenizer

from ..cli.test_pretrained_causal import byte_level_tokenizer

IDS = [
    f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("brush", "brush kit", "soap", "comb set")
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> DecodeBench:
    """A benchmark on a tiny model, whose contenders run in this process."""
    monkeypatch.setitem(PRESETS, "tiny", Preset(16, 32, 1, 2, 8, 400))
    monkeypatch.setitem(CAUSAL_PRESETS, "tiny", CausalPreset(16, 32, 2, 2, 400))

    def measure(make: Callable[[], Callable[[Task], Any]], task: Task) -> Measurement:
        started = time.perf_counter()
        return Measurement(make()(task), time.perf_counter() - started, 0.0, 1.0)

    monkeypatch.setattr(decode, "measure", measure)
    return DecodeBench(
        ids=IDS,
        histories=[[0, 3], [5], [7, 8, 9, 1]],
        targets=[2, 4, 6],
        arch="t5",
        model=None,
        separator=None,
        tokenizer=None,
        shape="tiny",
        options=SearchOptions(5, 5),
        batch_size=2,
        repeats=2,
        device="cpu",
        dtype="fp32",
        seed=0,
    )


both = pytest.mark.parametrize("arch", ["t5", "causal"])


@both
def test_idgr_and_transformers_agree(bench: DecodeBench, arch: str) -> None:
    bench = replace(bench, arch=arch)
    records = {record["contender"]: record for record in bench_against_peer(bench)}
    assert set(records) == {
        "transformers",
        "transformers, unconstrained",
        "idgr, full",
        "idgr, trie",
        "idgr, unconstrained",
    }
    ours = records["idgr, full"]
    assert ours["same_lists_as_transformers"] == 1.0
    assert ours["largest_score_gap"] < 1e-4
    assert records["transformers"]["ratio"] == records["transformers"]["cpu_ratio"] == 1.0
    assert records["idgr, trie"]["tokens_per_user"] < ours["tokens_per_user"]
    for name in ("idgr, full", "idgr, trie"):
        assert 0 < records[name]["share_in_passes"] < 1
        assert records[name]["constraint_overhead"] == pytest.approx(1 / records[name]["share_in_passes"] - 1, rel=1e-2)
    assert ours["time_ratio_to_unconstrained"] > 0
    assert all(len(record["seconds"]) == len(record["cpu_seconds"]) == bench.repeats for record in records.values())


@pytest.mark.parametrize("separator", ["eos", "newline"])
def test_a_saved_causal_model_is_asked_by_both_as_it_was_trained(
    bench: DecodeBench, separator: Literal["eos", "newline"], tmp_path: Path
) -> None:
    """With places for items, which the peer is told, and with newlines between items."""
    tokenizer = byte_level_tokenizer()
    backbone = new_causal_backbone(CAUSAL_PRESETS["tiny"], tokenizer, seed=0)
    if separator == "eos":
        backbone.model.config.item_slots = 20
    save_backbone(backbone, tmp_path)
    task = decode._task(replace(bench, arch="causal", model=str(tmp_path)), str(tmp_path), None)
    # A newline where idgr has not trained the model and there is one, as `recommend --force` settles it.
    end = separator_token(tokenizer, separator)
    assert [prompt.count(end) for prompt in task.prompts] == ([2, 1, 4] if separator == "eos" else [1, 0, 3])
    ours, theirs = (one()(task).rankings for one in (contenders.idgr_constrained, contenders.transformers_constrained))
    assert [ranking.items for ranking in ours] == [ranking.items for ranking in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


@both
def test_the_peer_answers_together_what_it_answers_alone(bench: DecodeBench, arch: str, tmp_path: Path) -> None:
    """Padding, on the left of a causal model's prompts, says nothing, and a history of no items is a prompt too."""
    task = decode._task(replace(bench, arch=arch, histories=[[0, 3], [], [7, 8, 9, 1]]), str(tmp_path), None)
    answer = contenders.transformers_constrained()
    together, alone = (answer(replace(task, batch_size=size)).rankings for size in (3, 1))
    assert [ranking.items for ranking in together] == [ranking.items for ranking in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_a_shape_is_of_its_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "decode", "--arch", "causal", "--shape", "nano"]) == 2
    assert "--shape nano with --arch causal; choose nano-causal" in capsys.readouterr().err


@pytest.mark.parametrize("measured", [{}, {"latency": True}, {"against": "cpu"}])
def test_a_softmax_is_chosen_where_not_both_are_run(measured: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--normalize trie is for --items and --against exact; leave it out"):
        DecodeOptions(normalize="trie", **measured)
    DecodeOptions(normalize="trie", items=[2])
    DecodeOptions(normalize="trie", against="exact")


def test_latency_is_that_of_single_users(bench: DecodeBench) -> None:
    for record in bench_against_peer(bench, one_by_one=True):
        assert 0 < record["p50_ms"] <= record["p95_ms"] <= record["p99_ms"]
        assert record["batch_size"] == 1


def test_catalogues_of_several_sizes(bench: DecodeBench) -> None:
    small, large = bench_catalogues(bench, [20, 200])
    assert (small["items"], large["items"]) == (20, 200)
    assert small["time_ratio_to_first"] == 1.0
    assert large["trie_bytes_per_item"] > 0


def test_beams_against_exact(bench: DecodeBench) -> None:
    exact, beams = bench_against_exact(replace(bench, options=SearchOptions(5, 60)))
    assert exact["expansions_per_user"] > 0
    assert beams["same_lists_as_exact"] == 1.0
    assert beams["hr@10"] == exact["hr@10"]


def test_lists_beside_the_cpus(bench: DecodeBench) -> None:
    records = list(bench_against_cpu(bench))
    assert [record["contender"] for record in records] == [
        "idgr, full, CPU",
        "idgr, full",
        "idgr, trie, CPU",
        "idgr, trie",
    ]
    assert [record.get("same_lists_as_cpu") for record in records] == [None, 1.0, None, 1.0]
    assert records[1]["largest_score_gap"] == 0.0
    coarse = list(bench_against_cpu(replace(bench, dtype="bf16")))[1]
    assert 0 < coarse["largest_score_gap"] < 0.5


def test_free_search_is_beam_search_without_a_tree() -> None:
    backbone = new_backbone(Preset(16, 32, 1, 2, 8, 400), train_tokenizer(IDS, 400), seed=0)
    model: Any = backbone.model.eval()
    # An end that is never likely leaves `generate` nothing but fixed lengths.
    prompts = [[5, 6, 7, 1], [9, 8, 1]]
    tokens, scores = FreeSearch(model, 4, 5).search(prompts)
    for prompt, answer, score in zip(prompts, tokens.tolist(), scores.tolist(), strict=True):
        theirs = model.generate(
            input_ids=torch.tensor([prompt]),
            num_beams=4,
            num_return_sequences=4,
            do_sample=False,
            length_penalty=0.0,
            early_stopping="never",
            max_new_tokens=5,
            eos_token_id=-1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        assert theirs.sequences[:, 1:].tolist() == answer
        np.testing.assert_allclose(theirs.sequences_scores.numpy(), score, atol=1e-4)


def test_the_clock_runs_in_passes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = new_backbone(Preset(16, 32, 1, 2, 8, 400), train_tokenizer(IDS, 400), seed=0)
    search = BeamSearch(backbone.model, build_trie([[5, 6, 7], [5, 6, 8], [5, 9], [10, 11]], 1), SearchOptions(2, 2))
    now = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: now[0])

    def slow(holder: Any, name: str, seconds: float) -> None:
        ask = getattr(holder, name)

        def asked(*given: Any, **named: Any) -> Any:
            now[0] += seconds
            return ask(*given, **named)

        monkeypatch.setattr(holder, name, asked)

    slow(search.decoder, "read", 2.0)
    slow(search.decoder, "log_normaliser", 0.25)
    slow(search.tree, "barred", 100.0)
    clock = contenders.PassClock(search.decoder)
    search.search([[5, 6, 7, 1], [9, 8, 1], [4, 1]], batch_size=2)
    passes = now[0] - 200.0
    assert passes > 2 * 2.0  # two batches, each with a normaliser
    assert clock.seconds == passes


def test_made_up_ids_have_the_shape_of_the_given() -> None:
    rng = np.random.default_rng(0)
    source = np.unique(rng.zipf(1.5, size=(500, 6)) % 100 + 2, axis=0).tolist()
    source = [row[: rng.integers(3, 7)] for row in source]
    found = synthetic_ids(source, 3000, seed=1)
    assert len({tuple(row) for row in found}) == 3000
    assert {token for row in found for token in row} <= {token for row in source for token in row}
    assert np.mean([len(row) for row in found]) == pytest.approx(np.mean([len(row) for row in source]), rel=0.15)
    assert found == synthetic_ids(source, 3000, seed=1)


@pytest.mark.timeout(60)
def test_as_many_ids_are_made_up_as_there_can_be() -> None:
    with pytest.raises(UsageError, match=r"--items 9, of which the given IDs cannot make so many .*; give more IDs"):
        synthetic_ids([[5, 6], [7, 8]], 9, seed=0)
    assert len(synthetic_ids([[5, 6], [7, 8]], 8, seed=0)) == 8  # each of two first tokens, and one of four
    assert len(synthetic_ids([[5, 6, 7, 8], [5, 6, 7, 9]], 125, seed=0)) == 125


def test_items_are_left_out_of_a_dictionary_tree() -> None:
    root: dict[int, Any] = {5: {6: {1: {}}, 7: {1: {}}}, 8: {1: {}}}
    assert contenders._without(root, [[5, 7], [8]], 1) == {5: {6: {1: {}}}}
    assert root == {5: {6: {1: {}}, 7: {1: {}}}, 8: {1: {}}}


def test_inputs() -> None:
    ids = [ItemId("a", "red soap"), ItemId("b", "blue soap"), ItemId("c", "red soap")]
    texts, histories, targets = readable_ids(ids, [(["c", "b"], "a"), (["a"], "c"), (["b"], None)], None, None)
    assert (texts, histories, targets) == (["red soap", "blue soap"], [[1], [0], [1]], [0, -1, None])
    rows = made_up_histories(["a", "b"], 50, seed=0)
    assert len(rows) == 50
    assert {len(history) for history, _ in rows} <= set(range(1, 21))
    assert len(draw(rows, 10, seed=3)) == 10
    assert draw(rows, 90, seed=3) == rows


def test_a_task_holds_a_model_that_loads(bench: DecodeBench, tmp_path: Path) -> None:
    task = decode._task(bench, str(tmp_path), None)
    assert load_backbone(task.folder).model.config.d_model == 16
    assert len(task.prompts) == len(bench.histories)
