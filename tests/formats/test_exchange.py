"""Splits, truth and recommendations in the files of other programs, read back as those programs read them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats.exchange.keys import to_key, to_token
from idgr.formats.exchange.recbole import shared_attributes
from idgr.formats.exchange.trec import read_run
from idgr.formats.records import Item

# Keys that a careless writer or reader would split, drop or take for a missing value.
ITEMS = [
    "a b",
    '"q',
    "NA",
    "%41",
    "ü",
    "tab\there",
    "[PAD]",
    "line\u2028end",
    "007",
    "nan",
    "Q0",
    "#",
    "x",
    "\x00",
    "A",
]
USERS = ["u 1", "null", "u\n2", "%20", "u3", "None", *(f"U{number}" for number in range(60))]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A prepared folder whose histories are random, leave-one-out."""
    draw = random.Random(0)
    folder = tmp_path / "data"
    folder.mkdir()
    histories = {user: [draw.choice(ITEMS) for _ in range(draw.randint(3, 9))] for user in USERS}
    texts = ("title: one; brand: acme", "title: two; categories: blue, red, blue", "no keys here")
    write(folder / "items.jsonl", [{"item_id": key, "text": texts[place % 3]} for place, key in enumerate(ITEMS)])
    write(folder / "train.jsonl", [{"user_id": user, "items": row[:-2]} for user, row in histories.items()])
    for name, end in (("valid", -2), ("test", -1)):
        rows = [{"user_id": user, "history": row[:end], "target": row[end]} for user, row in histories.items()]
        write(folder / f"{name}.jsonl", rows)
    return folder


def load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().rstrip("\n").split("\n")]


def export(data: Path, peer: str, *options: str) -> Path:
    output = data.parent / "out"
    assert run(["export", str(data), "--to", peer, "-o", str(output), *options]) == 0
    return output


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_key_becomes_a_word_and_comes_back(key: str) -> None:
    token = to_token(key)
    assert token.split() == [token]
    assert token.isprintable()
    assert '"' not in token
    assert to_key(token) == key


def test_keys_are_plain_where_they_can_be() -> None:
    for key in ("B0042XTB5G", "beauty/B00-1_2", "ü", "NAN1"):
        assert to_token(key) == key
    assert (to_token("NA"), to_token("a b")) == ("%4EA", "a%20b")


def test_pandas_reads_no_key_as_something_else(tmp_path: Path) -> None:
    """RecBole reads its files so."""
    pandas = pytest.importorskip("pandas")
    keys = [*ITEMS, *sorted(pandas._libs.parsers.STR_NA_VALUES - {""})]
    (tmp_path / "x.inter").write_text("".join(f"{to_token(key)}\t1\n" for key in ["head", *keys]))
    read = pandas.read_csv(tmp_path / "x.inter", delimiter="\t", dtype=str, encoding="utf-8", engine="python")
    assert [to_key(token) for token in read.iloc[:, 0]] == keys


def test_recbole_gets_exactly_our_split(data: Path) -> None:
    output = export(data, "recbole")
    names = {"out.train.inter", "out.valid.inter", "out.test.inter", "out.item", "recbole.yaml", "run.json"}
    assert {path.name for path in output.iterdir()} == names

    def instances(part: str) -> list[tuple[str, list[str], str]]:
        head, *lines = (output / f"out.{part}.inter").read_text().rstrip("\n").split("\n")
        assert head == "user_id:token\titem_id_list:token_seq\titem_id:token"
        rows = [line.split("\t") for line in lines]
        return [(to_key(user), [to_key(item) for item in items.split(" ")], to_key(item)) for user, items, item in rows]

    prefixes = [
        (row["user_id"], row["items"][:end], row["items"][end])
        for row in load(data / "train.jsonl")
        for end in range(1, len(row["items"]))
    ]
    assert instances("train") == prefixes
    for part in ("valid", "test"):
        queries = load(data / f"{part}.jsonl")
        assert instances(part) == [(row["user_id"], row["history"], row["target"]) for row in queries]
    catalogue = [line.split("\t")[0] for line in (output / "out.item").read_text().rstrip("\n").split("\n")[1:]]
    assert [to_key(token) for token in catalogue] == ITEMS
    longest = max(len(row["history"]) for row in load(data / "test.jsonl"))
    assert f"MAX_ITEM_LIST_LENGTH: {longest}\n" in (output / "recbole.yaml").read_text()


