"""What `idgr audit` says of IDs by a scheme, and of numbers that follow the held-out items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.evaluation.audit.data import read_data, whole_sequences
from idgr.evaluation.audit.scheme_ids import FROM_TRAINING, ORDER, telling_pairs
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId, read_items
from idgr.formats.run_info import sha256_file
from idgr.ids.schemes.options import OF_SEQUENCES, OF_USE
from idgr.ids.schemes.sequential import sequential_ids

FROM_TEXT = "IDs are made from item text alone"
QUICK = ("shared", "sequential", "category", "title", "random")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "data"
    assert run(["prep", "demo", "--items", "400", "--users", "200", "--seed", "1", "-o", str(folder)]) == 0
    return folder


def verdicts(folder: Path, data: Path, code: int, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Verdict and evidence of the checks of `ids.jsonl` in the folder."""
    capsys.readouterr()
    assert run(["audit", str(folder), "--data", str(data), "-o", "-"]) == code
    checks = json.loads(capsys.readouterr().out)["checks"]
    named = [check for check in checks if Path(check["subject"]).name == "ids.jsonl"]
    return {check["name"]: (check["verdict"], check["evidence"]) for check in named}


def make(data: Path, scheme: str, output: Path, train: Path | None = None, sasrec: Path | None = None) -> None:
    words = ["--train", train or data / "train.jsonl"] if scheme in OF_SEQUENCES else []
    words += ["--item-vectors", sasrec] if sasrec is not None else []
    assert run(["gen-ids", *map(str, [data / "items.jsonl", "--scheme", scheme, *words, "-o", output])]) == 0


