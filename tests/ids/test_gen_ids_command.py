"""`idgr gen-ids` at the command line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.cli.main import run
from idgr.formats.records import read_ids
from idgr.formats.run_info import read_run

META = [
    {"item_id": "B1", "title": "Red Nail Polish (6 Pack)", "categories": [["Beauty", "Nails"]]},
    {"item_id": "B2", "title": "Blue Hair Dryer", "price": 5.5},
    {"item_id": "B3", "title": "Blue Hair Dryer", "price": 5.5},
    {"item_id": "B4", "title": "红色指甲油"},
    {"item_id": 5, "title": "🎉"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


@pytest.fixture
def meta(tmp_path: Path) -> str:
    return write(tmp_path / "meta.jsonl", META)


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    assert run(arguments) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("idgr: error: ")
    return told[-1]


def test_raw_metadata_to_ids(meta: str, generator_folder: Path, tmp_path: Path, capsys: Any) -> None:
    output = str(tmp_path / "ids.jsonl")
    assert run(["gen-ids", meta, "--model", str(generator_folder), "-o", output]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "gen-ids: 5 items" in told.err
    assert "second attempts" in told.err
    records = read_ids(output)
    assert [record.item_id for record in records] == ["B1", "B2", "B3", "B4", "5"]
    assert {key for line in Path(output).read_bytes().splitlines() for key in orjson.loads(line)} == {
        "item_id",
        "id",
        "penalty",
        "max_tokens",
        "attempt",
    }
    info = read_run(output)
    assert info["summary"]["items"] == 5
    assert info["inputs"]["model"]["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids.jsonl", "ids.jsonl.run.json", "meta.jsonl"]


def test_items_as_prep_writes_them_and_standard_output(tmp_path: Path, generator_folder: Path, capsys: Any) -> None:
    from idgr.corpus.text import plain_text

    raw = write(tmp_path / "raw.jsonl", META)
    items = write(tmp_path / "items.jsonl", [{"item_id": row["item_id"], "text": plain_text(row)} for row in META])
    packed = tmp_path / "raw.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(raw).read_bytes()))
    outputs = []
    for path in (raw, items, str(packed)):
        assert run(["gen-ids", path, "--model", str(generator_folder), "--batch-size", "2"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2] != ""


def test_keyphrase_needs_no_model(meta: str, tmp_path: Path) -> None:
    output = tmp_path / "ids.jsonl"
    assert run(["gen-ids", meta, "--model", "keyphrase", "-o", str(output)]) == 0
    assert [orjson.loads(line) for line in output.read_bytes().splitlines()] == [
        {"item_id": "B1", "id": "red nail polish pack"},
        {"item_id": "B2", "id": "blue hair dryer 5"},
        {"item_id": "B3", "id": "blue hair dryer 5 2"},
        {"item_id": "B4", "id": "红色指甲油"},
        {"item_id": "5", "id": "item 1"},
    ]


def test_keyphrase_with_the_recommenders_tokenizer(
    meta: str, generator_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    output = str(tmp_path / "ids.jsonl")
    arguments = ["gen-ids", meta, "--model", "keyphrase", "--rec-tokenizer", str(generator_folder), "-o", output]
    assert run(arguments) == 0
    assert "tokens an ID" in capsys.readouterr().err
    assert len(read_ids(output)) == 5


def test_shards_give_the_ids_of_one_process(meta: str, generator_folder: Path, tmp_path: Path) -> None:
    model = ["--model", str(generator_folder)]
    whole, joined = tmp_path / "whole.jsonl", tmp_path / "joined.jsonl"
    assert run(["gen-ids", meta, *model, "-o", str(whole)]) == 0
    for number in (1, 2, 3):
        shard = str(tmp_path / f"cand.{number}.jsonl")
        assert run(["gen-ids", meta, *model, "--shard", f"{number}/3", "-o", shard]) == 0
    pattern = str(tmp_path / "cand.?.jsonl")
    literal = tmp_path / "[1]"  # as a pattern it would match what is called 1
    literal.mkdir()
    for number in (1, 2):
        (tmp_path / f"cand.{number}.jsonl").rename(literal / f"cand.{number}.jsonl")
    shards = [str(literal / f"cand.{number}.jsonl") for number in (1, 2)]
    by_name = ["--assign", shards[0], "--assign", shards[1], "--assign", pattern, "-o", str(tmp_path / "named.jsonl")]
    assert run(["gen-ids", meta, *model, *by_name]) == 0
    assert (tmp_path / "named.jsonl").read_bytes() == whole.read_bytes()
    for shard in shards:
        Path(shard).rename(tmp_path / Path(shard).name)
    assert run(["gen-ids", meta, *model, "--assign", pattern, "-o", str(joined), "--batch-size", "1"]) == 0
    assert joined.read_bytes() == whole.read_bytes()


def test_shards_of_other_settings_or_too_few_are_refused(
    meta: str, generator_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(generator_folder)]
    shards = [str(tmp_path / f"cand.{number}.jsonl") for number in (1, 2)]
    for number, shard in enumerate(shards, start=1):
        assert run(["gen-ids", meta, *model, "--shard", f"{number}/2", "-o", shard]) == 0
    capsys.readouterr()
    output = ["-o", str(tmp_path / "ids.jsonl")]
    both = ["--assign", shards[0], "--assign", shards[1]]
    assert "no candidates for 2 items" in fails(capsys, ["gen-ids", meta, *model, "--assign", shards[0], *output], 1)
    other = fails(capsys, ["gen-ids", meta, *model, *both, "--length-step", "8", *output], 1)
    assert f"{shards[0]}:1: made from another text" in other
    other = fails(capsys, ["gen-ids", meta, *model, *both, "--own-words", *output], 1)
    assert f"{shards[0]}:1: made from another text" in other
    twice = tmp_path / "twice.jsonl"
    twice.write_bytes(Path(shards[0]).read_bytes() * 2)
    assert "twice.jsonl:4: duplicate item_id 'B1'" in fails(
        capsys, ["gen-ids", meta, *model, "--assign", str(twice), *output], 1
    )
    assert "names no file" in fails(capsys, ["gen-ids", meta, *model, "--assign", str(tmp_path / "none*"), *output], 2)
    assert not (tmp_path / "ids.jsonl").exists()


def test_an_item_without_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "meta.jsonl", [META[0], {"item_id": "B-9", "title": ""}])
    output = tmp_path / "ids.jsonl"
    told = fails(capsys, ["gen-ids", path, "--model", "keyphrase", "-o", str(output)], 1)
    assert f"{path}:2: item 'B-9' has no text; give it some, or take --empty-text key" in told
    assert not output.exists()
    assert run(["gen-ids", path, "--model", "keyphrase", "--empty-text", "key", "-o", str(output)]) == 0
    assert [record.id for record in read_ids(output)][1] == "b 9"


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b'{"item_id": "a", "title": "x"}\n{"item_id": "b"\n', 2, "not valid JSON"),
        (b'{"item_id": "a", "title": "x"}\n{"title": "x"}\n', 2, 'no "item_id"'),
        (b'{"item_id": ["a"], "title": "x"}\n', 1, '"item_id" is not'),
        (b'{"item_id": "a", "title": "x"}\n{"item_id": "a", "title": "y"}\n', 2, "duplicate item_id 'a'"),
        (b'{"item_id": "a", "title": "\xff"}\n', 1, "not valid JSON"),
        (b"[1]\n", 1, "not an object"),
    ],
)
def test_bad_lines_are_named(
    content: bytes, line: int, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    told = fails(capsys, ["gen-ids", str(path), "--model", "keyphrase", "-o", str(tmp_path / "ids.jsonl")], 1)
    assert f"{path}:{line}: " in told
    assert what in told
    assert [found.name for found in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--shard", "0/2"], "--shard 0/2"),
        (["--shard", "3/2"], "--shard 3/2"),
        (["--shard", "x"], "--shard x"),
        (["--shard", "1/2", "--assign", "x"], "--shard and --assign"),
        (["--shard", "1/2", "--rec-tokenizer", "x"], "--rec-tokenizer"),
        (["--shard", "1/2", "--model", "keyphrase"], "no shards"),
        (["--groups", "3"], "--groups 3"),
        (["--model", "keyphrase", "--exhausted", "error"], "--exhausted given with --model keyphrase, a rule"),
        (["--model", "keyphrase", "--own-words"], "--own-words given with --model keyphrase"),
        (["--model", "keyphrase", "--neighbours", "2", "--train", "x"], "--neighbours given with --model keyphrase"),
        (["--penalty-step", "0"], "--penalty-step"),
        (["--batch-size", "0"], "--batch-size"),
        (["--empty-text", "guess"], "empty-text"),
    ],
)
def test_conflicting_options_are_found_first(options: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert what in fails(capsys, ["gen-ids", "no-such-file.jsonl", *options], 2)


def test_a_generator_that_is_not_there(meta: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = fails(capsys, ["gen-ids", meta, "-o", str(tmp_path / "ids.jsonl")], 1)
    assert "nandakishormpai/t5-small-machine-articles-tag-generation" in told
    assert "init-gen" in told
