"""Alternation: the order of phases, the chain of single commands it equals, and going on after a SIGKILL anywhere."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from idgr.alternation.phases import Alternation, Phase, plan, rounds_in_words
from idgr.alternation.rounds import is_done, table
from idgr.cli.main import run
from idgr.engine import trainer
from idgr.engine.options import TrainingOptions
from idgr.formats.jsonl import write_jsonl
from idgr.formats.run_info import sha256_file
from idgr.generator.training import train_generator
from idgr.models.backbone import CAUSAL_PRESETS, PRESETS, CausalPreset, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)
COLOURS, THINGS = ["red", "blue", "green"], ["tent", "stove", "lamp", "chair"]
IDS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
# A user buys one colour, thing by thing, or one thing in all colours.
SEQUENCES = [[4 * c + t for t in range(4)] for c in range(3)] + [[t, 4 + t, 8 + t] for t in range(4)]


def steps(phases: list[Phase]) -> list[str]:
    return [f"{phase.round} {phase.command} {phase.output.name}" for phase in phases if phase.command != "validate"]


def test_from_scratch_the_recommender_comes_first() -> None:
    what = Alternation(Path("d"), "gen", "nano", rounds=2)
    assert steps(plan(Path("run"), what)) == [
        "0 gen-ids ids.jsonl",
        "1 keep gen", "1 keep ids.jsonl", "1 train-rec rec",
        "2 train-gen gen", "2 gen-ids ids.jsonl", "2 train-rec rec",
    ]  # fmt: skip


def test_with_a_pretrained_recommender_the_generator_comes_first() -> None:
    phases = plan(Path("run"), Alternation(Path("d"), "gen", "t5-small", rounds=2, seed=7))
    assert steps(phases) == [
        "0 gen-ids ids.jsonl",
        "1 train-gen gen", "1 gen-ids ids.jsonl", "1 train-rec rec",
        "2 train-gen gen", "2 gen-ids ids.jsonl", "2 train-rec rec",
    ]  # fmt: skip
    by_place = {f"{phase.round} {phase.command}": phase.arguments for phase in phases}
    # Every round reads what the round before wrote, and its own IDs.
    assert by_place["1 train-gen"]["ids"] == "run/round-0/ids.jsonl"
    assert by_place["1 train-gen"]["rec"] == by_place["1 train-rec"]["model"] == "t5-small"
    assert by_place["1 train-rec"]["ids"] == by_place["2 train-gen"]["ids"] == "run/round-1/ids.jsonl"
    assert by_place["2 train-gen"]["rec"] == by_place["2 train-rec"]["model"] == "run/round-1/rec"
    assert by_place["2 gen-ids"]["model"] == "run/round-2/gen"
    assert by_place["2 train-rec"]["ids"] == "run/round-2/ids.jsonl"
    assert [by_place[f"{number} train-rec"]["seed"] for number in (1, 2)] == [7, 8]


def test_a_recommender_that_never_learns_is_asked_alike_in_every_round() -> None:
    asked = {"objective": "trie", "max_history": 7}
    what = Alternation(Path("d"), "gen", "rec", rounds=3, mode="id-only", prompt_options=asked)
    given = [phase.arguments for phase in plan(Path("run"), what) if phase.command == "train-gen"]
    assert [{name: one[name] for name in ("force", *asked)} for one in given] == [{"force": True, **asked}] * 3


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("rec-only", ["2 keep gen", "2 keep ids.jsonl", "2 train-rec rec"]),
        ("id-only", ["2 train-gen gen", "2 gen-ids ids.jsonl", "2 keep rec"]),
    ],
)
def test_one_of_the_two_alone(mode: str, expected: list[str]) -> None:
    phases = plan(Path("run"), Alternation(Path("d"), "gen", "nano", rounds=2, mode=mode))
    assert [step for step in steps(phases) if step.startswith("2")] == expected


def test_a_single_round_of_the_generator_alone_trains_it_once() -> None:
    what = Alternation(Path("d"), "gen", "nano", rounds=1, mode="id-only")
    phases = plan(Path("run"), what)
    assert rounds_in_words(phases) == {0: "gen-ids", 1: "train-rec, train-gen, gen-ids"}
    by_command = {phase.command: phase.arguments for phase in phases if phase.round == 1}
    assert by_command["train-rec"]["ids"] == by_command["train-gen"]["ids"] == "run/round-0/ids.jsonl"
    assert by_command["train-gen"]["rec"] == "run/round-1/rec"
    scored = [phase.arguments for phase in phases if phase.command == "validate"]
    assert [(line["phase"], line["before"], line["ids"], line["gen"]) for line in scored] == [
        ("rec", "run/round-0/ids.jsonl", "run/round-0/ids.jsonl", "gen"),
        ("gen", "run/round-0/ids.jsonl", "run/round-1/ids.jsonl", "run/round-1/gen"),
    ]
    # So a longer run does not begin with it, as it does with a single round of both.
    longer = replace(what, rounds=3)
    assert rounds_in_words(plan(Path("run"), longer)) == {
        0: "gen-ids", 1: "train-rec", 2: "train-gen, gen-ids", 3: "train-gen, gen-ids",
    }  # fmt: skip
    assert not longer.goes_on_from(1)
    assert longer.goes_on_from(2)
    assert not longer.goes_on_from(4)
    assert replace(longer, mode="alternate").goes_on_from(1)
    assert replace(longer, rec="rec").goes_on_from(1)

    phases = plan(Path("run"), Alternation(Path("d"), "gen", "rec", rounds=1, mode="id-only"))
    assert rounds_in_words(phases) == {0: "gen-ids", 1: "train-gen, gen-ids"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of twelve items, its histories, and a generator that has learnt something."""
    folder = tmp_path_factory.mktemp("data")
    texts = [f"title: {text}; brand: acme" for text in IDS]
    write_jsonl(folder / "items.jsonl", ({"item_id": f"i{n}", "text": text} for n, text in enumerate(texts)))
    rows = [[f"i{item}" for item in row] for row in SEQUENCES]
    write_jsonl(folder / "train.jsonl", ({"user_id": f"u{n}", "items": row[:-1]} for n, row in enumerate(rows)))
    held = ({"user_id": f"u{n}", "history": row[:-1], "target": row[-1]} for n, row in enumerate(rows))
    write_jsonl(folder / "valid.jsonl", held)
    generator = new_backbone(TINY, train_tokenizer([*texts, *IDS, "history: ; next:"], TINY.vocab_size), seed=0)
    pairs = list(zip(texts, IDS, strict=True))
    how = TrainingOptions(epochs=30, lr=1e-2, batch_size=4, dropout=0.0)
    train_generator(generator, pairs, how, max_text_tokens=32, held_out=0.0, on_epoch=lambda record: None)
    (folder / "gen").mkdir()
    save_backbone(generator, folder / "gen")
    return folder


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nano", TINY)


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    few = ["--rounds", "2", "--rec.epochs", "1", "--gen.lr", "1e-2", "--valid-beams", "10", "--device", "cpu"]
    return ["alternate", str(data), "--gen", str(data / "gen"), *few, *more, "-o", str(output)]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    output = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        assert run(arguments(data, output)) == 0
        torch.set_num_threads(threads)
    return output


