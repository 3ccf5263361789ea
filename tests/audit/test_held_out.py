"""`idgr audit` fails what was trained or chosen on anything held out, and got past the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.evaluation.audit.data import read_data
from idgr.evaluation.audit.held_out import held
from idgr.formats.records import Sequence
from idgr.formats.run_info import RunInfo, hash_input
from idgr.ids.quality import MIN_IDS

from .conftest import idgr, recommend, rows_of, write

TRAINED, COUNTED = "the model has read nothing held out", "baselines have read nothing held out"
CHOSEN, WEIGHT = "the checkpoint was chosen on validation", "the weight was chosen on validation"
SOUND = "IDs are words that tell of their items"

Verdicts = dict[tuple[str, str], tuple[str, str]]


def verdicts(folder: Path, capsys: pytest.CaptureFixture[str], code: int, *more: object) -> Verdicts:
    capsys.readouterr()
    assert run(["audit", str(folder), *map(str, more), "-o", "-"]) == code
    checks = json.loads(capsys.readouterr().out)["checks"]
    return {(check["name"], Path(check["subject"]).name): (check["verdict"], check["evidence"]) for check in checks}


def train_sasrec(copy: Path, train: Path, output: Path, *more: object) -> None:
    idgr(
        "train-sasrec",
        train,
        "--items",
        copy / "data" / "items.jsonl",
        "--width",
        4,
        "--epochs",
        1,
        *more,
        "-o",
        output,
    )


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "../nowhere"])
def test_names_in_records_that_no_file_has(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(copy / "part.jsonl", rows_of(copy / "data" / "train.jsonl")[:9])
    Path(f"{train}.run.json").write_text(json.dumps({"inputs": {"items": {"path": name, "sha256": "0"}}}))
    train_sasrec(copy, train, copy / "run" / "sasrec")
    record = json.loads((copy / "run" / "sasrec" / "run.json").read_text())
    record["inputs"]["valid"] = {"path": name, "sha256": "0"}
    (copy / "run" / "sasrec" / "run.json").write_text(json.dumps(record))
    told = "is not here to be looked into"
    assert told in verdicts(copy / "run", capsys, 1, "--data", copy / "data")[CHOSEN, "sasrec"][1]


def _whole(copy: Path) -> Path:
    """The raw sequences, written anew, so that no hash is known."""
    return write(copy / "own" / "mine.jsonl", [{**row, "note": 1} for row in rows_of(copy / "raw.jsonl")])


def _cut(copy: Path) -> Path:
    """The newest five events of each raw sequence."""
    rows = rows_of(copy / "raw.jsonl")
    return write(copy / "own" / "mine.jsonl", [{**row, "items": row["items"][-5:]} for row in rows])


def _one_user(copy: Path) -> Path:
    """train.jsonl, but for one user's validation item."""
    rows = rows_of(copy / "data" / "train.jsonl")
    rows[4]["items"].append(rows_of(copy / "data" / "valid.jsonl")[4]["target"])
    return write(copy / "own" / "mine.jsonl", rows)


def _other_split(copy: Path) -> Path:
    """train.jsonl of a split of the same sequences in which their validation items are no longer held out."""
    longer = [{"user_id": row["user_id"], "items": [*row["items"], "I0"]} for row in rows_of(copy / "raw.jsonl")]
    write(copy / "own" / "longer.jsonl", longer)
    words = ["--meta", copy / "meta.jsonl", "--k-core", 0, "-o", copy / "own" / "split"]
    idgr("prep", "jsonl", copy / "own" / "longer.jsonl", *words)
    return copy / "own" / "split" / "train.jsonl"


