"""`idgr train-rec` from files to a folder: what it writes, what repeats, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.formats.records import ids_fingerprint, read_ids
from idgr.models.backbone import Backbone, load_backbone
from idgr.models.tokenizer import load_tokenizer

FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
QUICK = ["--epochs", "2", "--batch-size", "8", "--valid-beams", "10"]


def train_rec(data: Path, output: Path, *options: str, model: Path, valid: bool = True) -> int:
    given = ["--valid", str(data / "valid.jsonl")] if valid else []
    return run(["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), *given, "-o", str(output),
                "--model", str(model), *QUICK, *options])  # fmt: skip


def test_a_folder_with_exactly_these_files(
    data: Path, small: Backbone, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = data / "rec"
    assert train_rec(data, output, "--objective", "trie", "--max-history", "3", model=small_folder) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 2/2, loss " in err
    assert {path.name for path in output.iterdir()} == FILES | {
        "log.jsonl",
        "run.json",
        "seen_tokens.json",
        "ids.jsonl",
    }

    log = [orjson.loads(line) for line in (output / "log.jsonl").read_bytes().splitlines()]
    assert [set(record) for record in log] == 2 * [
        {"epoch", "step", "loss", "instances", "seconds", "instances_per_second", "hr@10", "ndcg@10"}
    ]
    record = orjson.loads((output / "run.json").read_bytes())
    assert record["objective"] == "trie"
    assert record["max_history"] == 3
    assert record["max_prompt_tokens"] == 512
    assert len(record["templates"]) == 10
    assert record["ids_fingerprint"] == ids_fingerprint(read_ids(data / "ids.jsonl"))
    assert record["kept"] in log
    assert record["command"] == "train-rec"
    assert set(record["inputs"]) == {"train", "ids", "valid", "model"}
    assert record["options"]["epochs"] == 2

    from transformers import AutoModelForSeq2SeqLM

    prompt = torch.tensor([[5, 6, 7, 1]])
    with torch.inference_mode():
        theirs = AutoModelForSeq2SeqLM.from_pretrained(output)(input_ids=prompt, labels=prompt).logits
        ours = load_backbone(output).model(input_ids=prompt, labels=prompt).logits
        before = small.model.eval()(input_ids=prompt, labels=prompt).logits
    assert torch.equal(theirs, ours)
    assert not torch.equal(ours, before)


def test_runs_repeat_bit_for_bit_and_are_replaced_if_asked(data: Path, small_folder: Path) -> None:
    outputs = [data / "one", data / "two"]
    for output in outputs:
        assert train_rec(data, output, "--seed", "3", model=small_folder) == 0
    for name in FILES:
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    assert train_rec(data, outputs[1], "--seed", "4", model=small_folder) == 1
    assert train_rec(data, outputs[1], "--seed", "4", "--overwrite", model=small_folder) == 0
    weights = "model.safetensors"
    assert (outputs[0] / weights).read_bytes() != (outputs[1] / weights).read_bytes()


def test_a_preset_shares_a_generators_tokenizer(data: Path, small: Backbone, small_folder: Path) -> None:
    output = data / "rec"
    assert train_rec(data, output, "--tokenizer", str(small_folder), model=Path("nano")) == 0
    assert load_tokenizer(str(output)).get_vocab() == small.tokenizer.get_vocab()


def test_a_preset_learns_a_vocabulary_from_ids_and_templates(data: Path) -> None:
    (data / "own.txt").write_text("zuletzt {history} dann\n", encoding="utf-8")
    output = data / "rec"
    assert train_rec(data, output, "--templates", str(data / "own.txt"), model=Path("nano")) == 0
    tokenizer = load_tokenizer(str(output))
    assert {"▁amber", "▁basil"} <= set(tokenizer.get_vocab())
    assert orjson.loads((output / "run.json").read_bytes())["templates"] == ["zuletzt {history} dann"]


def test_without_valid_the_last_epoch_is_kept_and_said(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train_rec(data, data / "rec", model=small_folder, valid=False) == 0
    err = capfd.readouterr().err
    assert "the last epoch is kept" in err
    assert "kept epoch 2 of 2" in err


@pytest.mark.parametrize(
    ("file", "line", "place", "message"),
    [
        ("train.jsonl", b'{"user_id": "X", "items": ["I0", "I99"]}', 11, "unknown item 'I99'"),
        ("train.jsonl", b'{"user_id": "U0", "items": ["I0"]}', 11, "duplicate user_id 'U0'"),
        ("train.jsonl", b'{"user_id": "X", "items": "I0"}', 11, '"items" is not a list'),
        ("train.jsonl", b"{", 11, "not valid JSON"),
        ("valid.jsonl", b'{"user_id": "X", "history": ["I0"], "target": "I99"}', 11, "unknown item 'I99'"),
        ("valid.jsonl", b'{"user_id": "X", "history": ["I0"]}', 11, 'no "target"'),
        ("ids.jsonl", b'{"item_id": "I0", "id": "other"}', 11, "duplicate item_id 'I0'"),
        ("ids.jsonl", b'{"item_id": "I10", "id": "amber basil"}', 11, "duplicate id 'amber basil'"),
        ("ids.jsonl", b'{"item_id": "I10", "id": " "}', 11, 'no "id" text'),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str], file: str, line: bytes, place: int, message: str
) -> None:
    with open(data / file, "ab") as stream:
        stream.write(line + b"\n")
    before = set(data.iterdir())
    assert train_rec(data, data / "rec", model=small_folder) == 1
    err = capfd.readouterr().err
    assert f"idgr: error: {data / file}:{place}: " in err
    assert message in err
    assert set(data.iterdir()) == before


def test_sequences_of_one_item_teach_nothing(data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (data / "train.jsonl").write_bytes(b'{"user_id": "X", "items": ["I0"]}\n')
    assert train_rec(data, data / "rec", model=small_folder) == 1
    assert "no sequence has two items" in capfd.readouterr().err


def test_ids_that_the_tokenizer_cannot_spell_are_refused(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open(data / "ids.jsonl", "ab") as stream:
        stream.write('{"item_id": "I10", "id": "x ½"}\n'.encode())
    assert train_rec(data, data / "rec", model=small_folder) == 1
    assert "the recommender's tokenizer reads the ID 'x ½' back as" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs 0"),
        (["--objective", "both"], "--objective both"),
        (["--max-history", "0"], "--max-history 0"),
        (["--vocab-size", "0"], "--vocab-size 0"),
        (["--device", "tpu9"], "--device tpu9"),
        (["--tokenizer", "gen"], "--tokenizer given with --model"),
        (["-o", "-"], "-o - cannot hold a model folder"),
        (["--valid", "-", "--ids", "-"], "standard input (-) given for several inputs"),
    ],
)
def test_a_wrong_command_line_is_told_before_work_starts(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert train_rec(data, data / "rec", *options, model=small_folder) == 2
    assert f"idgr: error: {message}" in capfd.readouterr().err
    assert not (data / "rec").exists()


def test_a_folder_that_is_not_idgrs_is_left_alone(
    data: Path, small_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data / "rec").mkdir()
    (data / "rec" / "thesis.tex").write_text("mine", encoding="utf-8")
    assert train_rec(data, data / "rec", model=small_folder) == 1
    assert "is not empty and was not written by idgr" in capfd.readouterr().err
    assert [path.name for path in (data / "rec").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ([], {"objective": "trie", "max-history": 20, "lr": 1e-3}),
        (["--paper"], {"objective": "full", "max-history": 20, "lr": 1e-3}),
        (["--paper", "--objective", "trie", "--lr", "0.01"], {"objective": "trie", "lr": 0.01}),
    ],
)
def test_the_settings_where_none_are_given(
    given: list[str], settled: dict[str, object], data: Path, small_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rec"
    assert train_rec(data, output, *given, model=small_folder, valid=False) == 0
    record = orjson.loads((output / "run.json").read_bytes())
    assert {name: record["options"][name] for name in settled} == settled
    assert record["objective"] == settled["objective"]
    assert "paper" not in record["options"], "the same training, however it is asked for, is the same stage"


def test_the_paper_s_settings_are_a_t5_s(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train-rec", str(data / "train.jsonl"), "--ids", str(data / "ids.jsonl"), "-o", str(data / "rec")]
    assert run([*command, "--paper", "--arch", "causal"]) == 2
    assert "the paper trains a T5" in capsys.readouterr().err
    assert run([*command, "--reorder", "2"]) == 2
    assert "--reorder is for --arch causal" in capsys.readouterr().err