def test_recbole_gets_the_newest_of_a_long_history(data: Path) -> None:
    output = export(data, "recbole", "--max-history", "2")
    lines = (output / "out.test.inter").read_text().rstrip("\n").split("\n")[1:]
    shown = [[to_key(item) for item in line.split("\t")[1].split(" ")] for line in lines]
    assert shown == [row["history"][-2:] for row in load(data / "test.jsonl")]
    assert "MAX_ITEM_LIST_LENGTH: 2\n" in (output / "recbole.yaml").read_text()


def test_attributes_are_what_items_share() -> None:
    texts = [
        "title: one; categories: blue, red",
        "title: two, red; categories: blue",
        "brand: x; a: b: c",
        "a: b: c",
        "",
    ]
    shared = shared_attributes([Item(str(place), text) for place, text in enumerate(texts)], shared_by=2)
    assert shared == [["categories=blue"], ["categories=blue"], ["a=b: c"], ["a=b: c"], []]
    whole = [Item(str(place), "brand: parts co., inc.", {"brand": ["parts co., inc."]}) for place in range(2)]
    assert shared_attributes(whole, shared_by=2) == [["brand=parts co., inc."]] * 2


def test_cornac_gets_sessions_in_order(data: Path) -> None:
    output = export(data, "cornac")
    assert {path.name for path in output.iterdir()} == {
        "train.usit",
        "valid.usit",
        "test.usit",
        "items.tsv",
        "run.json",
    }

    def sessions(part: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in (output / f"{part}.usit").read_text().rstrip("\n").split("\n"):
            user, session, item, place = line.split("\t")
            items = found.setdefault(to_key(user), [])
            assert (session, int(place)) == (user, len(items))
            items.append(to_key(item))
        return found

    assert sessions("train") == {row["user_id"]: row["items"] for row in load(data / "train.jsonl")}
    for part in ("valid", "test"):
        queries = load(data / f"{part}.jsonl")
        assert sessions(part) == {row["user_id"]: [*row["history"], row["target"]] for row in queries}
    rows = [line.split("\t") for line in (output / "items.tsv").read_text().rstrip("\n").split("\n")]
    assert [(to_key(token), text) for token, text in rows] == [
        (row["item_id"], row["text"]) for row in load(data / "items.jsonl")
    ]


def recommend(data: Path) -> Path:
    """Lists full of ties, one of them empty, whose scores would put items in another order."""
    draw, users = random.Random(1), [row["user_id"] for row in load(data / "test.jsonl")]
    path = data / "recs.jsonl"
    rows = [{"user_id": user, "items": draw.sample(ITEMS, 8), "scores": [0.5] * 7 + [-1e-30]} for user in users]
    rows[2] |= {"items": [], "scores": []}
    write(path, rows)
    return path


def test_trec_files_score_as_we_do(data: Path) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    from ir_measures import RR, Success, nDCG

    recs = recommend(data)
    output = export(data, "trec", "--recs", str(recs))
    assert {path.name for path in output.iterdir()} == {"valid.qrels", "test.qrels", "run.trec", "run.json"}
    for part in ("valid", "test"):
        metrics = data.parent / f"{part}.json"
        truth = str(data / f"{part}.jsonl")
        words = ["eval", str(recs), "--truth", truth, "--no-baselines", "-k", "3", "-k", "8", "-o", str(metrics)]
        assert run(words) == 0
        ours = json.loads(metrics.read_text())
        qrels = list(ir_measures.read_trec_qrels(str(output / f"{part}.qrels")))
        ranked = list(ir_measures.read_trec_run(str(output / "run.trec")))
        theirs = ir_measures.pytrec_eval.calc_aggregate(
            [Success @ 3, Success @ 8, nDCG @ 3, nDCG @ 8, RR], qrels, ranked
        )
        assert 0 < ours["hr@3"] < ours["hr@8"], "there is something to compare"
        for measure, name in {
            Success @ 3: "hr@3",
            Success @ 8: "hr@8",
            nDCG @ 3: "ndcg@3",
            nDCG @ 8: "ndcg@8",
            RR: "mrr@8",
        }.items():
            assert theirs[measure] == pytest.approx(ours[name], abs=1e-9), name


def test_a_run_comes_back_as_it_was(data: Path) -> None:
    recs, back = recommend(data), data / "back.jsonl"
    output = export(data, "trec", "--recs", str(recs))
    assert run(["import", str(output / "run.trec"), "--users", str(data / "test.jsonl"), "-o", str(back)]) == 0
    lists = {row["user_id"]: row["items"] for row in load(recs)}
    assert {row["user_id"]: row["items"] for row in load(back)} == lists
    assert (data / "back.jsonl.run.json").is_file()


def test_a_run_is_ordered_by_score_and_ties_by_name(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("u Q0 a 1 0.5 x\nv Q0 z 1 1 x\nu Q0 c 2 0.5 x\nu Q0 b 3 2e0 x\n")
    (first, second) = read_run(tmp_path / "run")
    assert (first.user_id, first.items, first.scores) == ("u", ["b", "c", "a"], [2.0, 0.5, 0.5])
    assert (second.user_id, second.items) == ("v", ["z"])


def test_scores_are_compared_as_trec_eval_holds_them(tmp_path: Path) -> None:
    """0.1 and 0.1 + 1e-9 are one number in 32 bits, so the later name is first; so are all beyond 3.4e38."""
    close, huge = "0.1000000010", "1e300"
    lines = [f"u Q0 a 1 {close}", "u Q0 b 2 0.1", "u Q0 c 3 0.09", f"v Q0 a 1 {huge}", "v Q0 b 2 inf", "v Q0 é 3 4e38"]
    (tmp_path / "run").write_text("".join(f"{line} x\n" for line in lines))
    first, second = read_run(tmp_path / "run")
    assert first.items == ["b", "a", "c"]
    tie = float(np.float32(0.1))
    assert first.scores == [tie, tie, 0.09]
    assert second.items == ["é", "b", "a"]
    assert all(map(math.isfinite, second.scores))


def test_a_run_of_any_scores_is_ranked_as_ir_measures_ranks_it(tmp_path: Path) -> None:
    """Through trec_eval itself: the reciprocal rank of each item alone is its place in our list."""
    ir_measures = pytest.importorskip("ir_measures")
    draw = np.random.default_rng(0)
    scores = np.round(draw.normal(size=40), 1) + draw.integers(0, 3, size=40) * 1e-9
    lines = [f"u Q0 {to_token(f'item {n}')} 1 {score!r} x\n" for n, score in enumerate(scores.tolist())]
    (tmp_path / "run").write_text("".join(lines))
    (ours,) = read_run(tmp_path / "run")
    assert ours.scores == sorted(ours.scores, reverse=True)
    run = list(ir_measures.read_trec_run(str(tmp_path / "run")))
    for place, item in enumerate(ours.items, 1):
        qrels = [ir_measures.Qrel("u", to_token(item), 1)]
        (found,) = ir_measures.pytrec_eval.iter_calc([ir_measures.RR], qrels, run)
        assert found.value == pytest.approx(1 / place)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("u Q0 a 1 1_0 x", "not a line of a TREC run"),
        ("u Q0 a 1 ١ x", "not a line of a TREC run"),
        ("u Q0 a 1 0.5", "not a line of a TREC run"),
        ("u Q0 a 1 best x", "not a line of a TREC run"),
        ("u Q0 a 1 nan x", "not a line of a TREC run"),
        ("u Q0 b 2 1 x", "item 'b' is recommended to user 'u' twice"),
    ],
)
def test_a_wrong_line_of_a_run_is_named(line: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(f"u Q0 b 1 2 x\n{line}\n")
    with pytest.raises(IdgrError, match=f"run:2: {hint}"):
        list(read_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["--to", "cornac", "-o", "-"], 2, "not standard output"),
        (["--to", "cornac", "--recs", "r", "-o", "out"], 2, "--recs does not go with --to cornac"),
        (["--to", "trec", "--max-history", "3", "-o", "out"], 2, "--max-history does not go with --to trec"),
        (["--to", "excel", "-o", "out"], 2, "--to excel; choose recbole or cornac or trec"),
        (["--to", "recbole", "-o", "out"], 1, "test.jsonl: user 'v' has a target and no history"),
    ],
)
def test_what_cannot_be_exported_is_told(
    words: list[str],
    code: int,
    hint: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(data.parent)
    with (data / "test.jsonl").open("a") as stream:
        stream.write('{"user_id": "v", "history": [], "target": "x"}\n')
    assert run(["export", str(data), *words]) == code
    message = capsys.readouterr().err
    assert hint in message
    assert message.count("\n") == 1
    assert not (data.parent / "out").exists()


def test_recommendations_of_other_users_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data / "recs.jsonl", [{"user_id": "stranger", "items": ["x"]}])
    words = ["export", str(data), "--to", "trec", "--recs", str(data / "recs.jsonl"), "-o", str(data.parent / "out")]
    assert run(words) == 1
    assert "recs.jsonl:1: user 'stranger' is not in the truth" in capsys.readouterr().err
    assert not (data.parent / "out").exists()
