"""What `idgr prep` tells: what it left out and why, how ties are ordered, what it would replace; and that both forms of
the same events give the same items."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run

Write = Callable[[str, Any], Path]
Load = Callable[[Path], list[dict[str, Any]]]


def event(user: str, item: str, time: float, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": time, **more}


def meta_of(items: list[str]) -> list[dict[str, Any]]:
    return [{"item_id": item, "title": f"Thing {item}"} for item in items]


def stats(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "stats.json").read_text())
    return value


def ties_of(folder: Path, load: Load, size: int) -> list[list[str]]:
    """The groups of equal time of users whose every time has `size` events."""
    rows = ([*row["history"], row["target"]] for row in load(folder / "test.jsonl"))
    return [row[at : at + size] for row in rows for at in range(0, len(row), size)]


def sorted_events(n_users: int = 40) -> tuple[list[dict[str, Any]], list[str]]:
    """By user and item key, as MovieLens 20M to 32M; three events a minute."""
    rng = random.Random(3)
    rows = []
    for user in range(n_users):
        items = rng.sample(range(1, 200), 12)
        times = {item: 1_112_486_000 + user * 10_000 + place // 3 * 60 for place, item in enumerate(items)}
        rows += [event(f"u{user}", str(item), times[item]) for item in sorted(items)]
    return rows, [str(item) for item in range(1, 200)]


def test_each_step_that_left_something_out_is_told_and_kept(
    write: Write, prep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    year = 1_500_000_000
    rows = [event(user, item, year + n, rating=5) for user in "uv" for n, item in enumerate("abcd")]
    rows += [event("u", "a", year, rating=5), event("low", "z", year, rating=1), event("u", "b", year + 9, rating=2)]
    rows += [event("old", "a", 5, rating=5), event("u", "bare", year + 5, rating=5), event("w", "e", year, rating=5)]
    rows += [event("u", "unknown", year + 6, rating=5)]
    options = ("--min-rating", "3", "--from", "2000-01-01", "--missing-text", "drop", "--k-core", "2")
    meta = write("m.jsonl", [*meta_of(list("abcde")), {"item_id": "bare"}])
    folder = prep("jsonl", write("e.jsonl", rows), meta, *options)
    assert stats(folder)["removed"] == [
        {"why": "rated below --min-rating", "events": 2, "users": 1, "items": 1},
        {"why": "outside of --from and --to", "events": 1, "users": 1, "items": 0},
        {"why": "repeats of user, item and time", "events": 1, "users": 0, "items": 0},
        {"why": "items without text in the metadata", "events": 2, "users": 0, "items": 2},
        {"why": "k-core 2, in 1 rounds", "events": 1, "users": 1, "items": 1},
    ]
    told = capsys.readouterr().err
    for row in stats(folder)["removed"]:
        assert f"left out {row['events']} events ({row['why']})" in told
    assert (
        "2 items have no text, such as 'unknown'; 1 of them are not in the metadata at all; they are left out" in told
    )
    prep("jsonl", write("e.jsonl", rows), meta, "--missing-text", "key", "--k-core", "0")
    told = capsys.readouterr().err
    assert (
        "3 items have no text, such as 'z'; 2 of them are not in the metadata at all; their key is their text" in told
    )
    assert "k-core" not in told
    folder = prep("jsonl", write("e.jsonl", rows), meta, *options, "--max-users", "1")
    assert stats(folder)["removed"][-1]["why"] == "not of the 1 users chosen"
    assert stats(folder)["removed"][-1]["users"] == 1


def test_short_users_and_targets_in_the_history_are_told(
    write: Write, prep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [event("u", item, n) for n, item in enumerate("abca")] + [
        event("v", item, n) for n, item in enumerate("abb")
    ]
    rows += [event("w", item, n) for n, item in enumerate("bc")]
    folder = prep("jsonl", write("e.jsonl", rows), write("m.jsonl", meta_of(list("abc"))), "--k-core", "0")
    told = capsys.readouterr().err
    assert "1 of 3 users have no test target (fewer than 3 events)" in told
    assert "2 of 2 test targets stand in the user's own history" in told
    assert "valid targets stand" not in told
    assert (stats(folder)["test"]["in_history"], stats(folder)["valid"]["in_history"]) == (2, 0)
    prep("jsonl", write("e.jsonl", rows), write("m.jsonl", meta_of(list("abc"))), "--k-core", "0", "--repeats", "first")
    assert "stand in the user's own history" not in capsys.readouterr().err


def test_what_is_told_of_users_and_items_is_true_where_dates_choose(
    write: Write, prep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    days = {"u": range(8), "before": range(3), "after": range(6, 9), "gone": (-9,)}
    rows = [event(user, "xa"[day >= 0], 86_400 * day) for user, times in days.items() for day in times]
    dates = ("--from", "1970-01-01", "--split", "temporal", "--valid-from", "1970-01-03", "--test-from", "1970-01-06")
    options = (*dates, "--k-core", "0", "--missing-text", "drop")
    folder = prep("jsonl", write("e.jsonl", rows), write("m.jsonl", meta_of(["a"])), *options)
    told = capsys.readouterr().err
    assert "2 of 3 users have no test target (no event on both sides of --test-from)" in told
    assert "what is theirs from before --valid-from is for training" in told
    assert stats(folder)["train"] == {"users": 2, "interactions": 4}
    assert "have no text" not in told


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("form", ["events", "sequences"])
def test_ties_in_order_of_key_are_shuffled_with_the_seed_and_told(
    form: str,
    reverse: bool,
    write: Write,
    prep: Callable[..., Path],
    load: Load,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, keys = sorted_events()
    rows = rows[::-1] if reverse else rows
    if form == "sequences":
        users = dict.fromkeys(row["user_id"] for row in rows)
        own = {user: [row for row in rows if row["user_id"] == user] for user in users}
        rows = [
            {"user_id": user, "items": [e["item_id"] for e in own[user]], "times": [e["timestamp"] for e in own[user]]}
            for user in users
        ]
    source = (write("e.jsonl", rows), write("m.jsonl", meta_of(keys)), "--k-core", "0")
    orders = {}
    for seed in ("0", "0", "1"):
        groups = ties_of(prep("jsonl", *source, "--seed", seed), load, 3)
        ascending = sum(group == sorted(group, key=int) for group in groups)
        assert len(groups) == 160
        assert 10 < ascending < 50, "1 of 6 by chance"
        way = "descend" if reverse else "ascend"
        assert f"160 of 160 groups of equal time {way} by item key, where chance gives 27" in capsys.readouterr().err
        assert orders.setdefault(seed, groups) == groups
    assert orders["0"] != orders["1"]
    found = stats(prep("jsonl", *source))["ties"]
    assert (found["order"], found["key_order"]["descending" if reverse else "ascending"]) == ("shuffle", 160)


def test_ties_that_are_to_stay_in_order_of_key_are_told_and_fail_the_audit(
    write: Write, prep: Callable[..., Path], load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, keys = sorted_events()
    source = (write("e.jsonl", rows), write("m.jsonl", meta_of(keys)), "--k-core", "0")
    folder = prep("jsonl", *source, "--ties", "file")
    assert all(group == sorted(group, key=int) for group in ties_of(folder, load, 3))
    assert "--ties file keeps them: `idgr audit` fails that" in capsys.readouterr().err
    assert run(["audit", str(folder), "-o", "-"]) == 1
    (check,) = (c for c in json.loads(capsys.readouterr().out)["checks"] if c["verdict"] == "FAIL")
    assert check["name"] == "sequences are in order of time"
    assert "of 160 groups of equal time 160 ascend and 0 descend by item key" in check["evidence"]
    assert run(["audit", str(prep("jsonl", *source)), "-o", "-"]) == 0


def test_ties_in_no_order_of_key_stay_as_in_the_file(
    write: Write, prep: Callable[..., Path], load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    keys = [f"i{n}" for n in range(90)]
    taken = {f"u{user}": rng.sample(keys, 9) for user in range(40)}
    rows = [event(user, item, place // 3) for user, items in taken.items() for place, item in enumerate(items)]
    folder = prep("jsonl", write("e.jsonl", rows), write("m.jsonl", meta_of(keys)), "--k-core", "0")
    assert {row["user_id"]: [*row["history"], row["target"]] for row in load(folder / "test.jsonl")} == taken
    assert "ties:" not in capsys.readouterr().err


def test_two_dumps_grouped_by_item_in_one_file_are_shuffled_though_keys_are_in_no_order(
    write: Write, prep: Callable[..., Path], load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(2)
    keys = [f"k{n:03d}" for n in rng.sample(range(1000), 60)]
    order = [*keys[:35], *keys[30:]]  # five items in both
    rows = [event(f"u{user}", item, 86_400) for item in order for user in rng.sample(range(90), 12)]
    prep("jsonl", write("e.jsonl", rows), write("m.jsonl", meta_of(keys)), "--k-core", "0")
    assert (
        "the file is grouped by item, so events of equal time are put in seeded random order" in capsys.readouterr().err
    )


def test_the_same_events_give_the_same_files_as_events_and_as_sequences(
    write: Write, prep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(4)
    keys = [f"k{n}" for n in range(25)]
    own = {f"u{user}": [(rng.choice(keys), n // 2) for n in range(rng.randint(3, 14))] for user in range(60)}
    events = [event(user, item, time) for user, took in own.items() for item, time in took]
    sequences = [
        {"user_id": user, "items": [item for item, _ in took], "times": [time for _, time in took]}
        for user, took in own.items()
    ]
    assert any(a == b for took in own.values() for a, b in pairwise(took)), "exact duplicates"
    meta = write("m.jsonl", meta_of(keys))
    for k in ("0", "4"):
        contents = []
        for rows in (events, sequences):
            folder = prep("jsonl", write("e.jsonl", rows), meta, "--k-core", k)
            contents.append(
                {name: (folder / name).read_bytes() for name in ("items.jsonl", "test.jsonl", "stats.json")}
            )
        assert contents[0] == contents[1]
    capsys.readouterr()
    for rows, why in (
        (events, "k-core 5, the default for events"),
        (sequences, "k-core off, the default for sequences"),
    ):
        prep("jsonl", write("e.jsonl", rows), meta)
        assert why in capsys.readouterr().err


def test_nan_stops_nothing_where_nobody_reads_it(write: Write, prep: Callable[..., Path], load: Load) -> None:
    rows = [event("u", item, 1_500_000_000 + n, note=float("nan")) for n, item in enumerate("cab")]
    meta = [row | {"price": float("nan")} for row in meta_of(list("abc"))]
    folder = prep("jsonl", write("e.jsonl", rows), write("m.jsonl", meta), "--k-core", "0")
    assert load(folder / "items.jsonl")[0] == {"item_id": "a", "text": "title: thing a"}


def test_events_after_2100_are_told(
    write: Write, prep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [event("u", item, time) for item, time in (("c", 1_500_000_000), ("a", 32_503_680_000), ("b", 3))]
    path = write("e.jsonl", rows)
    prep("jsonl", path, write("m.jsonl", meta_of(list("abc"))), "--k-core", "0")
    assert f"1 events are dated after 2100, the first of them in {path}:2" in capsys.readouterr().err


def test_another_data_set_is_not_replaced_unasked(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write("s.jsonl", [{"user_id": "u", "items": list("cab")}])
    meta, output = write("m.jsonl", meta_of(list("abc"))), tmp_path / "data"
    command = ["prep", "jsonl", str(events), "--meta", str(meta), "-o", str(output)]
    assert run(command) == 0
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.iterdir()}

    def same() -> bool:
        return before == {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in output.iterdir()}

    capsys.readouterr()
    assert run(command) == 0
    assert "is finished, with these options and inputs; nothing to do" in capsys.readouterr().err
    assert same()
    for more, what in (
        (["--k-core", "1"], "made with --k-core None, not 1"),
        (["--seed", "7"], "made with --seed 0, not 7"),
    ):
        assert run([*command, *more]) == 1
        error = capsys.readouterr().err
        assert f"{output}: is there and was {what}; " in error
        assert "--overwrite" in error
        assert same()
    assert run(["prep", "demo", "-o", str(output)]) == 1
    assert "was made by `idgr prep jsonl`" in capsys.readouterr().err
    write("s.jsonl", [{"user_id": "u", "items": list("bca")}])
    assert run(command) == 1
    assert "made from another events than" in capsys.readouterr().err
    assert same()
    assert run([*command, "--overwrite"]) == 0
    assert not same()
    (output / "test.jsonl").write_text("changed")
    assert run(command) == 0
    assert "is not as its run.json says, and is made again" in capsys.readouterr().err
    assert "changed" not in (output / "test.jsonl").read_text()
