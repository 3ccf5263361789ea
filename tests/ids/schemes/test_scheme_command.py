"""`idgr gen-ids --scheme` at the command line, and what its IDs are to the recommender."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import read_ids, read_items
from idgr.formats.run_info import hash_input, read_run
from idgr.ids.schemes import libraries
from idgr.ids.schemes.options import OF_SEQUENCES, OF_USE, SCHEMES, TREES
from idgr.models.backbone import PRESETS, Preset
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
from idgr.options import Role
from idgr.stages import gen_ids

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=700)
# Codes that stand in several IDs are a token each; in so small a shop, a few stand in one only.
TOKENS_A_WORD = {"category": 1.4, "title": 1.6, "sequential": 1.5}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "data"
    assert run(["prep", "demo", "--items", "300", "--users", "600", "--seed", "1", "-o", str(folder)]) == 0
    keys = [item.item_id for item in read_items(folder / "items.jsonl")]
    (folder / "sasrec").mkdir()
    save_sasrec(new_sasrec(SasrecConfig(len(keys), width=4, layers=1), seed=0), keys, folder / "sasrec")
    return folder


def command(shop: Path, scheme: str, output: Path, *more: object) -> list[str]:
    train = ["--train", str(shop / "train.jsonl")] if scheme in OF_SEQUENCES else []
    small: dict[str, list[str]] = {"collaborative": ["--clusters", "4", "--leaf-size", "20"]}
    small |= {"random": ["--codebook", "16"], "semantic": ["--codebook", "16"]}
    small |= {tree: ["--codebook", "20"] for tree in TREES}
    train += ["--item-vectors", str(shop / "sasrec")] if scheme in OF_USE else []
    words = [str(shop / "items.jsonl"), "--scheme", scheme, *train, *small.get(scheme, []), *more, "-o", output]
    return ["gen-ids", *map(str, words)]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    capsys.readouterr()
    assert run(arguments) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("idgr: error: ")
    return told[-1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ids_of_a_shop(scheme: str, shop: Path, tmp_path: Path) -> None:
    from idgr.models.tokenizer import id_tokens, train_tokenizer
    from idgr.prompts.templates import load_templates, template_words

    output = tmp_path / "ids.jsonl"
    assert run(command(shop, scheme, output, "--seed", 3)) == 0
    ids = read_ids(output)
    assert [one.item_id for one in ids] == [item.item_id for item in read_items(shop / "items.jsonl")]
    assert {key for line in output.read_text().splitlines() for key in json.loads(line)} == {"item_id", "id"}
    record = read_run(output)
    assert record["seed"] == 3
    assert record["options"]["scheme"] == scheme
    assert record["options"].get("levels") == (4 if scheme in TREES else 3 if "codebook" in record["options"] else None)
    read = {"items": "items.jsonl"} | ({"train": "train.jsonl"} if scheme in OF_SEQUENCES else {})
    read |= {"item-vectors": "sasrec"} if scheme in OF_USE else {}
    assert {role: value["sha256"] for role, value in record["inputs"].items()} == {
        role: hash_input(shop / name)["sha256"] for role, name in read.items()
    }
    # As `train-rec` does with a preset: the vocabulary is learnt from the IDs.
    texts = [one.id for one in ids]
    tokenizer = train_tokenizer([*texts, *template_words(load_templates(None))], 8_000)
    rows = id_tokens(tokenizer, texts)
    n_words = sum(len(text.split()) for text in texts)
    assert n_words <= sum(map(len, rows)) <= TOKENS_A_WORD.get(scheme, 1.02) * n_words


@pytest.mark.parametrize("scheme", OF_SEQUENCES)
def test_no_held_out_item_has_a_part_in_the_ids(scheme: str, shop: Path, tmp_path: Path) -> None:
    """Other held-out items, and the file of items in the order in which whole sequences then have them."""
    before, after = tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    assert run(command(shop, scheme, before)) == 0
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "train.jsonl").write_bytes((shop / "train.jsonl").read_bytes())
    items = {item.item_id: item.row() for item in read_items(shop / "items.jsonl")}
    keys = sorted(items, reverse=True)
    whole: dict[str, None] = {}
    for line, target in zip((shop / "train.jsonl").read_text().splitlines(), keys * len(keys), strict=False):
        whole |= dict.fromkeys([*json.loads(line)["items"], target])
    write_jsonl(changed / "items.jsonl", [items[item] for item in {**whole, **items}])
    assert run(command(changed, scheme, after)) == 0
    assert {one.item_id: one.id for one in read_ids(before)} == {one.item_id: one.id for one in read_ids(after)}


def test_sequential_ids_reach_training_and_recommendations(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "nano", TINY)
    ids, rec, recs = tmp_path / "ids.jsonl", tmp_path / "rec", tmp_path / "recs.jsonl"
    assert run(command(shop, "sequential", ids)) == 0
    few = ["--epochs", "1", "--epoch-instances", "64", "--objective", "trie"]
    assert run(["train-rec", str(shop / "train.jsonl"), "--ids", str(ids), *few, "-o", str(rec)]) == 0
    (tmp_path / "few.jsonl").write_text("".join((shop / "test.jsonl").read_text().splitlines(keepends=True)[:5]))
    asked = ["recommend", str(tmp_path / "few.jsonl"), "--rec", str(rec), "--ids", str(ids), "-o", str(recs)]
    assert run(asked) == 0
    assert [len(json.loads(line)["items"]) for line in recs.read_text().splitlines()] == [10] * 5


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--scheme", "sequential"], "--scheme sequential without --train"),
        (["--scheme", "title", "--train", "t"], "--train given with --scheme title, which does not read it; it is for"),
        (["--train", "t"], "--train given with --scheme textual"),
        (["--scheme", "random", "--clusters", "3"], "for collaborative"),
        (
            ["--scheme", "random", "--empty-text", "key"],
            "for shared and clusters and category and title and semantic and semantic-tree and dual",
        ),
        (["--scheme", "shared"], "--scheme shared without --train"),
        (["--scheme", "shared", "--train", "t", "--words", "1", "--shared-words", "2"], "--shared-words 2"),
        (["--scheme", "title", "--words", "4"], "it is for shared"),
        (["--scheme", "dual"], "--scheme dual without --item-vectors"),
        (["--scheme", "semantic-tree", "--item-vectors", "s"], "it is for behavior-tree and dual"),
        (["--scheme", "semantic", "--branches", "3"], "it is for semantic-tree and behavior-tree and dual"),
        (["--scheme", "category", "--levels", "3"], "--levels given with --scheme category"),
        (["--scheme", "semantic-tree", "--branches", "300"], "--branches 300"),
        (["--scheme", "category", "--beams", "3"], "for --scheme textual"),
        (["--scheme", "category", "--model", "keyphrase"], "--model given with --scheme category"),
        (["--scheme", "collaborative", "--train", "t", "--clusters", "1"], "--clusters 1"),
        (["--scheme", "rqvae"], "rqvae"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert what in fails(capsys, ["gen-ids", "no-such-file.jsonl", *options], 2)


def test_a_record_holds_what_the_scheme_reads() -> None:
    made = gen_ids.Options(items="items.jsonl", scheme="random")
    assert made.by_role(Role.RESULT) == {"scheme": "random", "levels": 3, "codebook": 256}
    assert replace(made, output="ids.jsonl").by_role(Role.OUTPUT) == {"output": "ids.jsonl"}
    textual = gen_ids.Options(items="items.jsonl").by_role(Role.RESULT)
    assert {"scheme", "model", "beams", "penalty-start", "shard", "empty-text"} <= textual.keys()
    assert not {"levels", "words", "seed", "batch-size", "device"} & textual.keys()


def test_standard_input_can_be_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give `-` once" in fails(capsys, ["gen-ids", "-", "--scheme", "sequential", "--train", "-"], 2)


def test_data_that_a_scheme_cannot_use(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "ids.jsonl"
    assert "--category-field" in fails(capsys, command(shop, "category", output, "--category-field", "genre"), 1)
    few = tmp_path / "few.jsonl"
    write_jsonl(few, [{"item_id": "i", "text": ""}])
    train = ["--train", str(shop / "train.jsonl")]
    assert "unknown item" in fails(capsys, ["gen-ids", str(few), "--scheme", "sequential", *train], 1)
    assert f"{few}:1: item 'i' has no text" in fails(capsys, ["gen-ids", str(few), "--scheme", "title"], 1)
    assert run(["gen-ids", str(few), "--scheme", "title", "--empty-text", "key", "-o", str(output)]) == 0
    assert [one.id for one in read_ids(output)] == ["i"]
    assert run(["gen-ids", str(few), "--scheme", "random", "-o", str(output)]) == 0
    vectors = ["--item-vectors", str(shop / "sasrec")]
    told = fails(capsys, ["gen-ids", str(few), "--scheme", "behavior-tree", *vectors], 1)
    assert f"{shop / 'sasrec'}: does not know 1 of 1 items, the first of them 'i'" in told
    told = fails(capsys, command(shop, "dual", output, "--levels", 4, "--codebook", 17), 2)
    assert "--codebook 17 has 289 paths of 2 of the 4 levels for 300 items" in told


def test_a_tokenizer_that_does_not_spell_the_ids(
    generator_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, output = tmp_path / "few.jsonl", tmp_path / "ids.jsonl"
    write_jsonl(few, [{"item_id": "i", "text": "title: red soap"}])
    reads = ["gen-ids", str(few), "--scheme", "title", "--rec-tokenizer", str(generator_folder), "-o", str(output)]
    assert run(reads) == 0
    assert read_run(output)["inputs"]["rec-tokenizer"]["sha256"]
    monkeypatch.setattr("idgr.ids.spelling.can_spell", lambda tokenizer, texts: [False for _ in texts])
    assert f"{generator_folder}: the tokenizer does not read back 1 of 1 IDs, such as 'red soap'" in fails(
        capsys, reads, 1
    )


@pytest.mark.parametrize("scheme", ["collaborative", "semantic", "dual", "clusters"])
def test_a_package_that_is_not_installed(
    scheme: str, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(package: str) -> Any:
        raise libraries.PackageNotFoundError(package)

    monkeypatch.setattr(libraries, "version", nowhere)
    told = fails(capsys, command(shop, scheme, tmp_path / "ids.jsonl"), 1)
    assert f"--scheme {scheme} needs scikit-learn, which is not installed; pip install 'idgr[schemes]'" in told
    assert list(tmp_path.iterdir()) == []
