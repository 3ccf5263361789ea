"""`idgr compare`: per-user files in, tests out, and the ways in which the files can be wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl

FEW = ["--resamples", "99"]


def results(path: Path, hits: str, **more: Any) -> Path:
    """A per-user file: a digit a user, whether the target was hit."""
    rows = [
        {"user_id": f"u{n}", "target": "t", "rank": int(hit), "hr@5": int(hit), "ndcg@5": int(hit) / 2, **more}
        for n, hit in enumerate(hits)
    ]
    write_jsonl(path, rows)
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    results(Path("a.jsonl"), "0000001")
    results(Path("b.jsonl"), "1111101")
    results(Path("c.jsonl"), "0000010")
    return tmp_path


def test_holds_every_file_against_the_first(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert run(["compare", *names, "-m", "hr@5", "-m", "ndcg@5", *FEW, "-o", "out/tests.json"]) == 0
    assert {path.name for path in (files / "out").iterdir()} == {"tests.json", "tests.json.run.json"}
    found = json.loads((files / "out/tests.json").read_text())
    assert (found["reference"], found["n_users"], found["users_left_out"]) == ("a.jsonl", 7, 0)
    rows = found["comparisons"]
    assert [(row["system"], row["metric"]) for row in rows] == [
        (system, metric) for system in ("b.jsonl", "c.jsonl") for metric in ("hr@5", "ndcg@5")
    ]
    first, last = rows[0], rows[-1]
    assert (first["mean"], first["reference_mean"]) == (pytest.approx(6 / 7), pytest.approx(1 / 7))
    assert (first["difference"], first["relative"]) == (pytest.approx(5 / 7), pytest.approx(5))
    assert (first["better"], first["worse"]) == (5, 0)
    assert first["p_randomisation"] == pytest.approx(2 / 32)
    assert first["p_randomisation_corrected"] == pytest.approx(4 * 2 / 32)  # Holm, of four tests
    assert rows[1]["difference"] == pytest.approx(5 / 14)
    assert (last["better"], last["worse"], last["difference"], last["p_randomisation"]) == (1, 1, 0.0, 1.0)
    record = json.loads((files / "out/tests.json.run.json").read_text())
    assert set(record["inputs"]) == {"results-1", "results-2", "results-3"}
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in ("against a.jsonl, 7 users", "Holm, 4 tests", "b.jsonl", "+0.7143", "5/0"):
        assert word in shown.err


def test_is_a_filter_with_another_reference(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((files / "b.jsonl").read_bytes())))
    options = ["--reference", "a.jsonl", "--correction", "none", "-m", "hr@5", *FEW]
    assert run(["compare", "-", "a.jsonl", *options]) == 0
    shown = capsys.readouterr()
    (row,) = json.loads(shown.out)["comparisons"]
    assert (row["system"], row["difference"]) == ("-", pytest.approx(5 / 7))
    assert row["p_t_test_corrected"] == row["p_t_test"]
    assert "not corrected" in shown.err


def test_the_order_of_the_lines_does_not_matter(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (files / "b.jsonl").read_text().splitlines(keepends=True)
    (files / "turned.jsonl").write_text("".join(reversed(lines)))
    found = []
    for name in ("b.jsonl", "turned.jsonl"):
        assert run(["compare", "a.jsonl", name, "-m", "hr@5", *FEW]) == 0
        found.append(json.loads(capsys.readouterr().out)["comparisons"][0] | {"system": ""})
    assert found[0] == found[1]


def test_different_users_are_refused_or_left_out(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(files / "short.jsonl", "11111")
    command = ["compare", "a.jsonl", "short.jsonl", "-m", "hr@5", *FEW]
    assert run(command) == 1
    assert "short.jsonl: lacks 2 users of a.jsonl, such as 'u5'; " in capsys.readouterr().err
    assert run(["compare", "short.jsonl", "a.jsonl", "-m", "hr@5", *FEW]) == 1
    assert "short.jsonl: lacks 2 users of a.jsonl, such as 'u5'; " in capsys.readouterr().err
    assert run([*command, "--common"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["n_users"], found["users_left_out"]) == (5, 2)
    assert found["comparisons"][0]["difference"] == 1.0
    assert "2 users that not all files hold are left out" in shown.err
    write_jsonl(files / "others.jsonl", [{"user_id": "x", "hr@5": 1}])
    assert run(["compare", "a.jsonl", "others.jsonl", "-m", "hr@5", "--common"]) == 1
    assert "shares 0 users" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ({"user_id": "u0", "hr@5": 1}, "b.jsonl:8: duplicate user_id 'u0'"),
        ({"user_id": "u9", "ndcg@5": 1}, 'b.jsonl:8: no number "hr@5"; '),
        ({"user_id": "u9", "hr@5": True}, 'b.jsonl:8: no number "hr@5"; '),
        ({"user_id": "u9", "hr@5": "1"}, 'b.jsonl:8: no number "hr@5"; '),
        ({"hr@5": 1}, 'b.jsonl:8: no "user_id"'),
        ([], "b.jsonl:8: a JSON list"),
    ],
)
def test_a_wrong_line_is_named(line: Any, hint: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (files / "b.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    assert run(["compare", "a.jsonl", "b.jsonl", "-m", "hr@5", "-o", "never.json"]) == 1
    shown = capsys.readouterr()
    assert hint in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert not (files / "never.json").exists()


def test_another_truth_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(files / "other.jsonl", "1111101", target="s")
    assert run(["compare", "a.jsonl", "other.jsonl", "-m", "hr@5"]) == 1
    assert "other.jsonl: user 'u0' has the target 's', but 't' in a.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["a.jsonl"], "nothing to be compared with"),
        (["a.jsonl", "a.jsonl"], "named twice"),
        (["a.jsonl", "b.jsonl", "--reference", "c.jsonl"], "none of the files"),
    ],
)
def test_conflicts_are_found_before_any_file_is_read(
    words: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["compare", *words]) == 2
    assert hint in capsys.readouterr().err
