"""The layout of the paper's published data, and the two faults that it is known for."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run

DATASETS = Path(__file__).parents[2].parent / "shared" / "datasets"
N_ITEMS, N_USERS = 120, 240


def write_published(
    folder: Path, sequences: dict[str, list[str]], texts: dict[str, str], ids: dict[str, list[str]] | None = None
) -> None:
    folder.mkdir(exist_ok=True)
    lines = [" ".join([user, *items]) for user, items in sequences.items()]
    (folder / "user_sequence.txt").write_text("\n".join(lines) + "\n")
    (folder / "item_plain_text.txt").write_text("".join(f"{item} {text}\n" for item, text in texts.items()))
    if ids is not None:
        words = [" ".join([user, *found]) for user, found in ids.items()]
        (folder / "user_generative_index_phase_0.txt").write_text("\n".join(words) + "\n")


@pytest.fixture
def shop() -> tuple[dict[str, list[str]], dict[str, str]]:
    """Users with six random items each, whose texts share words and have one of their own."""
    rng = random.Random(4)
    items = [f"B{n:04d}" for n in rng.sample(range(10_000), N_ITEMS)]
    texts = {item: f"{rng.choice(['red', 'blue'])} {rng.choice(['tent', 'lamp'])} name{item.lower()}" for item in items}
    return {f"U{user}": rng.sample(items, 6) for user in range(N_USERS)}, texts


def verdicts(folder: Path, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, tuple[str, str]]:
    """The verdict and evidence of every check, by its name."""
    assert run(["audit", str(folder), "-o", "-"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == ("FAIL" if code else "PASS")
    return {check["name"]: (check["verdict"], check["evidence"]) for check in report["checks"]}


SORTED, WORDS = "sequences are not sorted by item key", "user IDs tell nothing of the test item"


def name_words(items: list[str], texts: dict[str, str]) -> list[str]:
    return [texts[item].split()[-1] for item in items]


def test_honest_files_pass(tmp_path: Path, shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sequences, texts = shop
    # An ID may hold a word that only the test item has: some do by chance, with this one or another.
    rng = random.Random(1)
    guesses = list(texts)
    ids = {user: [*name_words(items[1:3], texts), *name_words([rng.choice(guesses)], texts)]
           for user, items in sequences.items()}  # fmt: skip
    write_published(tmp_path / "x", sequences, texts, ids)
    found = verdicts(tmp_path / "x", capsys, 0)
    assert found[SORTED][0] == found[WORDS][0] == "PASS"
    assert "users whose test item has a rare word" in found[WORDS][1]
    assert found["users stand once"][0] == found["every item has a text"][0] == "PASS"
    assert found["IDs are unique"] == ("SKIP", "there is no item_generative_indexing_phase_0.txt")


def test_sequences_sorted_by_key_fail(tmp_path: Path, shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sequences, texts = shop
    write_published(tmp_path / "x", {user: sorted(items) for user, items in sequences.items()}, texts)
    found = verdicts(tmp_path / "x", capsys, 1)
    assert found[SORTED][0] == "FAIL"
    assert f"100.0% of {N_USERS} users" in found[SORTED][1]


def test_user_ids_made_from_whole_sequences_fail(tmp_path: Path, shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sequences, texts = shop
    # As a generator would: some words of some items, the test item among them for every third user.
    ids = {
        user: name_words(items[number % 3 :: 2], texts)[-2:] for number, (user, items) in enumerate(sequences.items())
    }
    write_published(tmp_path / "x", sequences, texts, ids)
    found = verdicts(tmp_path / "x", capsys, 1)
    assert found[WORDS][0] == "FAIL"
    assert "made from the whole sequence" in found[WORDS][1]
    assert found[SORTED][0] == "PASS"


def test_too_few_users_are_not_a_pass(tmp_path: Path, shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sequences, texts = shop
    few = dict(list(sequences.items())[:5])
    write_published(tmp_path / "x", few, texts, {user: ["red"] for user in few})
    found = verdicts(tmp_path / "x", capsys, 0)
    assert found[SORTED][0] == found[WORDS][0] == "SKIP"


def test_faulty_lines_are_counted(tmp_path: Path, shop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sequences, texts = shop
    write_published(tmp_path / "x", sequences, texts)
    first = next(iter(sequences))
    with (tmp_path / "x" / "user_sequence.txt").open("a") as stream:
        stream.write(f"{first} {' '.join(sequences[first])}\nshort B1 B2\nagain B1 B2 B1\n")
    (tmp_path / "x" / "item_generative_indexing_phase_0.txt").write_text("B1 Red Tent\nB2 red tent\nB3 \nB4 red tent\n")
    found = verdicts(tmp_path / "x", capsys, 1)
    assert found["users stand once"] == ("FAIL", f"line {N_USERS + 1}: user {first!r} again")
    assert found["users have three items or more"] == ("FAIL", f"line {N_USERS + 2}: user 'short' has 2 items")
    assert found["test items are not in the user's own history"] == ("FAIL", "user 'again': 'B1'")
    assert found["every item has a text"][0] == "FAIL"
    assert found["no ID is empty"] == ("FAIL", "line 3: item 'B3'")
    assert found["IDs are unique"] == ("FAIL", "line 4 equals line 2, the ID: 'red tent'")
    assert found["IDs differ by more than case"][0] == "FAIL"


@pytest.fixture(scope="module")
def sports() -> Callable[[Path, bool, bool], None]:
    """Writes Sports in the published layout: sorted by key or not, user IDs from whole sequences or not."""
    folder = DATASETS / "sports"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    with gzip.open(folder / "meta.jsonl.gz") as stream:
        texts = {row["item_id"]: row["keywords"] for row in map(json.loads, stream)}
    with gzip.open(folder / "sequences.jsonl.gz") as stream:
        sequences = {row["user_id"]: row["items"] for row in map(json.loads, stream)}

    def write(output: Path, by_key: bool, whole: bool) -> None:
        shown = {user: sorted(items) if by_key else items for user, items in sequences.items()}
        ids = {}
        for number, (user, items) in enumerate(shown.items()):
            words = " ".join(texts[item] for item in (items if whole else items[:-1])).split()
            ids[user] = words[number % 7 :: 7][-6:]  # some words of all, as a generator picks them
        write_published(output, shown, texts, ids)

    return write


@pytest.mark.parametrize(("by_key", "whole"), [(True, True), (False, False)], ids=["as published", "as it should be"])
def test_sports(
    by_key: bool, whole: bool, sports: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sports(tmp_path / "sports", by_key, whole)
    found = verdicts(tmp_path / "sports", capsys, int(by_key or whole))
    assert found[SORTED][0] == ("FAIL" if by_key else "PASS")
    assert found[WORDS][0] == ("FAIL" if whole else "PASS")