def test_soft_ids_through_a_causal_recommender(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = CausalPreset(d_model=16, d_ff=24, num_layers=1, num_heads=2, vocab_size=340)
    monkeypatch.setitem(CAUSAL_PRESETS, "nano-causal", tiny)
    assert run(arguments(data, tmp_path / "run", "--rec", "nano-causal", "--gen.lr", "1e-1")) == 0
    lines = [orjson.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()]
    assert [(line["round"], line["phase"]) for line in lines] == [(1, "rec"), (2, "gen"), (2, "rec")]
    assert lines[1]["ids_changed"] > 0
    config = orjson.loads((tmp_path / "run" / "final" / "rec" / "config.json").read_bytes())
    assert (config["model_type"], config.get("item_slots", 0)) == ("llama", 0), "names may grow"


def results(folder: Path) -> dict[str, str]:
    """Every file but those that hold times of day, by its hash."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("run.json", "log.jsonl"))
    }


def test_a_round_holds_everything_and_metrics_have_a_line_a_phase(finished: Path) -> None:
    for place in ("round-1", "round-2", "final"):
        names = {path.name for path in (finished / place).iterdir()}
        assert names == {"gen", "rec", "ids.jsonl", "ids.jsonl.run.json", "metrics.json"}
    assert {path.name for path in finished.iterdir()} == {
        "round-0", "round-1", "round-2", "final", "metrics.jsonl", "run.json",
    }  # fmt: skip
    lines = [orjson.loads(line) for line in (finished / "metrics.jsonl").read_bytes().splitlines()]
    assert [(line["round"], line["phase"]) for line in lines] == [(1, "rec"), (2, "gen"), (2, "rec")]
    for line in lines:
        assert line["n_users"] == len(SEQUENCES)
        assert 0 <= line["ndcg@10"] <= line["hr@10"] <= 1
        assert line["loss"] > 0
        assert 0 <= line["ids_longer"] <= line["ids_second_attempt"] <= 1
    before, after = (orjson.loads(b"[" + b",".join(ids_lines(finished, place)) + b"]") for place in (1, 2))
    changed = sum(old["id"] != new["id"] for old, new in zip(before, after, strict=True)) / len(IDS)
    assert [line["ids_changed"] for line in lines] == [0.0, changed, 0.0]
    assert changed > 0
    first, renamed, last = (f"{line['ndcg@10']:.4f}" for line in lines)
    assert table(finished) == [
        f"round 1: 0 of 12 IDs changed (0.0%); NDCG@10 on validation {first} after",
        f"round 2: {round(12 * changed)} of 12 IDs changed ({changed:.1%}); NDCG@10 on validation {first} before, "
        f"{renamed} with the new IDs, {last} after",
    ]
    best = max(lines[0], lines[2], key=lambda line: line["ndcg@10"])
    assert orjson.loads((finished / "final" / "metrics.json").read_bytes()) == best


def ids_lines(folder: Path, number: int) -> list[bytes]:
    return (folder / f"round-{number}" / "ids.jsonl").read_bytes().splitlines()


def test_equals_the_chained_single_commands(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = tmp_path / "chain"
    assert run(arguments(data, chain, "--dry-run")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("#")] == [
        "# round 0: gen-ids", "# round 1: train-rec", "# round 2: train-gen, gen-ids, train-rec",
    ]  # fmt: skip
    commands = [line for line in printed if not line.startswith("#")]
    assert not chain.exists()
    assert [shlex.split(line)[1] for line in commands] == ["gen-ids", "train-rec", "train-gen", "gen-ids", "train-rec"]
    for line in commands:
        assert run(shlex.split(line)[1:]) == 0
    made, expected = results(chain), results(finished)
    assert made == {name: expected[name] for name in made}
    assert {"round-2/gen/model.safetensors", "round-2/rec/model.safetensors", "round-2/ids.jsonl"} <= set(made)


def run_until_killed(command: list[str], replacements: int) -> bool:
    """Run in a process that kills itself before so many files or folders have got their final names."""
    child = os.fork()
    if child == 0:
        left = replacements

        def counted(event: str, names: tuple[Any, ...]) -> None:
            nonlocal left
            if event == "os.rename":
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(counted)
        os._exit(run(command))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def test_goes_on_after_being_killed_anywhere(data: Path, finished: Path, tmp_path: Path) -> None:
    output, kills = tmp_path / "run", 0
    # Each process gets a little further than the one before, so that they stop in every phase, and between all.
    while run_until_killed(arguments(data, output), kills):
        kills += 1
    assert kills > 8
    assert results(output) == results(finished)


def test_a_phase_that_was_stopped_goes_on_from_its_checkpoint(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    output, follow, left = tmp_path / "run", trainer.optimizer_step, 2

    def counted(*given: Any) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGTERM)
        left -= 1
        follow(*given)

    batches = ["--rec.batch-size", "4", "--gen.batch-size", "4"]
    whole = tmp_path / "whole"
    assert run(arguments(data, whole, *batches)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "optimizer_step", counted)
        child = os.fork()
        if child == 0:
            os._exit(run(arguments(data, output, *batches)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    checkpoints = output / "round-1" / ".rec.checkpoint"
    assert checkpoints.is_dir()
    stale = output / "round-2" / ".gen.checkpoint"
    shutil.copytree(checkpoints, stale)  # of other inputs, so of no use to the phase that it lies beside
    assert run(arguments(data, output, *batches)) == 0
    assert "goes on in epoch 1, after step 3" in capfd.readouterr().err
    assert results(output) == results(whole)
    assert not stale.exists()


def test_a_finished_run_is_left_as_it_is_and_a_damaged_phase_made_again(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(finished)
    weights = finished / "round-2" / "rec" / "model.safetensors"
    log = finished / "round-2" / "gen" / "log.jsonl"
    stamp = log.stat().st_mtime_ns
    weights.write_bytes(weights.read_bytes()[:-4])
    assert run(arguments(data, finished)) == 0
    assert results(finished) == before
    assert log.stat().st_mtime_ns == stamp
    said = capsys.readouterr().err
    assert "round 2, train-gen gen: done before" in said
    assert "round 2, train-rec rec: done before" not in said


def test_a_validation_counts_for_the_models_that_it_was_of(data: Path, finished: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "run"))
    phases = plan(output, Alternation(data, str(data / "gen"), "nano", rounds=2))
    last = [phase for phase in phases if phase.command == "validate"][-1]
    moved = Phase(last.round, last.command, {**last.arguments, "trained": str(output / "round-2/rec")}, last.output)
    assert is_done(moved)
    weights = output / "round-2" / "rec" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert not is_done(moved)


def test_the_logs_of_training_and_of_the_run_agree(data: Path, tmp_path: Path) -> None:
    """Also where a few users are drawn, and where a round has another seed than the run."""
    output = tmp_path / "run"
    assert run(arguments(data, output, "--valid-users", "3", "--mode", "rec-only", "--seed", "4")) == 0
    lines = [orjson.loads(line) for line in (output / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["n_users"] for line in lines] == [3, 3]
    for line in lines:
        kept = orjson.loads((output / f"round-{line['round']}" / "rec" / "run.json").read_bytes())["kept"]
        assert (line["hr@10"], line["ndcg@10"]) == pytest.approx((kept["hr@10"], kept["ndcg@10"]), abs=1e-12)
        assert "scored" not in line


def refusal(capsys: pytest.CaptureFixture[str], command: list[str], code: int) -> str:
    capsys.readouterr()
    assert run(command) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("idgr: error:")]
    return line


def test_refuses_a_run_that_was_made_otherwise(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(finished)
    assert "was made without --rec.lr 0.5" in refusal(capsys, arguments(data, finished, "--rec.lr", "0.5"), 1)
    assert "--rounds 2, not 1" in refusal(capsys, arguments(data, finished, "--rounds", "1"), 1)
    assert "--overwrite" in refusal(capsys, arguments(data, finished, "--seed", "3"), 1)
    other = tmp_path / "data"
    other.mkdir()
    for path in data.glob("*.jsonl"):
        (other / path.name).write_bytes(path.read_bytes())
    lines = (other / "train.jsonl").read_bytes().splitlines(keepends=True)
    (other / "train.jsonl").write_bytes(b"".join(lines[1:]))
    command = ["alternate", str(other), *arguments(data, finished)[2:]]
    assert "another train than" in refusal(capsys, command, 1)
    assert results(finished) == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    assert "is not a run" in refusal(capsys, arguments(data, tmp_path / "mine", "--overwrite"), 1)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_refuses_what_cannot_be_meant(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert "--rounds 0" in refusal(capsys, arguments(data, output, "--rounds", "0"), 2)
    assert "--mode both" in refusal(capsys, arguments(data, output, "--mode", "both"), 2)
    assert "--order gen-first" in refusal(capsys, arguments(data, output, "--order", "gen-first"), 2)
    assert "--objective none" in refusal(capsys, arguments(data, output, "--objective", "none"), 2)
    line = refusal(capsys, arguments(data, output, "--rec.word-tokens"), 2)
    assert "--rec.word-tokens, but the recommender has the vocabulary of --gen" in line
    (tmp_path / "foreign").mkdir()
    save_backbone(new_backbone(TINY, train_tokenizer(["other words"], 300), seed=0), tmp_path / "foreign")
    line = refusal(capsys, arguments(data, output, "--rec", str(tmp_path / "foreign")), 1)
    assert "not that of the generator" in line
    (tmp_path / "templates.txt").write_text("no slot here\n")
    line = refusal(capsys, arguments(data, output, "--templates", str(tmp_path / "templates.txt")), 1)
    assert "templates.txt:1" in line
    assert not output.exists()


def test_the_single_commands_tell_what_is_false_too(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several processes are told their options so."""
    command = arguments(data, data / "run", "--dry-run", "--rec", "nano-causal", "--rounds", "1", "--ids.beams", "5")
    assert run(command) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("idgr train-rec"))
    assert "--no-item-slots" in line.split()
    assert "--skip-finished" not in line


