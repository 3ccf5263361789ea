"""What `idgr audit` says of everything that idgr makes, and of results that should not be trusted.

One small shop is taken through all stages, once by single commands, once by `alternate` and `zeroshot`; each test then
spoils one thing in a copy.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.cli.main import run
from idgr.cli.reproduce import command_line
from idgr.formats.jsonl import write_jsonl
from idgr.formats.run_info import hash_input
from idgr.models.backbone import PRESETS, Preset

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        yield
    torch.set_num_threads(threads)


def idgr(*words: object) -> None:
    assert run([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, from the data to metrics beside baselines."""
    root = tmp_path_factory.mktemp("made")
    data, gen, ids, rec = root / "data", root / "gen", root / "ids.jsonl", root / "rec"
    rng = random.Random(3)
    things = [
        f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("tent", "stove", "lamp", "chair")
    ]
    meta = [{"item_id": f"i{n}", "title": thing, "brand": "acme"} for n, thing in enumerate(things)]
    events = [{"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": 1_600_000_000 + place}
              for user in range(14) for place, item in enumerate(rng.sample(range(len(things)), 5))]  # fmt: skip
    pairs = [{"item_id": f"i{n}", "id": thing} for n, thing in enumerate(things)]
    for name, rows in (("meta", meta), ("events", events), ("pairs", pairs)):
        write_jsonl(root / f"{name}.jsonl", rows)
    idgr("prep", "jsonl", root / "events.jsonl", "--meta", root / "meta.jsonl", "--k-core", 0, "-o", data)
    learn = ["--epochs", 30, "--lr", 0.01, "--batch-size", 4, "--held-out", 0]
    idgr("init-gen", data / "items.jsonl", "--pairs", root / "pairs.jsonl", *learn, "-o", gen)
    idgr("gen-ids", data / "items.jsonl", "--model", gen, "-o", ids)
    few = ["--tokenizer", gen, "--epochs", 1, "--valid-beams", 10]
    idgr("train-rec", data / "train.jsonl", "--ids", ids, "--valid", data / "valid.jsonl", *few, "-o", rec)
    idgr("recommend", data / "test.jsonl", "--rec", rec, "--ids", ids, "--beams", 10, "-o", root / "recs.jsonl")
    scored = ["--truth", data / "test.jsonl", "--train", data / "train.jsonl"]
    idgr("eval", root / "recs.jsonl", *scored, "-o", root / "metrics.json")
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


Verdicts = dict[tuple[str, str], tuple[str, str]]


def verdicts(folder: Path, capsys: pytest.CaptureFixture[str], code: int, *more: object) -> Verdicts:
    """Verdict and evidence by the check's name and the name of what was checked."""
    capsys.readouterr()
    assert run(["audit", str(folder), *map(str, more), "-o", "-"]) == code
    checks = json.loads(capsys.readouterr().out)["checks"]
    return {(check["name"], Path(check["subject"]).name): (check["verdict"], check["evidence"]) for check in checks}


def failed(found: Verdicts) -> set[tuple[str, str]]:
    return {name for name, (verdict, _) in found.items() if verdict == "FAIL"}


def test_what_the_stages_make_passes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdicts(made, capsys, 0)
    assert {verdict for verdict, _ in found.values()} == {"PASS"}
    assert "made again from those alone, are equal" in found["IDs are made from item text alone", "ids.jsonl"][1]
    assert "--valid was valid.jsonl" in found["the checkpoint was chosen on validation", "rec"][1]
    assert "1 times" in found["the test set was scored at most once", made.name][1]
    assert "markov" in found["baselines stand beside the result", "metrics.json"][1]
    names = {name for name, _ in found}
    assert {"IDs are unique as tokens", "IDs and model belong together", "the model has read nothing held out"} <= names