@pytest.mark.parametrize("scheme", [*QUICK, "collaborative", "semantic", "semantic-tree"])
def test_ids_by_a_scheme_pass(scheme: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(data, scheme, tmp_path / "ids.jsonl")
    found = verdicts(tmp_path, data, 0, capsys)
    verdict, evidence = found[FROM_TRAINING if scheme in OF_SEQUENCES else FROM_TEXT]
    assert verdict == "PASS"
    again = "all 400, made again from those, are equal" if scheme in QUICK else "not made again"
    assert again in evidence
    assert found.get(ORDER, ("none",))[0] == ("PASS" if scheme == "sequential" else "none")


def train_vectors(command: str, data: Path, train: Path, valid: Path | None, folder: Path) -> None:
    little = ["--width", "8", "--epochs", "1", "--epoch-instances", "8", "--valid-users", "8"]
    files = [train, "--items", data / "items.jsonl", *(["--valid", valid] if valid is not None else [])]
    assert run([command, *map(str, files), *little, "-o", str(folder)]) == 0


@pytest.mark.parametrize("scheme", OF_USE)
def test_ids_by_item_vectors(scheme: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.jsonl"
    write_jsonl(whole, ({"user_id": u, "items": row} for u, row in whole_sequences(read_data(data)).items()))
    train, valid, part = data / "train.jsonl", data / "valid.jsonl", tmp_path / "part.jsonl"
    part.write_text("".join((data / "test.jsonl").read_text().splitlines(keepends=True)[1:]))
    cases: list[tuple[str, Path, Path | None, str, str]] = [
        ("train", train, valid, "PASS", "items.jsonl and a SASRec of train.jsonl alone"),
        ("whole", whole, None, "FAIL", f"sasrec, --train was {whole}, which is not train.jsonl of"),
        ("test", train, part, "FAIL", f"sasrec, --valid was {part}, which is not valid.jsonl of"),
        ("tower", train, valid, "PASS", "items.jsonl and a two-tower of train.jsonl alone"),
    ]
    for name, trained, chosen, verdict, evidence in cases:
        folder = tmp_path / name
        folder.mkdir()
        command = "train-two-tower" if name == "tower" else "train-sasrec"
        train_vectors(command, data, trained, chosen, folder / "sasrec")
        make(data, scheme, folder / "ids.jsonl", sasrec=folder / "sasrec")
        found = verdicts(folder, data, int(verdict == "FAIL"), capsys)[FROM_TRAINING]
        assert (found[0], evidence in found[1]) == (verdict, True), found
    (folder / "sasrec").rename(tmp_path / "elsewhere")
    assert verdicts(folder, data, 0, capsys)[FROM_TRAINING][0] == "SKIP"


@pytest.mark.parametrize("scheme", QUICK)
def test_ids_that_were_exchanged_fail(
    scheme: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = tmp_path / "ids.jsonl"
    make(data, scheme, ids)
    rows = [json.loads(line) for line in ids.read_text().splitlines()]
    rows[0]["id"], rows[1]["id"] = rows[1]["id"], rows[0]["id"]
    write_jsonl(ids, rows)
    place = Path(f"{ids}.run.json")
    record = json.loads(place.read_text())
    record["outputs"] = {ids.name: sha256_file(ids)}
    place.write_text(json.dumps(record))
    found = verdicts(tmp_path, data, 1, capsys)
    verdict, evidence = found[FROM_TRAINING if scheme in OF_SEQUENCES else FROM_TEXT]
    assert (verdict, evidence.endswith("2 differ")) == ("FAIL", True)


@pytest.mark.parametrize("spelling", ["by-twos", "plain", "item_"])
def test_numbers_over_whole_sequences_fail(
    spelling: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in P5's code, whatever the file says of where they come from."""
    whole = whole_sequences(read_data(data)).values()
    keys = [item.item_id for item in read_items(data / "items.jsonl")]
    ids = sequential_ids(keys, whole, seed=0)
    if spelling != "by-twos":
        word = "" if spelling == "plain" else spelling
        ids = [f"{word}{1001 + int(text.replace(' ', ''))}" for text in ids]
    write_jsonl(tmp_path / "ids.jsonl", (ItemId(key, text).row() for key, text in zip(keys, ids, strict=True)))
    verdict, evidence = verdicts(tmp_path, data, 1, capsys)[ORDER]
    pairs = len(telling_pairs(read_data(data)))
    assert verdict == "FAIL"
    assert f"of {pairs} items that are first held out, {pairs} have a lower number" in evidence


def test_other_sequences_than_those_of_training_fail(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.jsonl"
    write_jsonl(whole, ({"user_id": u, "items": row} for u, row in whole_sequences(read_data(data)).items()))
    for scheme in OF_SEQUENCES:
        make(data, scheme, tmp_path / "ids.jsonl", whole)
        verdict, evidence = verdicts(tmp_path, data, 1, capsys)[FROM_TRAINING]
        assert verdict == "FAIL"
        assert f"{whole}, which is not train.jsonl of" in evidence


def test_random_numbers_pass_and_few_items_decide_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [item.item_id for item in read_items(data / "items.jsonl")]
    order = sorted(range(len(keys)), key=lambda number: number * 7919 % 1009)
    write_jsonl(tmp_path / "ids.jsonl", ({"item_id": keys[n], "id": str(place)} for place, n in enumerate(order)))
    assert verdicts(tmp_path, data, 0, capsys)[ORDER][0] == "PASS"
    small = tmp_path / "small"
    assert run(["prep", "demo", "--items", "20", "--users", "20", "--seed", "1", "-o", str(small / "data")]) == 0
    make(small / "data", "sequential", small / "ids.jsonl")
    assert verdicts(small, small / "data", 0, capsys)[ORDER][0] == "SKIP"


def test_telling_pairs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": key, "text": key} for key in "abcdefg"))
    write_jsonl(tmp_path / "train.jsonl", [{"user_id": "u", "items": ["a", "b"]}, {"user_id": "v", "items": ["a", "c"]},
                                           {"user_id": "w", "items": ["d", "g"]}])  # fmt: skip
    write_jsonl(
        tmp_path / "test.jsonl",
        [
            {"user_id": "u", "history": ["a", "b"], "target": "d"},
            {"user_id": "v", "history": ["a", "c"], "target": "e"},
            {"user_id": "w", "history": ["d", "g"], "target": "f"},
        ],
    )
    # d is first held out, then c is new; e is never in training, then g is; after f nothing is new.
    assert telling_pairs(read_data(tmp_path)) == [("d", "c"), ("e", "g")]


@pytest.mark.parametrize("whole", [False, True])
def test_ids_of_a_causal_generator_that_is_shown_neighbours(
    whole: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from idgr.models.backbone import CausalPreset, new_causal_backbone, save_backbone
    from idgr.models.tokenizer import train_tokenizer

    shape = CausalPreset(d_model=16, d_ff=24, num_layers=1, num_heads=2, vocab_size=1000)
    texts = [item.text for item in read_items(data / "items.jsonl")]
    (tmp_path / "gen").mkdir()
    save_backbone(new_causal_backbone(shape, train_tokenizer(texts, shape.vocab_size), seed=1), tmp_path / "gen")
    train = data / "train.jsonl"
    if whole:
        train = tmp_path / "whole.jsonl"
        write_jsonl(train, ({"user_id": u, "items": row} for u, row in whole_sequences(read_data(data)).items()))
    few = tmp_path / "few.jsonl"
    few.write_bytes((data / "items.jsonl").read_bytes())
    given = ["--model", tmp_path / "gen", "--neighbours", "2", "--train", train, "--max-text-tokens", "8"]
    given += ["--length-step", "4", "--beams", "2", "--groups", "2"]
    assert run(["gen-ids", *map(str, [few, *given, "-o", tmp_path / "ids.jsonl"])]) == 0
    verdict, evidence = verdicts(tmp_path, data, 1, capsys)[FROM_TRAINING]  # 1: such IDs are junk
    if whole:
        assert (verdict, "whole.jsonl, which is not train.jsonl of" in evidence) == ("FAIL", True)
    else:
        assert (verdict, "the first 16, made again from those alone, are equal" in evidence) == ("PASS", True)
