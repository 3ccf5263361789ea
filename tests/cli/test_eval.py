"""`idgr eval`: files in, files out, and every way in which the input can be wrong."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run

TRAIN = [("u1", "abc"), ("u2", "bc"), ("u3", "da")]
TRUTH = [("u1", "abc", "d"), ("u2", "bc", "a"), ("u3", "da", "e")]
RECS = [("u3", "bc"), ("u1", "ed"), ("u2", "ad")]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "items.jsonl", [{"item_id": item, "text": "x"} for item in "abcdefgh"])
    write(tmp_path / "train.jsonl", [{"user_id": user, "items": list(items)} for user, items in TRAIN])
    write(
        tmp_path / "test.jsonl",
        [{"user_id": user, "history": list(history), "target": target} for user, history, target in TRUTH],
    )
    write(tmp_path / "recs.jsonl", [{"user_id": user, "items": list(items)} for user, items in RECS])
    return tmp_path


EVAL = ["eval", "recs.jsonl", "--truth", "test.jsonl", "--train", "train.jsonl", "-k", "1", "-k", "2"]


def test_writes_metrics_and_run_information(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in data.iterdir()}
    assert run([*EVAL, "-o", "out/metrics.json", "--per-user", "out/users.jsonl", "--segments"]) == 0
    assert {path.name for path in data.iterdir()} - before == {"out"}
    written = {path.name for path in (data / "out").iterdir()}
    assert written == {"metrics.json", "metrics.json.run.json", "users.jsonl", "users.jsonl.run.json"}
    metrics = json.loads((data / "out/metrics.json").read_text())
    # u1's target stands second, u2's first, u3's nowhere; five of the eight items of items.jsonl are recommended.
    assert (metrics["n_users"], metrics["n_items"]) == (3, 8)
    assert (metrics["hr@1"], metrics["hr@2"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert metrics["coverage@2"] == pytest.approx(5 / 8)
    assert list(metrics["baselines"]) == ["popularity", "markov"]
    assert list(metrics["segments"]) == ["history_length", "target_popularity", "new_items", "transition"]
    users = [json.loads(line) for line in (data / "out/users.jsonl").read_text().splitlines()]
    assert [(row["user_id"], row["rank"]) for row in users] == [("u1", 2), ("u2", 1), ("u3", 0)]
    assert [row["transition"] for row in users] == ["new"] * 3
    record = json.loads((data / "out/metrics.json.run.json").read_text())
    assert set(record["inputs"]) == {"recs", "truth", "train", "items"}
    assert set(record["outputs"]) == {"metrics.json"}
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in ("recs.jsonl", "popularity", "markov", "hr@2", "new items"):
        assert word in shown.err


def test_is_a_filter(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stdin = io.TextIOWrapper(io.BytesIO((data / "recs.jsonl").read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    before = sorted(path.name for path in data.iterdir())
    assert run(["eval", "-", *EVAL[2:]]) == 0
    assert json.loads(capsys.readouterr().out)["hr@1"] == pytest.approx(1 / 3)
    assert sorted(path.name for path in data.iterdir()) == before


def test_a_pipe_is_written_and_not_replaced(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(data / "pipe")
    before = sorted(path.name for path in data.iterdir())
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((data / "pipe").read_bytes()))
    reader.start()
    assert run([*EVAL, "-o", "pipe"]) == 0
    reader.join(timeout=10)
    assert json.loads(read[0])["n_users"] == 3
    assert sorted(path.name for path in data.iterdir()) == before
    assert (data / "pipe").is_fifo()
    capsys.readouterr()


def test_the_catalogue_is_what_the_data_name_where_no_file_gives_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "items.jsonl").rename(data / "catalogue.jsonl")
    assert run([*EVAL, "-o", "m.json"]) == 0
    assert json.loads((data / "m.json").read_text())["n_items"] == 5
    assert run([*EVAL, "-o", "m.json", "--items", "catalogue.jsonl"]) == 0
    assert json.loads((data / "m.json").read_text())["n_items"] == 8
    capsys.readouterr()


def test_baselines_may_be_left_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "recs.jsonl", "--truth", "test.jsonl", "--no-baselines"]) == 0
    shown = capsys.readouterr()
    assert "baselines" not in json.loads(shown.out)
    assert "no list holds 5 items" in shown.err
    assert "markov" not in shown.err


def test_says_when_lists_and_baselines_treat_the_history_differently(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(data / "recs.jsonl", [{"user_id": user, "items": ["a"]} for user, _ in TRAIN])
    assert run([*EVAL, "-o", "m.json"]) == 0
    assert "2 lists hold items of the history" in capsys.readouterr().err
    assert run([*EVAL, "-o", "kept.json", "--keep-history"]) == 0
    assert "of the history" not in capsys.readouterr().err
    # Markov gives u1 d, u2 a and then d; with the history kept, u1 c and b, u2 c and a.
    rates = [json.loads((data / name).read_text())["baselines"]["markov"]["hr@1"] for name in ("m.json", "kept.json")]
    assert rates == [pytest.approx(2 / 3), 0.0]


def test_tells_how_many_targets_can_never_be_hit(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*EVAL, "-o", "m.json"]) == 0
    shown = capsys.readouterr().err
    assert "targets stand in their own histories" not in shown
    assert "short@2: the share of users whose list has fewer than 2 items" in shown
    repeated = [("u1", "abc", "a"), ("u2", "bc", "b"), ("u3", "da", "e")]
    rows = [{"user_id": user, "history": list(history), "target": target} for user, history, target in repeated]
    write(data / "test.jsonl", rows)
    assert run([*EVAL, "-o", "m.json"]) == 0
    assert "2 of 3 targets stand in their own histories, so lists that leave the history out" in capsys.readouterr().err
    assert json.loads((data / "m.json").read_text())["baselines"]["markov"]["hr@2"] == 0.0
    assert run([*EVAL, "-o", "m.json", "--keep-history"]) == 0
    assert "targets stand" not in capsys.readouterr().err


def fault(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """The one line on standard error of a run that fails and leaves nothing."""
    before = sorted(path.name for path in Path().iterdir())
    assert run([*arguments, "-o", "never.json"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("idgr: error: ")
    assert sorted(path.name for path in Path().iterdir()) == before
    return shown.err


@pytest.mark.parametrize(
    ("name", "line", "hints"),
    [
        ("recs.jsonl", {"user_id": "u9", "items": ["a"]}, ["recs.jsonl:4:", "'u9' is not in the truth"]),
        ("recs.jsonl", {"user_id": "u1", "items": ["a"]}, ["recs.jsonl:4:", "duplicate user_id 'u1'"]),
        ("recs.jsonl", {"user_id": "u9", "items": "a"}, ["recs.jsonl:4:", '"items" is not a list']),
        ("recs.jsonl", {"user_id": "u9", "items": ["a", "a"]}, ["recs.jsonl:4:", "twice"]),
        ("recs.jsonl", {"user_id": "u9", "items": ["a"], "scores": []}, ["recs.jsonl:4:", '"scores"']),
        ("test.jsonl", {"user_id": "u9", "history": ["a"]}, ["test.jsonl:4:", 'no "target"']),
        ("test.jsonl", {"user_id": "u9", "history": ["z"], "target": "a"}, ["test.jsonl:4:", "unknown item 'z'"]),
        ("test.jsonl", {"user_id": "u9", "history": ["a"], "target": "z"}, ["test.jsonl:4:", "unknown item 'z'"]),
        ("test.jsonl", {"user_id": "u1", "history": ["a"], "target": "b"}, ["test.jsonl:4:", "duplicate user_id"]),
        ("test.jsonl", {"user_id": "u9", "history": ["a"], "target": "b"}, ["recs.jsonl:", "no recommendations for 1"]),
        ("train.jsonl", {"user_id": "u9", "items": ["z"]}, ["train.jsonl:4:", "unknown item 'z'"]),
        ("train.jsonl", {"user_id": "u9"}, ["train.jsonl:4:", '"items"']),
        ("items.jsonl", {"text": "x"}, ["items.jsonl:9:", 'no "item_id"']),
    ],
)
def test_a_wrong_line_is_named(
    name: str, line: dict[str, Any], hints: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (data / name).open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    message = fault(EVAL, capsys)
    for hint in hints:
        assert hint in message


def test_a_recommended_item_outside_the_catalogue_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data / "recs.jsonl", [{"user_id": "u1", "items": ["a", "z"]}])
    message = fault(EVAL, capsys)
    assert "recs.jsonl:1: recommended item 'z' is not in the catalogue" in message


@pytest.mark.parametrize("name", ["recs.jsonl", "test.jsonl", "train.jsonl", "items.jsonl"])
def test_an_empty_file_is_refused(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / name).write_bytes(b"")
    assert f"{name}: is empty" in fault(EVAL, capsys)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["eval", "recs.jsonl", "--truth", "test.jsonl"], "--no-baselines"),
        (["eval", "recs.jsonl", "--truth", "test.jsonl", "--no-baselines", "--segments"], "--segments needs --train"),
        (["eval", "-", "--truth", "-", "--train", "train.jsonl"], "standard input"),
        ([*EVAL, "--per-user", "never.json"], "same file"),
    ],
)
def test_conflicts_are_found_before_any_file_is_read(
    arguments: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where none of the files is
    assert hint in fault(arguments, capsys, code=2)


def test_metrics_and_rows_cannot_share_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*EVAL, "--per-user", "-"]) == 2
    assert "standard output" in capsys.readouterr().err
