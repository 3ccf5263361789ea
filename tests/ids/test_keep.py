"""`idgr gen-ids --keep`: old names stay, new ones fit around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import read_ids
from idgr.formats.run_info import read_run
from idgr.ids.assignment import assign
from idgr.ids.schemes.options import GROWING, OF_SEQUENCES, OF_USE, SCHEMES
from idgr.ids.schemes.random_codes import random_ids
from idgr.ids.spelling import fold

OLD = ["red nail polish", "blue nail polish", "red hair dryer", "face cream"]
NEW = ["red nail polish", "green nail polish", "Face Cream", "hand soap"]


def texts(names: list[str], first: int = 0) -> list[dict[str, Any]]:
    rows = enumerate(names, first)
    return [{"item_id": f"i{n}", "text": f"title: {name}; categories: beauty, {name.split()[-1]}"} for n, name in rows]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """items.jsonl; grown.jsonl, without one of its items and with new ones before and behind; train.jsonl."""
    old, new = texts(OLD), texts(NEW, len(OLD))
    write_jsonl(tmp_path / "items.jsonl", old)
    write_jsonl(tmp_path / "grown.jsonl", [new[0], *old[::-1][:-1], *new[1:]])
    sequences = [["i0", "i1", "i2"], ["i1", "i3"], ["i2", "i0", "i3"]]
    write_jsonl(tmp_path / "old.jsonl", [{"user_id": f"u{n}", "items": row} for n, row in enumerate(sequences)])
    later = [[item for item in row if item != "i0"] + ["i5"] for row in sequences]
    write_jsonl(tmp_path / "new.jsonl", [{"user_id": f"u{n}", "items": row} for n, row in enumerate(later)])
    return tmp_path


def gen_ids(*words: object) -> int:
    return run(["gen-ids", *map(str, words)])


def options_of(scheme: str, folder: Path, train: str) -> list[str]:
    given = [] if scheme == "textual" else ["--scheme", scheme]
    given += ["--model", "keyphrase"] if scheme == "textual" else []
    return given + (["--train", str(folder / train)] if scheme in OF_SEQUENCES else [])


@pytest.mark.parametrize("scheme", GROWING)
def test_old_names_stay_and_new_ones_differ(scheme: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, output = shop / "ids.jsonl", shop / "more.jsonl"
    assert gen_ids(shop / "items.jsonl", *options_of(scheme, shop, "old.jsonl"), "-o", kept) == 0
    command = [shop / "grown.jsonl", *options_of(scheme, shop, "new.jsonl"), "--keep", kept, "-o", output]
    assert gen_ids(*command) == 0
    told = capsys.readouterr().err
    assert f"3 items keep their IDs, 4 are new; 1 of {kept} dropped" in told
    old, grown = read_ids(kept), read_ids(output)
    rows = [json.loads(line) for line in (shop / "grown.jsonl").read_text().splitlines()]
    assert [one.item_id for one in grown] == [row["item_id"] for row in rows]
    of = {one.item_id: one for one in grown}
    assert [of[one.item_id] for one in old if one.item_id != "i0"] == old[1:]
    # The name of the item that is gone is nobody's.
    assert len({fold(one.id) for one in [*grown, old[0]]}) == len(grown) + 1
    assert read_run(output)["kept"] == {"items": 3, "new": 4, "gone": 1}
    assert set(read_run(output)["inputs"]) >= {"items", "keep"}


def test_exact_names(shop: Path) -> None:
    wanted = {
        "title": ["red nail polish 2", "green nail polish", "Face Cream 2", "hand soap"],
        "category": ["beauty polish 3", "beauty polish 4", "beauty Cream 2", "beauty soap 1"],
    }
    for scheme in wanted:
        kept, output = shop / f"{scheme}.jsonl", shop / f"{scheme}-more.jsonl"
        assert gen_ids(shop / "items.jsonl", *options_of(scheme, shop, ""), "-o", kept) == 0
        assert gen_ids(shop / "grown.jsonl", *options_of(scheme, shop, ""), "--keep", kept, "-o", output) == 0
        names = {one.item_id: one.id for one in read_ids(output)}
        assert [names[f"i{n}"] for n in range(4, 8)] == wanted[scheme]


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in GROWING])
def test_schemes_of_all_items_at_once_are_refused(scheme: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ["--item-vectors", shop] if scheme in OF_USE else []
    words = [shop / "grown.jsonl", *options_of(scheme, shop, "new.jsonl"), *extra, "--keep", shop / "items.jsonl"]
    assert gen_ids(*words) == 2
    assert f"--keep with --scheme {scheme}, whose IDs depend on all items at once" in capsys.readouterr().err


def test_a_generator_s_names_are_those_of_algorithm_1(shop: Path, generator_folder: Path) -> None:
    """Whatever the batch, and as if the kept items had chosen first: what is kept is what a longer catalogue gives."""
    whole = [*texts(OLD), *texts(NEW, len(OLD)), *texts(OLD, 8)]
    write_jsonl(shop / "whole.jsonl", whole)
    model = ["--model", generator_folder, "--device", "cpu"]
    assert gen_ids(shop / "items.jsonl", *model, "-o", shop / "ids.jsonl") == 0
    assert gen_ids(shop / "whole.jsonl", *model, "-o", shop / "at-once.jsonl") == 0
    made = []
    for batch in (1, 3, 32):
        output = shop / f"{batch}.jsonl"
        words = [shop / "whole.jsonl", *model, "--keep", shop / "ids.jsonl", "--batch-size", batch, "-o", output]
        assert gen_ids(*words) == 0
        made.append(output.read_bytes())
    assert made[0] == made[1] == made[2] == (shop / "at-once.jsonl").read_bytes()


def test_shards_of_the_new_items_suffice(shop: Path, generator_folder: Path) -> None:
    model = ["--model", generator_folder, "--device", "cpu"]
    assert gen_ids(shop / "items.jsonl", *model, "-o", shop / "ids.jsonl") == 0
    write_jsonl(shop / "added.jsonl", texts(NEW, len(OLD)))
    assert gen_ids(shop / "added.jsonl", *model, "--shard", "1/1", "-o", shop / "cand") == 0
    keep = ["--keep", shop / "ids.jsonl"]
    assert gen_ids(shop / "grown.jsonl", *model, *keep, "-o", shop / "one.jsonl") == 0
    assert gen_ids(shop / "grown.jsonl", *model, *keep, "--assign", shop / "cand", "-o", shop / "two.jsonl") == 0
    assert (shop / "one.jsonl").read_bytes() == (shop / "two.jsonl").read_bytes()


def test_nothing_new_asks_no_generator(shop: Path, generator_folder: Path) -> None:
    rows = [{"item_id": f"i{n}", "id": name, "attempt": 2} for n, name in enumerate(OLD)]
    write_jsonl(shop / "ids.jsonl", rows)
    words = [shop / "items.jsonl", "--model", generator_folder, "--keep", shop / "ids.jsonl", "-o", shop / "same.jsonl"]
    assert gen_ids(*words) == 0
    assert (shop / "same.jsonl").read_bytes() == (shop / "ids.jsonl").read_bytes()
    assert read_run(shop / "same.jsonl")["summary"]["searches"] == 0


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ([("i0", "a"), ("i0", "b")], 2, "duplicate item_id 'i0'"),
        ([("i0", "Red soap"), ("i1", "b"), ("i2", "red  Soap")], 3, "the ID 'red Soap' is also that of line 1"),
        ([("i0", " ")], 1, 'no "id" text'),
        ([("i0", "soap"), ("i1", "☃ soap </s>")], 2, "does not read back the ID '☃ soap </s>'"),
    ],
)
def test_a_wrong_line_is_named(
    rows: list[tuple[str, str]],
    line: int,
    message: str,
    shop: Path,
    generator_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_jsonl(shop / "ids.jsonl", [{"item_id": key, "id": name} for key, name in rows])
    output = shop / "out.jsonl"
    words = [shop / "items.jsonl", "--model", generator_folder, "--keep", shop / "ids.jsonl", "-o", output]
    assert gen_ids(*words) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"idgr: error: {shop / 'ids.jsonl'}:{line}: ")
    assert message in told
    assert not output.exists()


def test_keep_is_for_the_assignment(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gen_ids(shop / "items.jsonl", "--keep", shop / "items.jsonl", "--shard", "1/2") == 2
    assert "--keep plays no part in --shard; give it with --assign" in capsys.readouterr().err


def test_taken_names_are_passed_over_whatever_their_case() -> None:
    candidates = [["tea", "green tea"], ["tea"], ["tea"]]
    found = assign(
        range(3),
        lambda wanted: [candidates[source] for source, _ in wanted],
        1,
        lambda ids: [True] * len(ids),
        taken=["Tea", "TEA 2"],
    )
    assert [one.text for one in found] == ["green tea", "tea 3", "tea 4"]


def test_random_codes_fill_what_is_left() -> None:
    old = random_ids(10, 2, 4, seed=0)
    new = random_ids(6, 2, 4, seed=0, taken=[*old, "some other name", "aa zz"])
    assert len({*old, *new}) == 16
    assert [*old, *new] == random_ids(16, 2, 4, seed=0)
    with pytest.raises(Exception, match="give 6 free IDs for 7 items"):
        random_ids(7, 2, 4, seed=0, taken=old)