def test_the_papers_rate_is_for_learning_through_the_recommender(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["alternate", str(data), "--paper", "--dry-run", "-o", str(data / "run")]
    with_gen = [*command, "--gen", str(data / "gen")]
    for more, is_told in (([], True), (["--method", "select"], False)):
        assert run([*with_gen, *more]) == 0
        assert ("--lr 1e-08" in capsys.readouterr().out) == is_told
    assert run([*command, "--method", "select", "--ids", "ids.jsonl"]) == 0


def test_nothing_that_a_run_did_not_write_is_deleted(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(finished, run_folder)
    for name in ("notes.txt", "round-1/notes.txt", "round-2/rec/notes.txt", "final/mine/x", ".old/x"):
        place = run_folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
        line = refusal(capsys, arguments(data, run_folder, "--overwrite"), 1)
        assert "which no alternate training wrote; move that elsewhere" in line
        assert place.parts[-1] in line or place.parts[-2] in line
        assert place.read_text() == "mine"
        if name == "round-2/rec/notes.txt":  # a phase whose output is not as it was is made again
            refusal(capsys, arguments(data, run_folder), 1)
            assert place.read_text() == "mine"
        shutil.rmtree(place.parent) if place.name == "x" else place.unlink()
    assert results(run_folder) == results(finished)
    line = refusal(capsys, arguments(data, run_folder, "--gen", str(run_folder / "final" / "gen")), 2)
    assert f"would take the place of {run_folder / 'final' / 'gen'}" in line


def test_overwrite_begins_anew_and_gen_first_learns_through_an_untrained_folder(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    one = ["--rounds", "1", "--rec", str(data / "gen"), "--objective", "trie"]
    assert run(arguments(data, output, *one)) == 0
    first = results(output)
    assert run(arguments(data, output, *one, "--seed", "5", "--overwrite")) == 0
    assert results(output).keys() == first.keys()
    assert results(output) != first
    assert orjson.loads((output / "round-1" / "rec" / "run.json").read_bytes())["objective"] == "trie"


def test_a_single_round_of_the_generator_alone_runs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(arguments(data, output, "--rounds", "1", "--mode", "id-only")) == 0
    assert "round 1: train-rec, train-gen, gen-ids" in capsys.readouterr().err
    lines = [orjson.loads(line) for line in (output / "metrics.jsonl").read_bytes().splitlines()]
    assert [(line["round"], line["phase"]) for line in lines] == [(1, "rec"), (1, "gen")]
    weights = "gen/model.safetensors"
    assert sha256_file(output / "final" / weights) != sha256_file(data / weights)
    command = arguments(data, output, "--rounds", "2", "--mode", "id-only")
    assert "was made with --rounds 1, not 2" in refusal(capsys, command, 1)


def test_more_rounds_go_on_from_those_that_are_there(data: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(arguments(data, output, "--rounds", "1")) == 0
    assert run(arguments(data, output)) == 0
    assert results(output) == results(finished)
