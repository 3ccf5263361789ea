"""`idgr recommend` with a folder of `idgr train-sasrec`: lists without IDs, and options that say nothing to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
from idgr.options import option_fields
from idgr.stages.ranker_options import Textual
from idgr.stages.recommend import Options

N = 12
HISTORIES = [[f"i{(u * 5 + step * 2) % N}" for step in range(u % 5)] for u in range(9)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "sasrec"
    folder.mkdir()
    save_sasrec(new_sasrec(SasrecConfig(N, width=8, max_history=3), seed=0), [f"i{n}" for n in range(N)], folder)
    rows = ({"user_id": f"u{u}", "history": history, "target": "i1"} for u, history in enumerate(HISTORIES))
    write_jsonl(tmp_path / "test.jsonl", rows)
    return tmp_path


def ask(place: Path, *options: str) -> int:
    files = [str(place / "test.jsonl"), "--rec", str(place / "sasrec"), "-o", str(place / "recs.jsonl")]
    return run(["recommend", *files, "--device", "cpu", *options])


def rows_of(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "recs.jsonl").read_text().splitlines()]


def test_lists_without_ids(place: Path) -> None:
    assert ask(place, "-k", "7") == 0
    rows = rows_of(place)
    assert [row["user_id"] for row in rows] == [f"u{u}" for u in range(len(HISTORIES))]
    for row, history in zip(rows, HISTORIES, strict=True):
        assert len(set(row["items"]) - set(history)) == len(row["items"]) == 7
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert all(score < 0 for score in row["scores"])
    assert ask(place, "-k", "7", "--batch-size", "1") == 0
    assert [row["items"] for row in rows_of(place)] == [row["items"] for row in rows]
    record = json.loads((place / "recs.jsonl.run.json").read_text())
    assert set(record["inputs"]) == {"histories", "rec"}


def test_history_subset_and_shard(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "allow").write_text("i0\ni3\ni4\n")
    assert ask(place, "--allow", str(place / "allow"), "--keep-history") == 0
    assert all(set(row["items"]) == {"i0", "i3", "i4"} for row in rows_of(place))
    assert "9 of 9 histories have fewer than 10 items" in capfd.readouterr().err
    assert ask(place, "--allow", str(place / "allow"), "--shard", "2/4", "--precision", "bf16") == 0
    rows = rows_of(place)
    assert [row["user_id"] for row in rows] == ["u1", "u5"]
    for row, history in zip(rows, (HISTORIES[1], HISTORIES[5]), strict=True):
        assert set(row["items"]) == {"i0", "i3", "i4"} - set(history)


@pytest.mark.parametrize(
    "options",
    [["--ids", "ids.jsonl"], ["--beams", "5"], ["--normalize", "full"], ["--search", "exact"], ["--template", "1"],
     ["--prompts", "p"], ["--trie", "t"], ["--force"], ["--gen", "g", "--items", "i"], ["--length-penalty", "1"],
     ["--separator", "eos"], ["--max-history", "3"], ["--calibration-weight", "1"]],
)  # fmt: skip
def test_options_that_say_nothing_to_it_are_refused(
    place: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(place, *options) == 2
    told = capfd.readouterr().err
    assert f"{place / 'sasrec'} is a SASRec" in told
    assert all(option in told for option in options if option.startswith("--"))
    assert not (place / "recs.jsonl").exists()


def test_these_options_are_the_textual_ones() -> None:
    names = "ids adapter beams normalize length-penalty search template gen items prompts trie force"
    names += " separator max-history calibration-weight item-head-weight compile cache cache-memory"
    assert {one.key for one in option_fields(Options) if isinstance(one.option, Textual)} == set(names.split())


def test_faults_are_told(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open(place / "test.jsonl", "a") as stream:
        stream.write('{"user_id": "x", "history": ["i99"]}\n')
    assert ask(place, "--unknown", "error") == 1
    assert "test.jsonl:10: unknown item 'i99'; train the SASRec with --items" in capfd.readouterr().err
    assert ask(place, "--train", "t") == 2
    assert "--train is for --baseline" in capfd.readouterr().err
    (place / "sasrec" / "items.json").unlink()
    assert ask(place) == 1
    assert "items.json: cannot be read" in capfd.readouterr().err
    assert not (place / "recs.jsonl").exists()


def test_weights_that_are_not_numbers_are_told(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = new_sasrec(SasrecConfig(N, width=8, max_history=3), seed=0)
    model.norm.weight.data.fill_(float("nan"))
    save_sasrec(model, [f"i{n}" for n in range(N)], place / "sasrec")
    assert ask(place) == 1
    told = "its 'norm.weight' holds values that are not finite numbers; train or fetch the model again"
    said = f"{place / 'sasrec'}: {told}"
    assert capfd.readouterr().err == f"idgr: error: {said}\n"
    model.norm.weight.data.fill_(3e38)
    model.items.weight.data.mul_(1e4)
    save_sasrec(model, [f"i{n}" for n in range(N)], place / "sasrec")
    assert ask(place) == 1
    said = f"{place / 'sasrec'}: the model's scores are not numbers; train it again, with a lower learning rate"
    assert capfd.readouterr().err == f"idgr: error: {said}\n"
    assert not (place / "recs.jsonl").exists()


def test_unknown_items_can_be_left_out(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_jsonl(place / "test.jsonl", [{"user_id": "a", "items": ["i1", "gone", "i2", "gone"]}])
    assert ask(place, "--unknown", "error") == 1
    assert "test.jsonl:1: unknown item 'gone'" in capfd.readouterr().err
    assert ask(place, "-k", "20") == 0
    (row,) = rows_of(place)
    assert set(row["items"]) == {f"i{n}" for n in range(N)} - {"i1", "i2"}
    told = capfd.readouterr().err
    assert "left 2 unknown items out of 1 of 1 histories\n" in told
    assert "-k 20 is more than the 12 items that there are to recommend\n" in told
    assert "1 of 1 histories have fewer than 20 items\n" in told