@pytest.mark.parametrize("mode", ["alternate", "rec-only", "id-only"])
def test_what_alternate_makes_passes(mode: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--rounds", 2, "--rec.epochs", 1, "--valid-beams", 10, "--ids.no-repeat-ngram", 1, "--mode", mode]
    idgr("alternate", made / "data", "--gen", made / "gen", *few, "-o", tmp_path / "run")
    found = verdicts(tmp_path / "run", capsys, 0)
    best = found["the final round is the best on validation", "run"]
    assert best[0] == "PASS"
    assert "0 times" in found["the test set was scored at most once", "run"][1]
    assert found["held-out items are absent from training", "data"][0] == "PASS", "the data set is found by its path"
    together = {verdict for (name, _), (verdict, _) in found.items() if name == "IDs and model belong together"}
    assert together == ({"SKIP"} if mode == "id-only" else {"PASS"})


def test_what_zeroshot_makes_passes(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--gen", made / "gen", "--rec", made / "rec", "--beams", 10]
    idgr("zeroshot", made / "data", *models, "-o", tmp_path / "zero")
    found = verdicts(tmp_path / "zero", capsys, 0)
    assert found["IDs are made from item text alone", "ids.jsonl"][0] == "PASS"
    assert found["baselines stand beside the result", "metrics.json"][0] == "PASS"


def test_ids_by_the_keyphrase_rule_are_made_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items, ids = copy / "data" / "items.jsonl", copy / "keyphrase" / "by-rule.jsonl"
    idgr("gen-ids", items, "--model", "keyphrase", "-o", ids)
    found = verdicts(copy / "keyphrase", capsys, 0)
    assert "the first 12, made again" in found["IDs are made from item text alone", "by-rule.jsonl"][1]
    assert found["IDs are unique as tokens", "by-rule.jsonl"][0] == "SKIP"
    lines = ids.read_text().splitlines(keepends=True)
    ids.write_text("".join([lines[0].replace('"id":"', '"id":"leak '), *lines[1:]]))
    _record_again(ids)
    found = verdicts(copy / "keyphrase", capsys, 1)
    assert "1 differ" in found["IDs are made from item text alone", "by-rule.jsonl"][1]


def _record_again(path: Path) -> None:
    """Let the record tell the file's new hash, as a forger would."""
    from idgr.formats.run_info import hash_folder, sha256_file

    place = path / "run.json" if path.is_dir() else Path(f"{path}.run.json")
    record = json.loads(place.read_text())
    record["outputs"] = hash_folder(path) if path.is_dir() else {path.name: sha256_file(path)}
    place.write_text(json.dumps(record))


def _train(copy: Path, *options: object) -> None:
    few = ["--tokenizer", copy / "gen", "--epochs", 1, "--epoch-instances", 64, "--valid-beams", 10, "--overwrite"]
    idgr("train-rec", copy / "data/train.jsonl", "--ids", copy / "ids.jsonl", *few, *options, "-o", copy / "rec")


def _record_input(place: Path, role: str, path: Path) -> None:
    """Let a record tell another input, as if the command had not refused it."""
    record = json.loads(place.read_text())
    record["inputs"][role] = hash_input(path)
    place.write_text(json.dumps(record))


def _choose_on_test(copy: Path) -> None:
    _record_input(copy / "rec" / "run.json", "valid", copy / "data" / "test.jsonl")


def _choose_on_a_part_of_test(copy: Path) -> None:
    lines = (copy / "data" / "test.jsonl").read_text().splitlines(keepends=True)
    (copy / "valid.jsonl").write_text("".join(lines[1:]))
    _train(copy, "--valid", copy / "valid.jsonl")


def _train_on_test(copy: Path) -> None:
    _record_input(copy / "rec" / "run.json", "train", copy / "data" / "test.jsonl")


def _score_twice(copy: Path) -> None:
    data, recs = copy / "data", copy / "again.jsonl"
    command = ["--rec", copy / "rec", "--ids", copy / "ids.jsonl", "--beams", 10, "--template", 1]
    idgr("recommend", data / "test.jsonl", *command, "-o", recs)
    scored = ["--truth", data / "test.jsonl", "--train", data / "train.jsonl"]
    idgr("eval", recs, *scored, "-o", copy / "again.json")


def _leave_baselines_out(copy: Path) -> None:
    command = ["--truth", copy / "data" / "test.jsonl", "--no-baselines"]
    idgr("eval", copy / "recs.jsonl", *command, "-o", copy / "metrics.json")


def _exchange_ids(copy: Path) -> None:
    rows = [json.loads(line) for line in (copy / "ids.jsonl").read_text().splitlines()]
    rows[0]["id"], rows[1]["id"] = rows[1]["id"], rows[0]["id"]
    (copy / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _record_again(copy / "ids.jsonl")


def _empty_and_equal_ids(copy: Path) -> None:
    rows = [json.loads(line) for line in (copy / "ids.jsonl").read_text().splitlines()]
    rows[0]["id"], rows[1]["id"] = "", rows[2]["id"].upper()
    (copy / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _record_again(copy / "ids.jsonl")


def _give_ids_more_than_text(copy: Path) -> None:
    record = json.loads((copy / "ids.jsonl.run.json").read_text())
    record["inputs"]["train"] = record["inputs"]["items"]
    (copy / "ids.jsonl.run.json").write_text(json.dumps(record))


def _touch_weights(copy: Path) -> None:
    weights = copy / "rec" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")


CHOSEN, TOGETHER = "the checkpoint was chosen on validation", "IDs and model belong together"
RECORDED, FROM_TEXT = "files are as their stages wrote them", "IDs are made from item text alone"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_choose_on_test, {(CHOSEN, "rec"), ("the model has read nothing held out", "rec")}),
        (_choose_on_a_part_of_test, {(CHOSEN, "rec")}),
        (_train_on_test, {("the model has read nothing held out", "rec")}),
        (_score_twice, {("the test set was scored at most once", "copy")}),
        (_leave_baselines_out, {("baselines stand beside the result", "metrics.json")}),
        (_exchange_ids, {(TOGETHER, "rec"), (FROM_TEXT, "ids.jsonl")}),
        (
            _empty_and_equal_ids,
            {("no ID is empty", "ids.jsonl"), ("IDs differ by more than case", "ids.jsonl"), (FROM_TEXT, "ids.jsonl")},
        ),
        (_give_ids_more_than_text, {(FROM_TEXT, "ids.jsonl")}),
        (_touch_weights, {(RECORDED, "copy")}),
    ],
)
def test_what_should_not_be_trusted_fails(
    spoil: Callable[[Path], None],
    expected: set[tuple[str, str]],
    copy: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(copy)
    assert expected <= failed(verdicts(copy, capsys, 1))
    # Only what was spoilt, and what follows from it, fails.
    related = {RECORDED, TOGETHER, FROM_TEXT, "no ID is empty", "IDs differ by more than case"}
    assert {name for name, _ in failed(verdicts(copy, capsys, 1)) - expected} <= related


def test_rivals_are_scored_once_each(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, name = copy / "data", ("the test set was scored at most once", "copy")
    idgr("train-sasrec", data / "train.jsonl", "--items", data / "items.jsonl", "--epochs", 1, "-o", copy / "sasrec")
    for number, k in enumerate((5, 4)):
        idgr("recommend", data / "test.jsonl", "--rec", copy / "sasrec", "-k", k, "-o", copy / f"s{number}.jsonl")
        scored = ["--truth", data / "test.jsonl", "--train", data / "train.jsonl"]
        idgr("eval", copy / f"s{number}.jsonl", *scored, "-o", copy / f"s{number}.json")
        verdict, told = verdicts(copy, capsys, number)[name]
        assert verdict == ("PASS", "FAIL")[number]
        assert f"{number + 2} times" in told
        assert "for 2 rivals" in told
    assert "SASRec, seed 0 by" in told


def test_rankers_of_texts_are_rivals_by_seed_and_rows_of_users_no_metrics(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, name = copy / "data", ("the test set was scored at most once", "copy")
    asked = [data / "test.jsonl", "--items", data / "items.jsonl"]
    scored = ["--truth", data / "test.jsonl", "--train", data / "train.jsonl"]
    for seed in range(2):
        ranker, recs = copy / f"ranker{seed}", copy / f"r{seed}.jsonl"
        idgr("train-text-ranker", data, "--epochs", 1, "--seed", seed, "-o", ranker)
        idgr("recommend", *asked, "--rec", ranker, "-o", recs)
        idgr("eval", recs, *scored, "-o", copy / f"r{seed}.json", "--per-user", copy / f"users{seed}.json")
    found = verdicts(copy, capsys, 0)
    assert "3 times" in found[name][1]
    assert "for 3 rivals" in found[name][1]
    assert found["the model has read nothing held out", "ranker0"][0] == "PASS"
    assert found["the checkpoint was chosen on validation", "ranker1"][0] == "PASS"
    baselines = {subject for check, subject in found if check == "baselines stand beside the result"}
    assert baselines == {"metrics.json", "r0.json", "r1.json"}
    rows, metrics = copy / "users0.json", copy / "r0.json"
    words = command_line(json.loads(Path(f"{rows}.run.json").read_text()), [metrics, rows])
    assert {f"--per-user {rows}", f"-o {metrics}"} <= set(words)


def test_a_final_round_that_is_not_the_best_fails(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few: list[Any] = ["--rounds", 2, "--rec.epochs", 1, "--valid-beams", 10, "--mode", "rec-only"]
    idgr("alternate", made / "data", "--gen", made / "gen", *few, "-o", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["ndcg@10"] = 1 - line["ndcg@10"]
    assert len({line["ndcg@10"] for line in lines}) == 2, "the rounds differ"
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ("the final round is the best on validation", "run") in failed(verdicts(tmp_path / "run", capsys, 1))


def test_another_data_set_decides_nothing(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idgr("prep", "demo", "--items", 30, "--users", 40, "--seed", 5, "-o", tmp_path / "other")
    found = verdicts(made / "rec", capsys, 0, "--data", tmp_path / "other")
    assert found["the model has read nothing held out", "rec"][0] == "SKIP"


def test_user_ids_are_taken_at_their_word_only_where_there_are_none(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = ("user IDs are made from the shown history alone", "rec")
    assert verdicts(copy, capsys, 0)[name] == ("PASS", "its prompts hold no user IDs")
    _train(copy, "--user-ids", "history", "--gen", copy / "gen", "--items", copy / "data" / "items.jsonl")
    assert run(["audit", str(copy / "rec"), "--data", str(copy / "data"), "-o", "-"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["verdict"] for check in checks if check["name"] == name[0]] == ["SKIP"]


def test_a_sasrec_is_chosen_on_validation_and_asked_without_ids(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = copy / "data"
    shape = ["--items", data / "items.jsonl", "--width", 8, "--epochs", 1]
    (copy / "part.jsonl").write_text("".join((data / "test.jsonl").read_text().splitlines(keepends=True)[1:]))
    for name, valid in (("sasrec", data / "valid.jsonl"), ("peeked", copy / "part.jsonl")):
        idgr("train-sasrec", data / "train.jsonl", "--valid", valid, *shape, "-o", copy / name)
    idgr("recommend", data / "test.jsonl", "--rec", copy / "sasrec", "-o", copy / "sasrec.jsonl")
    found = verdicts(copy, capsys, 1)
    assert found["the checkpoint was chosen on validation", "sasrec"][0] == "PASS"
    assert found["the model has read nothing held out", "sasrec"][0] == "PASS"
    assert found["the checkpoint was chosen on validation", "peeked"][0] == "FAIL"
    assert ("IDs and model belong together", "sasrec.jsonl") not in found