@pytest.mark.parametrize("made", [_whole, _cut, _one_user, _other_split])
def test_training_on_held_out_events_fails(
    made: Callable[[Path], Path], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_sasrec(copy, made(copy), copy / "run" / "sasrec")
    found = verdicts(copy / "run", capsys, int(made is not _other_split))
    assert (found[TRAINED, "sasrec"][0] == "PASS") == (made is _other_split), "of its own split it has seen no more"
    for more in ((), ("--data", copy / "data"))[made is _other_split :]:
        found = verdicts(copy / "run", capsys, 1, *more)[TRAINED, "sasrec"]
        assert found[0] == "FAIL"
        assert f"which is not train.jsonl of {copy}/data: it holds a held-out item of" in found[1]
        assert "of valid.jsonl" in found[1]


@pytest.mark.parametrize("lost", [False, True])
def test_a_part_of_training_passes_while_it_is_there(
    lost: bool, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write(copy / "own.jsonl", [{**row, "items": row["items"][1:]} for row in rows_of(copy / "data/train.jsonl")])
    train_sasrec(copy, part, copy / "run" / "sasrec", "--valid", copy / "data" / "valid.jsonl")
    if lost:
        part.unlink()
    verdict, told = verdicts(copy / "run", capsys, int(lost))[TRAINED, "sasrec"]
    assert verdict == ("FAIL" if lost else "PASS")
    assert ("is not here to be looked into" if lost else "a part of it, the 25 sequences") in told


def test_other_users_decide_nothing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = write(copy / "own.jsonl", [{"user_id": f"V{n}", "items": ["I1", "I2", "I3"]} for n in range(9)])
    train_sasrec(copy, strange, copy / "run" / "sasrec")
    verdict, told = verdicts(copy / "run", capsys, 0)[TRAINED, "sasrec"]
    assert (verdict, told.endswith("it holds none of its users")) == ("SKIP", True)


def test_raw_sequences_on_record_fail(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As before raw sequences were refused; a baseline's too, and what was chosen on training."""
    data = copy / "data"
    train_sasrec(copy, data / "train.jsonl", copy / "run" / "sasrec", "--valid", data / "valid.jsonl")
    recs, metrics = copy / "run" / "recs.jsonl", copy / "run" / "metrics.json"
    idgr("recommend", data / "test.jsonl", "--baseline", "markov", "--train", data / "train.jsonl", "-o", recs)
    idgr("eval", recs, "--truth", data / "test.jsonl", "--train", data / "train.jsonl", "-o", metrics)
    found = verdicts(copy / "run", capsys, 0)
    assert found[TRAINED, "sasrec"][0] == found[CHOSEN, "sasrec"][0] == "PASS"
    assert found[COUNTED, "recs.jsonl"][0] == found[COUNTED, "metrics.json"][0] == "PASS"
    for place in ("sasrec/run.json", "recs.jsonl.run.json", "metrics.json.run.json"):
        _record_input(copy / "run" / place, "train", copy / "raw.jsonl")
    _record_input(copy / "run" / "sasrec/run.json", "valid", data / "train.jsonl")
    found = verdicts(copy / "run", capsys, 1)
    for check in ((TRAINED, "sasrec"), (COUNTED, "recs.jsonl"), (COUNTED, "metrics.json")):
        assert found[check][0] == "FAIL"
        assert (
            f"--train was what {data} was prepared from ({copy}/raw.jsonl), which is not its train.jsonl"
            in found[check][1]
        )
    assert found[CHOSEN, "sasrec"][0] == "FAIL"
    assert "--valid was train.jsonl" in found[CHOSEN, "sasrec"][1]


def _record_input(place: Path, role: str, path: Path) -> None:
    record = json.loads(place.read_text())
    record["inputs"][role] = hash_input(path)
    place.write_text(json.dumps(record))


def _on_test(copy: Path, files: dict[str, Path]) -> None:
    files["train-2"] = copy / "data" / "test.jsonl"


def _chosen_on_test(copy: Path, files: dict[str, Path]) -> None:
    files["valid-2"] = copy / "data" / "test.jsonl"


def _on_lost_file(copy: Path, files: dict[str, Path]) -> None:
    files["train-2"] = copy / "own.jsonl"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (None, {TRAINED: ["SKIP", "PASS"], CHOSEN: ["SKIP", "PASS"]}),
        (_on_test, {TRAINED: ["FAIL"], CHOSEN: ["SKIP", "PASS"]}),
        (_chosen_on_test, {TRAINED: ["FAIL"], CHOSEN: ["SKIP", "FAIL"]}),
        (_on_lost_file, {TRAINED: ["SKIP", "FAIL"], CHOSEN: ["SKIP", "PASS"]}),
    ],
)
def test_each_data_set_of_a_text_ranker_is_looked_at(
    spoil: Callable[[Path, dict[str, Path]], None] | None,
    expected: dict[str, list[str]],
    copy: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first is another one and no longer there, the second that of the audit."""
    idgr("prep", "demo", "--items", 30, "--users", 40, "-o", copy / "demo")
    folder, parts = copy / "run" / "ranker", ("items", "train", "valid")
    files = {
        f"{part}-{number}": copy / data / f"{part}.jsonl"
        for number, data in enumerate(("demo", "data"), 1)
        for part in parts
    }
    write(copy / "own.jsonl", rows_of(copy / "data" / "train.jsonl")[:9])
    if spoil is not None:
        spoil(copy, files)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    RunInfo("train-text-ranker", {}, dict(files), 0).write(folder)
    shutil.rmtree(copy / "demo")
    (copy / "own.jsonl").unlink()
    assert run(["audit", str(copy / "run"), "--data", str(copy / "data"), "-o", "-"]) == int(spoil is not None)
    checks = json.loads(capsys.readouterr().out)["checks"]
    for name, verdict in expected.items():
        assert [check["verdict"] for check in checks if check["name"] == name] == verdict


def test_standard_input_decides_nothing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_sasrec(copy, copy / "data" / "train.jsonl", copy / "run" / "sasrec", "--valid", copy / "data" / "valid.jsonl")
    for role in ("train", "valid"):
        _record_input(copy / "run" / "sasrec" / "run.json", role, Path("-"))
    found = verdicts(copy / "run", capsys, 0)
    assert found[TRAINED, "sasrec"][0] == found[CHOSEN, "sasrec"][0] == "SKIP"
    assert "standard input" in found[TRAINED, "sasrec"][1]


def test_a_blend_is_chosen_on_validation(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = copy / "data", copy / "blend"
    valid, test = recommend(copy, "valid"), recommend(copy, "test")
    weight = copy / "weights" / "weight.json"
    idgr("blend", valid, valid, "--truth", data / "valid.jsonl", "-o", weight)
    idgr("blend", test, test, "--weight", weight, "-o", folder / "recs.jsonl")
    found = verdicts(folder, capsys, 0)
    assert found[WEIGHT, "recs.jsonl"][0] == "PASS"
    assert found[WEIGHT, "weight.json"][0] == "PASS", "it is followed to where it lies"
    part = write(copy / "part.jsonl", rows_of(data / "test.jsonl")[:9])
    for role, path, told in (
        ("truth", data / "test.jsonl", "--truth was test.jsonl"),
        ("truth", part, "test.jsonl's for 9 of 9 users"),
        ("first", test, "are of test.jsonl"),
    ):
        before = Path(f"{weight}.run.json").read_text()
        _record_input(Path(f"{weight}.run.json"), role, path)
        for where in (folder, weight.parent):
            found = verdicts(where, capsys, 1, "--data", data)
            assert found[WEIGHT, "weight.json"][0] == "FAIL"
            assert told in found[WEIGHT, "weight.json"][1]
        assert found.get((WEIGHT, "recs.jsonl"), ("FAIL",))[0] == "FAIL"
        Path(f"{weight}.run.json").write_text(before)
    idgr("blend", test, test, "--weight", 0.5, "-o", folder / "recs.jsonl")
    verdict, evidence = verdicts(folder, capsys, 0)[WEIGHT, "recs.jsonl"]
    assert (verdict, "the weight 0.5 was given" in evidence) == ("SKIP", True)


def test_what_went_into_a_model_is_followed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recommendations, by IDs of a scheme, by vectors of a SASRec: only the last of these has read too much."""
    data = copy / "data"
    train_sasrec(copy, _one_user(copy), copy / "elsewhere" / "sasrec")
    vectors = ["--scheme", "behavior-tree", "--item-vectors", copy / "elsewhere" / "sasrec", "--codebook", 4]
    idgr("gen-ids", data / "items.jsonl", *vectors, "-o", copy / "elsewhere" / "ids.jsonl")
    train_sasrec(copy, data / "train.jsonl", copy / "run" / "sasrec")
    assert (TRAINED, "ids.jsonl") not in verdicts(copy / "run", capsys, 0)
    recs = copy / "run" / "recs.jsonl"
    idgr("recommend", data / "test.jsonl", "--rec", copy / "run" / "sasrec", "-k", 5, "-o", recs)
    _record_input(Path(f"{recs}.run.json"), "ids", copy / "elsewhere" / "ids.jsonl")
    capsys.readouterr()
    assert run(["audit", str(copy / "run"), "-o", "-"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["subject"] for check in checks if check["verdict"] == "FAIL"] == [str(copy / "elsewhere" / "sasrec")]


def test_records_of_older_versions_are_read(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options and inputs were spelled as parameters are."""
    from idgr.evaluation.audit.provenance import Output

    for spelled in ("max-text-tokens", "max_text_tokens"):
        record = {"options": {spelled: 64}, "inputs": {spelled: {"path": "x", "sha256": "y"}}}
        output = Output(copy, record)
        assert output.option("max-text-tokens") == output.option("max_text_tokens") == 64
        assert (output.digest("max-text-tokens"), output.roles) == ("y", ["max-text-tokens"])


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (lambda n, row: row, "PASS"),
        (lambda n, row: {**row, "id": f"polymaker polymaker polymaker polymaker {n}"} if n > 10 else row, "FAIL"),
        (lambda n, row: {**row, "id": f"polymaker blorp {n}"}, "FAIL"),
        (lambda n, row: {**row, "id": f"thing thing {n}"} if n % 3 == 0 else row, "WARN"),
        (lambda n, row: {**row, "attempt": 2 if n % 3 else 1}, "WARN"),
    ],
)
def test_junk_ids(
    spoil: Callable[[int, dict[str, Any]], dict[str, Any]],
    verdict: str,
    copy: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(copy / "data")
    for n_items in (MIN_IDS, MIN_IDS - 1):
        items = [{"item_id": f"I{n}", "text": f"title: thing {n}"} for n in range(n_items)]
        idgr("gen-ids", write(copy / "items.jsonl", items), "--model", "keyphrase", "-o", copy / "ids.jsonl")
        ids, record = copy / "ids.jsonl", copy / "ids.jsonl.run.json"
        before = ids.read_bytes()
        write(ids, [spoil(n, row) for n, row in enumerate(rows_of(ids))])
        told = json.loads(record.read_text())
        told["outputs"] = {"ids.jsonl": hash_input(ids)["sha256"]}
        record.write_text(json.dumps(told))
        # Other IDs also differ from those that the rule makes again.
        code = int(verdict != "PASS" and [row["id"] for row in rows_of(ids)] != _ids_of(before))
        told = verdicts(copy, capsys, code)[SOUND, "ids.jsonl"]
        assert told[0] == ("WARN" if verdict == "FAIL" and n_items < MIN_IDS else verdict), told


def _ids_of(content: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in content.splitlines()]


def test_events_are_counted_at_their_place(copy: Path) -> None:
    data = read_data(copy / "data")
    train, valid = data.train[0][1], data.valid[0][1]
    target = str(valid.target)
    assert valid.history == train.items
    for items, expected in (
        (train.items, (1, 1, 0, 0)),
        (train.items[2:], (1, 1, 0, 0)),
        ([*train.items, target], (1, 0, 1, 1)),
        ([*train.items[-3:], target], (1, 0, 1, 1)),
        ([target, *train.items], (1, 0, 0, 1)),
        (["I99", *train.items], (1, 0, 0, 0)),
    ):
        found = held([Sequence(train.user_id, items)], data)
        assert (found.n_users, found.parts, found.in_place, found.more) == expected, items
    assert held([Sequence("nobody", train.items)], data).n_users == 0
