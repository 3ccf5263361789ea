"""`idgr prep` from the command line: what it writes, what it refuses, and that a refusal leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.exchange.keys import to_key

Write = Callable[[str, Any], Path]
Load = Callable[[Path], list[dict[str, Any]]]
FILES = {"items.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl", "stats.json", "run.json"}


def event(user: str, item: str, time: int, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": time, **more}


def meta_of(items: str | list[str]) -> list[dict[str, Any]]:
    return [{"item_id": item, "title": f"Thing {item}"} for item in items]


def stats(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "stats.json").read_text())
    return value


def test_everything_on_a_small_set(write: Write, prep: Callable[..., Path], load: Load) -> None:
    # u's events out of order with a tie (d before a, as in the file) and an exact duplicate; w is no 2-core user.
    events = [
        event("u", "b", 20),
        event("v", "a", 1),
        event("u", "d", 30),
        event("u", "a", 30),
        event("u", "c", 10),
        event("v", "d", 2),
        event("u", "d", 30),
        event("v", "b", 3),
        event("v", "c", 4),
        event("w", "z", 5),
    ]
    folder = prep("jsonl", write("events.jsonl.gz", events), write("meta.jsonl.gz", meta_of("xdcbaz")), "--k-core", "2")
    assert {file.name for file in folder.iterdir()} == FILES
    assert load(folder / "items.jsonl") == [{"item_id": item, "text": f"title: thing {item}"} for item in "dcba"]
    assert load(folder / "train.jsonl") == [
        {"user_id": "u", "items": ["c", "b"]},
        {"user_id": "v", "items": ["a", "d"]},
    ]
    assert load(folder / "valid.jsonl") == [
        {"user_id": "u", "history": ["c", "b"], "target": "d"},
        {"user_id": "v", "history": ["a", "d"], "target": "b"},
    ]
    assert load(folder / "test.jsonl") == [
        {"user_id": "u", "history": ["c", "b", "d"], "target": "a"},
        {"user_id": "v", "history": ["a", "d", "b"], "target": "c"},
    ]
    assert stats(folder) == {
        "users": 2,
        "items": 4,
        "interactions": 8,
        "density": 1.0,
        "sequence_length": {"min": 4, "mean": 4.0, "median": 4.0, "max": 4},
        "mean_item_frequency": 2.0,
        "train": {"users": 2, "interactions": 4},
        "valid": {"users": 2, "unseen": 0.0, "in_history": 0},
        "test": {"users": 2, "unseen": 0.0, "in_history": 0},
        "catalogue": 4,
        "read": {"events": 10, "repeats_left_out": 1},
        "removed": [
            {"why": "repeats of user, item and time", "events": 1, "users": 0, "items": 0},
            {"why": "k-core 2, in 1 rounds", "events": 1, "users": 1, "items": 1},
        ],
        "k_core": 2,
        "timed": True,
        "ties": {
            "share": 0.125,
            "order": "file",
            "key_order": {"groups": 1, "ascending": 0, "descending": 1, "by_chance": 0.5, "p": 1.0},
        },
        "ascending_key_order": {"share": 0.0, "users": 2},
    }
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == "prep jsonl"
    assert set(record["outputs"]) == FILES - {"run.json"}
    assert record["options"]["k-core"] == 2
    assert set(record["inputs"]) == {"events", "meta"}


def test_a_split_by_date(write: Write, prep: Callable[..., Path], load: Load) -> None:
    day = 86_400
    events = [event(user, item, time * day) for user in "uv" for time, item in enumerate("abcdef")]
    events += [event("new", "a", 4 * day), event("old", "b", 0)]
    options = ("--split", "temporal", "--valid-from", "1970-01-03", "--test-from", "1970-01-05", "--k-core", "0")
    folder = prep("jsonl", write("e.jsonl", events), write("m.jsonl", meta_of("abcdef")), *options)
    assert load(folder / "train.jsonl") == [
        {"user_id": "u", "items": ["a", "b"]},
        {"user_id": "v", "items": ["a", "b"]},
        {"user_id": "old", "items": ["b"]},
    ]
    assert load(folder / "valid.jsonl") == [{"user_id": user, "history": ["a", "b"], "target": "c"} for user in "uv"]
    assert load(folder / "test.jsonl") == [
        {"user_id": user, "history": ["a", "b", "c", "d"], "target": "e"} for user in "uv"
    ]


def test_the_default_k_core_is_5_for_events_and_off_for_sequences(
    write: Write, prep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    meta = write("m.jsonl", meta_of("abc"))
    folder = prep("jsonl", write("s.jsonl", [{"user_id": "u", "items": ["c", "a", "b"]}]), meta)
    assert stats(folder)["k_core"] == 0
    events = write("e.jsonl", [event("u", item, 1) for item in "cab"])
    assert run(["prep", "jsonl", str(events), "--meta", str(meta), "-o", str(folder), "--overwrite"]) == 1
    assert "no interactions are left of 3; lower --k-core (now 5)" in capsys.readouterr().err


def test_only_first_events_or_all_of_them(write: Write, prep: Callable[..., Path], load: Load) -> None:
    events = write("e.jsonl", [event("u", item, time) for time, item in enumerate("cacbac")])
    meta = write("m.jsonl", meta_of("abc"))
    folder = prep("jsonl", events, meta, "--k-core", "0")
    assert load(folder / "test.jsonl") == [{"user_id": "u", "history": list("cacba"), "target": "c"}]
    folder = prep("jsonl", events, meta, "--k-core", "0", "--repeats", "first")
    assert load(folder / "test.jsonl") == [{"user_id": "u", "history": list("ca"), "target": "b"}]


def test_items_without_text_stop_are_dropped_or_take_their_key(
    write: Write, prep: Callable[..., Path], load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = [{"user_id": "u", "items": list("abc")}, {"user_id": "v", "items": ["c", "Dx", "b", "a", "e"]}]
    events = write("s.jsonl", sequences)
    meta = write("m.jsonl", [*meta_of("bc"), {"item_id": "e", "title": " "}, {"item_id": "unused"}, *meta_of("a")])
    assert run(["prep", "jsonl", str(events), "--meta", str(meta), "-o", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"idgr: error: {events}:2: item 'Dx' has no text in the metadata, and so have 1 others;")
    assert not (tmp_path / "none").exists()

    folder = prep("jsonl", events, meta, "--missing-text", "drop")
    assert [row["item_id"] for row in load(folder / "items.jsonl")] == ["b", "c", "a"]
    assert load(folder / "test.jsonl")[1] == {"user_id": "v", "history": ["c", "b"], "target": "a"}

    folder = prep("jsonl", events, meta, "--missing-text", "key")
    texts = {row["item_id"]: row["text"] for row in load(folder / "items.jsonl")}
    assert list(texts) == ["b", "c", "e", "a", "Dx"]
    assert (texts["e"], texts["Dx"]) == ("item: e", "item: dx")


def test_items_that_no_event_names_go_unless_they_are_to_stay(
    write: Write, prep: Callable[..., Path], load: Load
) -> None:
    events = write("s.jsonl", [{"user_id": "u", "items": list("cab")}])
    meta = write("m.jsonl", [*meta_of("zaybc"), {"item_id": "bare"}])
    assert [row["item_id"] for row in load(prep("jsonl", events, meta) / "items.jsonl")] == list("abc")
    folder = prep("jsonl", events, meta, "--keep-all-items")
    assert [row["item_id"] for row in load(folder / "items.jsonl")] == list("zaybc")
    assert (stats(folder)["items"], stats(folder)["catalogue"]) == (3, 5)


def sorted_set(n_users: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng = random.Random(0)
    keys = [f"B{n * 7919 % 10_000:05d}" for n in range(40)]
    return [{"user_id": f"u{n}", "items": sorted(rng.sample(keys, 6))} for n in range(n_users)], meta_of(keys)


def test_sequences_in_order_of_key_are_refused_with_an_explanation(
    write: Write, prep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences, metadata = sorted_set(30)
    events, meta = write("s.jsonl", sequences), write("m.jsonl", metadata)
    assert run(["prep", "jsonl", str(events), "--meta", str(meta), "-o", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"idgr: error: {events}: 100% of 30 users have their items in ascending order of item key")
    assert "--allow-sorted" in error
    assert not (tmp_path / "none").exists()
    assert stats(prep("jsonl", events, meta, "--allow-sorted"))["ascending_key_order"] == {"share": 1.0, "users": 30}


def test_a_sample_of_users_repeats_with_its_seed(write: Write, prep: Callable[..., Path], load: Load) -> None:
    rng = random.Random(1)
    keys = [f"k{n}" for n in range(50)]
    events = write("s.jsonl", [{"user_id": f"u{n}", "items": rng.sample(keys, 5)} for n in range(40)])
    meta = write("m.jsonl", meta_of(keys))
    users = []
    for seed in ("1", "1", "2"):
        folder = prep("jsonl", events, meta, "--max-users", "6", "--seed", seed)
        users.append([row["user_id"] for row in load(folder / "train.jsonl")])
        used = {item for row in load(folder / "test.jsonl") for item in [*row["history"], row["target"]]}
        assert {row["item_id"] for row in load(folder / "items.jsonl")} == used
    assert users[0] == users[1] != users[2]
    assert [len(chosen) for chosen in users] == [6, 6, 6]


def test_the_same_command_gives_the_same_bytes(write: Write, prep: Callable[..., Path]) -> None:
    events = write("e.jsonl", [event(f"u{n % 9}", f"i{n % 13}", n // 40) for n in range(300)])
    meta = write("m.jsonl", meta_of([f"i{n}" for n in range(13)]))
    contents = []
    for _ in range(2):
        folder = prep("jsonl", events, meta, "--ties", "shuffle", "--seed", "5")
        contents.append({file: (folder / file).read_bytes() for file in FILES - {"run.json"}})
    assert contents[0] == contents[1]


def test_standard_input(write: Write, prep: Callable[..., Path], load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    events = write("s.jsonl", [{"user_id": "u", "items": list("cab")}])
    with events.open("rb") as stream:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
        folder = prep("jsonl", "-", write("m.jsonl", meta_of("abc")))
    assert load(folder / "test.jsonl") == [{"user_id": "u", "history": ["c", "a"], "target": "b"}]


GOOD_EVENTS = b"".join(json.dumps(event("u", item, 1)).encode() + b"\n" for item in "cab")
GOOD_META = b"".join(json.dumps(row).encode() + b"\n" for row in meta_of("abc"))


@pytest.mark.parametrize(
    ("events", "meta", "where"),
    [
        (GOOD_EVENTS + b'{"user_id": "u"\n', GOOD_META, "events:4: not valid JSON"),
        (GOOD_EVENTS + b'{"user_id": "u", "item_id": "a"}\n', GOOD_META, 'events:4: no "timestamp"'),
        (GOOD_EVENTS + b'{"user_id": 1.5, "item_id": "a", "timestamp": 1}\n', GOOD_META, 'events:4: "user_id" is not'),
        (GOOD_EVENTS + b'{"user_id": "\xff", "item_id": "a", "timestamp": 1}\n', GOOD_META, "events:4: not valid JSON"),
        (b"", GOOD_META, "events: is empty"),
        (GOOD_EVENTS, b"\n", "meta: is empty"),
        (GOOD_EVENTS, GOOD_META + b"[]\n", "meta:4: a JSON list"),
        (GOOD_EVENTS, GOOD_META + b'{"title": "x"}\n', 'meta:4: no "item_id"'),
        (GOOD_EVENTS, GOOD_META + b'{"item_id": "a", "title": "again"}\n', "meta:4: duplicate item_id 'a'"),
        (
            GOOD_EVENTS + b'{"user_id": "u", "item_id": "z", "timestamp": 1}\n',
            GOOD_META,
            "events:4: item 'z' has no text",
        ),
    ],
)
def test_bad_input_is_one_line_with_file_and_line_and_leaves_nothing(
    write: Write, events: bytes, meta: bytes, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(write("events", events)), "--meta", str(write("meta", meta)), "--k-core", "0"]
    before = sorted(tmp_path.iterdir())
    assert run(["prep", "jsonl", *arguments, "-o", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    faults = [line for line in captured.err.splitlines() if "idgr: error" in line]
    assert len(faults) == 1
    assert faults[0].startswith(f"idgr: error: {tmp_path}/{where}")
    assert ";" in faults[0]
    assert captured.err.splitlines()[-1] == faults[0]
    assert captured.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_truncated_gzip_is_told_with_its_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b"".join(json.dumps(event(f"u{n}", f"i{n * n % 101}", n)).encode() + b"\n" for n in range(2_000))
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(gzip.compress(lines)[:-4_000])
    meta = write("m.jsonl", meta_of("abc"))
    assert run(["prep", "jsonl", str(path), "--meta", str(meta), "-o", str(tmp_path / "out")]) == 1
    place, message = capsys.readouterr().err.splitlines()[-1].removeprefix(f"idgr: error: {path}:").split(": ", 1)
    assert 1 < int(place) <= 2_000
    assert message.startswith("damaged gzip data")
    assert not (tmp_path / "out").exists()


def test_an_earlier_result_outlives_a_failure(write: Write, prep: Callable[..., Path]) -> None:
    meta = write("m.jsonl", meta_of("abc"))
    folder = prep("jsonl", write("s.jsonl", [{"user_id": "u", "items": list("cab")}]), meta)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    bad = write("bad.jsonl", [{"user_id": "u", "items": []}])
    assert run(["prep", "jsonl", str(bad), "--meta", str(meta), "-o", str(folder)]) == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_that_is_not_ours_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").touch()
    assert run(["prep", "jsonl", "missing.jsonl", "--meta", "missing.jsonl", "-o", str(tmp_path)]) == 1
    assert "is not empty and was not written by idgr" in capsys.readouterr().err
    assert run(["prep", "jsonl", "missing.jsonl", "--meta", "m", "-o", str(tmp_path / "precious" / "out")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


LATE_SPLIT = ["--split", "temporal", "--valid-from", "2020-01-01", "--test-from", "2019-01-01"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["-", "--meta", "-", "-o", "out"], "standard input (-) given for several inputs"),
        (["e", "--meta", "m", "-o", "-"], "prep writes a folder"),
        (["e", "--meta", "m", "-o", "out", "--split", "temporal"], "belong together"),
        (["e", "--meta", "m", "-o", "out", "--valid-from", "2019-01-01"], "belong together"),
        (
            [
                "e",
                "--meta",
                "m",
                "-o",
                "out",
                "--split",
                "temporal",
                "--valid-from",
                "2020-01-01",
                "--test-from",
                "2019-01-01",
            ],
            "--valid-from is not before --test-from",
        ),
        (["e", "--meta", "m", "-o", "out", "--from", "2019-01-01", "--to", "2019-01-01"], "--from is not before --to"),
        (["e", "--meta", "m", "-o", "out", "--from", "noon"], "--from 'noon' is not a date"),
        (["e", "--meta", "m", "-o", "out", "--fields", " ,"], "--fields names no key"),
        (["e", "--meta", "m", "-o", "out", "--repeats", "last"], "--repeats last; choose keep or first"),
        (["e", "--meta", "m", "-o", "out", "--k-core", "-1"], "--k-core -1; give a number of at least 0"),
        (["e", "-o", "out"], "Missing option"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_before_any_work(
    options: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["prep", "jsonl", *options]) == 2
    assert what in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_dates_need_times(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = write("s.jsonl", [{"user_id": "u", "items": list("cab")}])
    meta = write("m.jsonl", meta_of("abc"))
    assert (
        run(["prep", "jsonl", str(events), "--meta", str(meta), "-o", str(tmp_path / "o"), "--to", "2020-01-01"]) == 1
    )
    assert "have no times to choose or split by" in capsys.readouterr().err


def test_a_split_without_test_targets_is_refused(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = write("s.jsonl", [{"user_id": "u", "items": list("ca")}])
    meta = write("m.jsonl", meta_of("abc"))
    assert run(["prep", "jsonl", str(events), "--meta", str(meta), "-o", str(tmp_path / "o")]) == 1
    assert "leaves nothing for test; leave-one-out needs users with 3 events" in capsys.readouterr().err


def test_the_made_up_shop(tmp_path: Path, load: Load) -> None:
    folder = tmp_path / "demo"
    assert run(["prep", "demo", "--items", "60", "--users", "40", "--seed", "3", "-o", str(folder)]) == 0
    assert {file.name for file in folder.iterdir()} == FILES
    assert stats(folder)["users"] == 40
    assert len(load(folder / "items.jsonl")) == 60


def test_a_field_that_no_item_has_is_told_with_those_there_are(
    write: Write, prep: Callable[..., Path], load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = str(write("e.jsonl", [event("u", item, place) for place, item in enumerate("bac")]))
    meta = [{"item_id": item, "title": item} for item in "ab"] + [{"item_id": "c", "brand": "x", "title": "c"}]
    command = ["prep", "jsonl", events, "--meta", str(write("m.jsonl", meta)), "-o", str(tmp_path / "out")]
    assert run([*command, "--k-core", "0", "--fields", "title,Brand,colour"]) == 2
    shown = capsys.readouterr().err
    assert "--fields Brand, colour: no item has a key of that name; choose from item_id, title, brand" in shown
    assert not (tmp_path / "out").exists()
    folder = prep("jsonl", events, tmp_path / "m.jsonl", "--k-core", "0", "--fields", "brand,title")
    assert [row["text"] for row in load(folder / "items.jsonl")] == ["title: a", "title: b", "brand: x; title: c"]


def test_categories_with_commas_stay_whole_in_ids_purity_and_export(
    write: Write, prep: Callable[..., Path], load: Load, tmp_path: Path
) -> None:
    """Also through `prep fuse` and where `gen-ids` reads raw metadata."""
    events = [event(user, item, place) for user in "uvw" for place, item in enumerate("bacdef")]
    kinds = [["Clothing, Shoes & Jewelry", "Men"], ["Clothing, Shoes & Jewelry", "Women"], ["Home"]]
    meta = [
        {"item_id": item, "title": f"Kit; size: {item}", "categories": kinds[place % 2], "brand": "Parts Co., Inc."}
        for place, item in enumerate("abcde")
    ] + [{"item_id": "f", "title": "Pan", "categories": kinds[2], "brand": "Acme"}]
    metadata = write("meta.jsonl", meta)
    one = prep("jsonl", write("e.jsonl", events), metadata, "--k-core", "0", "--allow-sorted")
    two = one.rename(tmp_path / "two")
    assert run(["prep", "fuse", str(two), str(Path(shutil.copytree(two, tmp_path / "three"))), "-o", str(one)]) == 0
    expected = [f"clothing shoes jewelry {number}" for number in range(1, 6)] + ["home 1"]
    ids = tmp_path / "ids.jsonl"
    for items in (two / "items.jsonl", metadata):
        command = ["gen-ids", str(items), "--scheme", "category", "--category-depth", "1", "-o", str(ids)]
        assert run(command) == 0
        assert [row["id"].lower() for row in load(ids)] == expected
    titles = ["gen-ids", str(two / "items.jsonl"), "--scheme", "title", "--title-words", "3", "-o", str(tmp_path / "t")]
    assert run(titles) == 0
    assert load(tmp_path / "t")[0]["id"] == "kit size a"
    purity = ["ids", "purity", str(ids), "--items", str(two / "items.jsonl"), "--category-depth", "1"]
    assert run([*purity, "-o", str(tmp_path / "purity")]) == 0
    assert load(tmp_path / "purity")[0]["entropy_bits"] == 0.65  # of five and one
    assert run(["export", str(one), "--to", "recbole", "-o", str(tmp_path / "recbole")]) == 0
    shown = (tmp_path / "recbole" / "recbole.item").read_text().splitlines()
    row = [to_key(token) for token in shown[1].split("\t")[1].split(" ")]
    assert row == ["categories=clothing, shoes & jewelry", "categories=men", "brand=parts co., inc."]
