"""JSON files of model folders and records with values that idgr never writes: one line, never a fault in idgr."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl

STRANGE: list[Any] = [None, True, -1, 10.0**20, "", "x", [], {}, [[1]], {"a": {"b": []}}]
TRAINING = ["--epochs", "1", "--width", "8", "--device", "cpu"]


def variants(value: dict[str, Any], depth: int = 2) -> Iterator[dict[str, Any]]:
    """The object without each of its keys, and with each value replaced by strange ones, down to a depth."""
    for name, inner in value.items():
        yield {key: other for key, other in value.items() if key != name}
        for strange in STRANGE:
            if strange != inner:
                yield {**copy.deepcopy(value), name: strange}
        if isinstance(inner, dict) and depth > 1:
            for changed in variants(inner, depth - 1):
                yield {**value, name: changed}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prepared folder, a SASRec of it, recommendations of that, and a run of neither."""
    folder = tmp_path_factory.mktemp("shop")
    assert run(["prep", "demo", "-o", str(folder / "data"), "--users", "30", "--items", "20"]) == 0
    train, items = (str(folder / "data" / name) for name in ("train.jsonl", "items.jsonl"))
    assert run(["train-sasrec", train, "--items", items, *TRAINING, "-o", str(folder / "sasrec")]) == 0
    assert run(recommend(folder)) == 0
    write_jsonl(folder / "ids.jsonl", [{"item_id": "I1", "id": "amber"}])
    return folder


def recommend(shop: Path) -> list[str]:
    read = str(shop / "data" / "test.jsonl")
    return ["recommend", read, "--rec", str(shop / "sasrec"), "-o", str(shop / "recs.jsonl"), "--device", "cpu"]


def finished(shop: Path) -> list[str]:
    train, items = (str(shop / "data" / name) for name in ("train.jsonl", "items.jsonl"))
    return ["train-sasrec", train, "--items", items, *TRAINING, "-o", str(shop / "sasrec")]


def audited(shop: Path) -> list[str]:
    return ["audit", str(shop)]


def data_audited(shop: Path) -> list[str]:
    return ["audit", str(shop / "data")]


def name_of_change(told: dict[str, Any], content: bytes) -> str:
    """The keys whose values `content` changes or lacks, of those that tell what kind of model a folder holds."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    changed = not isinstance(found, dict) or found.get("model_type") != told.get("model_type")
    return "model_type" if changed else ""


CASES = [
    ("sasrec/config.json", recommend, True),
    ("sasrec/items.json", recommend, True),
    ("sasrec/run.json", finished, False),
    ("data/run.json", finished, False),
    ("data/run.json", audited, False),
    ("recs.jsonl.run.json", audited, False),
    ("data/stats.json", data_audited, False),
]


@pytest.mark.parametrize(("name", "command", "matters"), CASES, ids=[f"{c[0]}-{c[1].__name__}" for c in CASES])
def test_a_strange_value_is_told_in_one_line(
    shop: Path, name: str, command: Any, matters: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = shop / name
    whole = path.read_bytes()
    weights = (shop / "sasrec" / "model.safetensors").stat().st_mtime_ns
    told = orjson.loads(whole)
    skipped = ("versions", "started", "seconds") if name.endswith("run.json") else ()
    told = {key: value for key, value in told.items() if key not in skipped}
    try:
        for content in [*map(orjson.dumps, variants(told)), b"[" * 5000, b'"\xff"', b"[]", b"", b"1e400"]:
            path.write_bytes(content)
            capfd.readouterr()
            code = run(command(shop))
            errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("idgr: error:")]
            # What does not say that it is a SASRec is asked as a recommender, which needs --ids.
            assert code in (0, 1, 2 if "model_type" in name_of_change(told, content) else 1), content
            assert len(errors) == (code > 0), content
            assert "fault in idgr" not in "".join(errors), (content, errors)
            if matters:
                assert code, content
    finally:
        path.write_bytes(whole)
    if name != "sasrec/run.json":
        assert (shop / "sasrec" / "model.safetensors").stat().st_mtime_ns == weights


FACTS = {"objective": "full", "templates": ["{history}"], "max_history": 5, "max_prompt_tokens": 64,
         "ids_fingerprint": "0", "user_ids": "none", "history": "shown", "arch": "t5", "user_gen": None}  # fmt: skip


def test_strange_facts_of_a_recommender_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from idgr.errors import IdgrError
    from idgr.formats.rec_folder import read_recommender_facts, read_seen_tokens

    whole = {"command": "train-rec", "options": {}, "inputs": {}, "outputs": {}, **FACTS}
    path = tmp_path / "run.json"
    path.write_bytes(orjson.dumps(whole))
    assert read_recommender_facts(tmp_path).max_history == 5
    accepted, told = [], list[tuple[str, str]]()
    for name in FACTS:
        for strange in STRANGE:
            path.write_bytes(orjson.dumps({**whole, name: strange}))
            try:
                read_recommender_facts(tmp_path)
            except IdgrError as fault:
                told.append((name, str(fault)))
            else:
                accepted.append((name, strange))
    assert all(name in message for name, message in told)
    # A fingerprint is compared, and text of any kind is one; nothing else is believed.
    texts = {(name, text) for name in ("ids_fingerprint", "user_gen") for text in ("", "x")}
    assert {pair for pair in accepted if isinstance(pair[1], str)} == texts
    assert [pair for pair in accepted if not isinstance(pair[1], str)] == [("user_gen", None)]

    for content in (b"[]", b"{", b'{"tokens": 7}', b'{"tokens": ["x"]}', b'{"tokens": [-1]}', b'{"tokens": [true]}'):
        (tmp_path / "seen_tokens.json").write_bytes(content)
        with pytest.raises(IdgrError, match=r"seen_tokens\.json: .*; take the recommender as"):
            read_seen_tokens(tmp_path)


@pytest.mark.parametrize("option", ["--seed", "--epochs", "--width", "--batch-size", "--patience", "--valid-users"])
@pytest.mark.parametrize("value", ["1" + "0" * 20, "-1" + "0" * 20])
def test_integers_beyond_64_bits_are_refused(
    shop: Path, option: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*finished(shop), option, value, "--overwrite"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert option in line


def test_a_bound_that_is_no_number_is_told(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IDGR_MAX_LINE_MIB", "abc")
    assert run(recommend(shop)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "IDGR_MAX_LINE_MIB is 'abc'; set it to a whole number above 0" in line
