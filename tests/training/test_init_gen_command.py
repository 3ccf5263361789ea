"""`idgr init-gen`: the warm start of a generator, from keyphrases or given pairs."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.generator.answers import generator_inputs
from idgr.models.backbone import Backbone, load_backbone
from idgr.models.tokenizer import decode

FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def init_gen(data: Path, output: Path, *options: str, model: Path) -> int:
    return run(["init-gen", str(data / "items.jsonl"), "-o", str(output), "--model", str(model), "--held-out", "0.2",
                *options])  # fmt: skip


def log_of(output: Path) -> list[dict[str, float]]:
    return [orjson.loads(line) for line in (output / "log.jsonl").read_bytes().splitlines()]


def test_a_folder_with_exactly_these_files_and_a_falling_loss(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = data / "gen"
    assert init_gen(data, output, "--epochs", "8", "--lr", "0.01", "--batch-size", "4", model=small_folder) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "held_out_loss" in err
    assert {path.name for path in output.iterdir()} == FILES | {"log.jsonl", "run.json"}
    log = log_of(output)
    assert len(log) == 8
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert all(record["instances"] == 8 for record in log)
    assert orjson.loads((output / "run.json").read_bytes())["command"] == "init-gen"


def test_a_preset_learns_to_write_words_of_the_text(data: Path) -> None:
    names = [f"{a} {b}" for a in ("amber", "basil", "cedar", "delta") for b in ("pump", "lamp", "stove", "poncho")]
    rows = ({"item_id": str(n), "title": f"the {name}", "size": n} for n, name in enumerate(names))
    (data / "meta.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pairs = ({"item_id": n, "id": name} for n, name in enumerate(names))
    (data / "pairs.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in pairs))
    gen = data / "gen"
    given = ["--pairs", str(data / "pairs.jsonl"), "--epochs", "12", "--batch-size", "4", "--held-out", "0"]
    assert run(["init-gen", str(data / "meta.jsonl"), "-o", str(gen), *given]) == 0
    backbone = load_backbone(gen)
    assert {"▁amber", "▁poncho", "▁history"} <= set(backbone.tokenizer.get_vocab())
    prompts = torch.tensor(generator_inputs(backbone.tokenizer, ["title: the amber stove"], 64))
    with torch.inference_mode():
        written = backbone.model.generate(input_ids=prompts, do_sample=False, max_new_tokens=6)
    assert decode(backbone.tokenizer, written.tolist()) == ["amber stove"]


def test_pairs_of_text_and_id_and_of_unknown_items(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data / "pairs.jsonl").write_bytes(
        b'{"text": "title: a lamp", "id": "lamp"}\n{"item_id": "I3", "id": "basil"}\n{"item_id": "Z", "id": "gone"}\n'
    )
    options = ["--pairs", str(data / "pairs.jsonl"), "--epochs", "1", "--held-out", "0"]
    assert init_gen(data, data / "gen", *options, model=small_folder) == 0
    err = capfd.readouterr().err
    assert "left out 1 pairs" in err
    assert log_of(data / "gen")[0]["instances"] == 2
    assert "held_out_loss" not in log_of(data / "gen")[0]


def test_runs_repeat_bit_for_bit(data: Path, small_folder: Path) -> None:
    for name in ("one", "two"):
        assert init_gen(data, data / name, "--epochs", "2", model=small_folder) == 0
    for name in FILES:
        assert (data / "one" / name).read_bytes() == (data / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"item_id": "I0"}', 'no "id" text'),
        (b'{"id": "lamp"}', 'no "item_id"'),
        (b'{"text": 5, "id": "lamp"}', '"text" is not a text'),
        (b'["lamp"]', "a JSON list, not an object"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_a_wrong_pair_is_named(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str], line: bytes, message: str
) -> None:
    (data / "pairs.jsonl").write_bytes(b'{"item_id": "I0", "id": "amber"}\n' + line + b"\n")
    assert init_gen(data, data / "gen", "--pairs", str(data / "pairs.jsonl"), model=small_folder) == 1
    err = capfd.readouterr().err
    assert f"idgr: error: {data / 'pairs.jsonl'}:2: " in err
    assert message in err
    assert not (data / "gen").exists()


def test_pairs_of_another_catalogue_are_refused(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data / "pairs.jsonl").write_bytes(b'{"item_id": "Z", "id": "amber"}\n')
    assert init_gen(data, data / "gen", "--pairs", str(data / "pairs.jsonl"), model=small_folder) == 1
    assert "no pair is of an item in ITEMS" in capfd.readouterr().err


def test_texts_without_words_teach_nothing(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (data / "items.jsonl").write_bytes(b'{"item_id": "I0", "text": "title: !!!"}\n')
    assert init_gen(data, data / "gen", model=small_folder) == 1
    assert "items.jsonl: no text of an item has words; give --pairs of texts and IDs" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--held-out", "1"], "--held-out 1"),
        (["--max-text-tokens", "1"], "--max-text-tokens 1"),
        (["--lr", "0"], "--lr 0"),
        (["-o", "-"], "-o - cannot hold a model folder"),
        (["--vocab-size", "500"], "--vocab-size given with --model"),
    ],
)
def test_a_wrong_command_line(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert init_gen(data, data / "gen", *options, model=small_folder) == 2
    assert f"idgr: error: {message}" in capfd.readouterr().err


def test_texts_are_cut_to_their_tokens_with_eos(small: Backbone) -> None:
    rows = generator_inputs(small.tokenizer, ["amber basil cedar delta", ""], 3)
    assert [len(row) for row in rows] == [3, 1]
    assert all(row[-1] == small.tokenizer.eos_token_id for row in rows)


def test_without_epochs_there_is_a_floor_of_steps(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # 8 of the 10 pairs are trained on, 4 a batch: 2 steps an epoch.
    assert init_gen(data, data / "gen", "--min-steps", "13", "--batch-size", "4", model=small_folder) == 0
    assert len(log_of(data / "gen")) == 7
    assert "7 epochs" in capfd.readouterr().err
    assert orjson.loads((data / "gen" / "run.json").read_bytes())["epochs"] == 7
    assert init_gen(data, data / "five", "--min-steps", "3", "--batch-size", "4", model=small_folder) == 0
    assert len(log_of(data / "five")) == 5


def test_a_loss_above_the_ceiling_is_told(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert init_gen(data, data / "gen", "--epochs", "1", "--max-loss", "0.5", model=small_folder) == 0
    assert "above --max-loss 0.5" in capfd.readouterr().err
    assert init_gen(data, data / "fine", "--epochs", "1", "--max-loss", "50", model=small_folder) == 0
    assert "--max-loss" not in capfd.readouterr().err
