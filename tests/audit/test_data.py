"""What `idgr audit` says of prepared folders: of what `prep` writes, and of every way in which one can be wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run

POPULAR = "no popularity in the text"
HELD_OUT, REPEATS = "held-out items are absent from training", "held-out items are not in the user's own history"


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Twenty users with five timed events each."""
    rng = random.Random(7)
    items = [f"I{n}" for n in rng.sample(range(1000), 30)]
    events = [
        {"user_id": f"U{user}", "item_id": item, "timestamp": 1_500_000_000 + place}
        for user in range(20)
        for place, item in enumerate(rng.sample(items, 5))
    ]
    write(tmp_path / "events.jsonl", events)
    write(tmp_path / "meta.jsonl", [{"item_id": item, "title": f"the {item}"} for item in items])
    command = ["prep", "jsonl", str(tmp_path / "events.jsonl"), "--meta", str(tmp_path / "meta.jsonl"), "--k-core", "0"]
    assert run([*command, "-o", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    return tmp_path / "data"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def verdicts(folder: Path, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, tuple[str, str]]:
    assert run(["audit", str(folder), "-o", "-"]) == code
    shown = capsys.readouterr()
    checks = json.loads(shown.out)["checks"]
    for check in checks:
        assert check["verdict"] in shown.err
        assert check["evidence"], "a verdict comes with its evidence"
    return {f"{check['name']} {Path(check['subject']).name}": (check["verdict"], check["evidence"]) for check in checks}


def test_what_prep_writes_passes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdicts(data, capsys, 0)
    assert {verdict for verdict, _ in found.values()} == {"PASS"}
    assert found[f"{HELD_OUT} data"][1].startswith("for 40 targets")
    assert "0.0% have the time of the one before" in found["sequences are in order of time data"][1]


@pytest.mark.parametrize(
    "options", [[], ["--split", "temporal", "--valid-from", "2019-01-01", "--test-from", "2020-01-01"]]
)
def test_repeats_and_splits_by_date_pass(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    years = ["2017-05-01", "2018-05-01", "2019-05-01", "2020-05-01"]
    rows = [
        {"user_id": f"U{user}", "item_id": f"I{(user + (place == 2)) % 7}", "timestamp": f"{year} 10:{user:02d}:00"}
        for user in range(12)
        for place, year in enumerate(years)
    ]
    write(tmp_path / "events.jsonl", rows)
    write(tmp_path / "meta.jsonl", [{"item_id": f"I{n}", "title": "x"} for n in range(7)])
    command = ["prep", "jsonl", str(tmp_path / "events.jsonl"), "--meta", str(tmp_path / "meta.jsonl"), "--k-core", "0"]
    assert run([*command, *options, "-o", str(tmp_path / "data")]) == 0
    capsys.readouterr()
    found = verdicts(tmp_path / "data", capsys, 0)
    assert "12 of 24 are repeats" in found[f"{REPEATS} data"][1]


def test_untimed_sequences_are_not_a_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "s.jsonl", [{"user_id": "u", "items": ["b", "a", "c"]}])
    write(tmp_path / "m.jsonl", [{"item_id": item, "title": "x"} for item in "abc"])
    assert (
        run(
            ["prep", "jsonl", str(tmp_path / "s.jsonl"), "--meta", str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "d")]
        )
        == 0
    )
    capsys.readouterr()
    found = verdicts(tmp_path / "d", capsys, 0)
    assert found["sequences are in order of time d"][0] == "SKIP"
    assert found["sequences are not sorted by item key d"][0] == "SKIP"


@pytest.mark.parametrize(
    ("order", "verdict", "evidence"),
    [
        ("sorted", "FAIL", "60 of 60 groups of equal time ascend by item key"),
        ("random", "PASS", "of 60 groups of equal time"),
        ("back", "FAIL", "train.jsonl:1: user 'U0' goes back in time"),
        ("broken", "FAIL", '"times" is not a list as long as "items"'),
    ],
)
def test_times_that_foreign_data_keep_are_tested(
    order: str, verdict: str, evidence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    rows = []
    for user in range(20):
        items = [rng.sample(range(100), 3) for _ in range(3)]
        items = [sorted(group) if order == "sorted" else group for group in items]
        times = [7, 7, 7, 8, 8, 8, 9, 9, 9][: 8 if order == "broken" else 9]
        rows.append(
            {
                "user_id": f"U{user}",
                "items": [str(item) for group in items for item in group],
                "times": times[::-1] if order == "back" else times,
            }
        )
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "items.jsonl", [{"item_id": str(item), "text": "x"} for item in range(100)])
    found = verdicts(tmp_path, capsys, int(verdict == "FAIL"))
    told = found[next(name for name in found if name.startswith("sequences are in order of time"))]
    assert told[0] == verdict
    assert evidence in told[1]


Change = Callable[[list[dict[str, Any]], dict[str, list[dict[str, Any]]]], None]


def _append_target(rows: list[dict[str, Any]], other: dict[str, list[dict[str, Any]]]) -> None:
    rows[3]["items"].append(other["valid"][3]["target"])


def _repeat_user(rows: list[dict[str, Any]], _: Any) -> None:
    rows.append(rows[0])


def _other_history(rows: list[dict[str, Any]], _: Any) -> None:
    rows[2]["history"][0] = rows[1]["history"][0]


def _skip_validation(rows: list[dict[str, Any]], _: Any) -> None:
    rows[2]["history"].pop()


def _take_again(rows: list[dict[str, Any]], _: Any) -> None:
    rows[4]["target"] = rows[4]["history"][1]


def _no_text(rows: list[dict[str, Any]], _: Any) -> None:
    for row in rows:
        row["text"] = ""


def _told(text: str, fields: Any = None) -> Change:
    def change(rows: list[dict[str, Any]], _: Any) -> None:
        rows[2] |= {"text": text, "fields": fields}

    return change


@pytest.mark.parametrize(
    ("name", "change", "check", "hint"),
    [
        ("train", _append_target, HELD_OUT, "valid.jsonl:4: user 'U3': the target"),
        ("train", _repeat_user, "users stand once", "line 21: user 'U0' again"),
        ("test", _repeat_user, "users stand once", "line 21: user 'U0' again"),
        ("valid", _other_history, HELD_OUT, "valid.jsonl:3: user 'U2': the target"),
        ("test", _skip_validation, HELD_OUT, "test.jsonl:3: user 'U2': the history does not go on"),
        ("test", _take_again, REPEATS, "test.jsonl:5: user 'U4'"),
        ("items", _no_text, "every item has a text", "has none"),
        ("items", _told("title: a; details: upc 617, best sellers rank, beauty 1032"), POPULAR, "'best sellers rank'"),
        (
            "items",
            _told("title: a; details: customer reviews 4.5 out of 5 stars"),
            POPULAR,
            "customer reviews 4.5",
        ),
        ("items", _told("title: a; average_rating: 4.8"), POPULAR, "line 3: item "),
        ("items", _told("name: a; stars: 4.5; review_count: 7"), POPULAR, "'stars: 4.5'"),
        ("items", _told("title: a; date: 5 star5 star (0%)"), POPULAR, "(0%)"),
        ("items", _told("details: {'best sellers rank': {'beauty': 1032}}"), POPULAR, "best sellers rank"),
        ("items", _told("title: a, b", {"Sales Rank": ["3"]}), POPULAR, "'sales rank: 3'"),
    ],
)
def test_a_damaged_folder_fails(
    name: str, change: Change, check: str, hint: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {part: read(data / f"{part}.jsonl") for part in ("items", "train", "valid", "test")}
    change(files[name], files)
    write(data / f"{name}.jsonl", files[name])
    (data / "run.json").unlink()  # as if it came from elsewhere
    found = {key: one for key, one in verdicts(data, capsys, 1).items() if key.startswith(check)}
    failed = [evidence for verdict, evidence in found.values() if verdict == "FAIL"]
    assert any(hint in evidence for evidence in failed), found


def test_prose_about_reviews_is_no_popularity(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(data / "items.jsonl")
    rows[0]["text"] = "title: 5 star towel, 4 stars; stars: tom hanks; description: sales, customer reviews, and so"
    rows[1]["text"] = "title: x; rating: pg-13; details: date first available may 3, 2010"
    write(data / "items.jsonl", rows)
    assert verdicts(data, capsys, 1)[f"{POPULAR} items.jsonl"][0] == "PASS"


def test_changed_files_fail(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (data / "stats.json").open("a") as stream:
        stream.write("\n")
    assert verdicts(data, capsys, 1)["files are as prep wrote them data"] == ("FAIL", "stats.json was changed")


def test_sorted_sequences_fail(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Sorted before it was split: prep refuses that, so it must come from elsewhere.
    for part in ("train", "valid", "test"):
        rows = read(data / f"{part}.jsonl")
        for row, test in zip(rows, read(data / "test.jsonl"), strict=True):
            whole = sorted([*test["history"], test["target"]])
            if part == "train":
                row["items"] = whole[:3]
            else:
                n = 3 if part == "valid" else 4
                row["history"], row["target"] = whole[:n], whole[n]
        write(data / f"{part}.sorted", rows)
    for part in ("train", "valid", "test"):
        (data / f"{part}.sorted").rename(data / f"{part}.jsonl")
    found = verdicts(data, capsys, 1)
    assert found["sequences are not sorted by item key data"][0] == "FAIL"
    assert found[f"{HELD_OUT} data"][0] == "PASS"


def test_a_report_is_written_with_its_record_and_the_fault_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "stats.json").unlink()
    report = tmp_path / "audit.json"
    assert run(["audit", str(data), "-o", str(report)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"idgr: error: {data}: 1 of ")
    assert "files are as prep wrote them" in last
    assert json.loads(report.read_text())["verdict"] == "FAIL"
    assert json.loads(Path(f"{report}.run.json").read_text())["command"] == "audit"


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["audit", "-"], 2, "not standard input"),
        (["audit", "nowhere"], 1, "nowhere: there is no such folder"),
        (["audit", "."], 1, "holds nothing to audit"),
        (["audit", ".", "--data", "."], 1, "holds no items.jsonl and train.jsonl"),
    ],
)
def test_what_cannot_be_audited_is_told(
    arguments: list[str],
    code: int,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    assert hint in capsys.readouterr().err
