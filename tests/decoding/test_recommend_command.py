"""`idgr recommend`: a filter from histories to ranked items, which never looks at targets."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RunInfo, read_run
from idgr.models.backbone import Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

COLOURS = ["red", "blue", "green", "black", "white"]
THINGS = ["brush", "brush kit", "soap", "towel", "lamp shade", "comb"]
IDS = [
    ItemId(f"i{n}", f"{colour} {thing}") for n, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS)
]
TEMPLATES = ["history: {history}; next:", "after {history}, one picks"]
N_USERS = 13


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ids.jsonl, test.jsonl, train.jsonl and an untrained recommender rec/."""
    folder = tmp_path_factory.mktemp("shop")
    write_jsonl(folder / "ids.jsonl", (record.row() for record in IDS))
    rows = [
        {"user_id": f"u{u}", "history": [f"i{(u * 7 + n * 4) % len(IDS)}" for n in range(u % 6)]}
        for u in range(N_USERS)
    ]
    write_jsonl(folder / "test.jsonl", [row | {"target": "i3"} for row in rows])
    write_jsonl(
        folder / "train.jsonl", [{"user_id": row["user_id"], "items": [*row["history"], "i1", "i2"]} for row in rows]
    )
    tokenizer = train_tokenizer([record.id for record in IDS] + TEMPLATES, 400)
    backbone = new_backbone(Preset(16, 32, 1, 2, 8, 400), tokenizer, seed=0)
    rec = folder / "rec"
    rec.mkdir()
    save_backbone(backbone, rec)
    facts = {
        "objective": "trie",
        "templates": TEMPLATES,
        "max_history": 20,
        "max_prompt_tokens": 512,
        "ids_fingerprint": ids_fingerprint(IDS),
    }
    RunInfo("train-rec", {}, {}, 0, facts).write(rec)
    return folder


def recommend(shop: Path, *options: str, histories: str = "test.jsonl", output: Path | str = "-") -> int:
    read = "-" if histories == "-" else str(shop / histories)
    files = ["--rec", str(shop / "rec"), "--ids", str(shop / "ids.jsonl"), "-o", str(output)]
    return run(["recommend", read, *files, "--device", "cpu", *options])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_ranks_items_for_each_history_in_order(shop: Path, tmp_path: Path) -> None:
    output = tmp_path / "recs.jsonl"
    assert recommend(shop, "-k", "7", "--batch-size", "4", output=output) == 0
    queries, rows = rows_of(shop / "test.jsonl"), rows_of(output)
    assert [row["user_id"] for row in rows] == [query["user_id"] for query in queries]
    for query, row in zip(queries, rows, strict=True):
        assert len(set(row["items"])) == len(row["items"]) == len(row["scores"]) == 7
        assert not set(row["items"]) & set(query["history"])
        assert row["scores"] == sorted(row["scores"], reverse=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recs.jsonl", "recs.jsonl.run.json"]
    assert json.loads((tmp_path / "recs.jsonl.run.json").read_text())["options"]["normalize"] == "trie"


def test_targets_do_not_matter(shop: Path, tmp_path: Path) -> None:
    blank = [{name: value for name, value in row.items() if name != "target"} for row in rows_of(shop / "test.jsonl")]
    write_jsonl(shop / "bare.jsonl", blank)
    write_jsonl(shop / "nonsense.jsonl", [row | {"target": ["no", "key"]} for row in blank])
    found = []
    for name in ("test", "bare", "nonsense"):
        assert recommend(shop, "--prompts", str(tmp_path / "p"), histories=f"{name}.jsonl", output=tmp_path / "r") == 0
        found.append((tmp_path / "r").read_bytes() + (tmp_path / "p").read_bytes())
    assert found[0] == found[1] == found[2]


def test_prompts_tell_what_the_model_was_shown(shop: Path, tmp_path: Path) -> None:
    assert recommend(shop, "--template", "1", "--prompts", str(tmp_path / "p"), output=tmp_path / "r") == 0
    prompts = rows_of(tmp_path / "p")
    names = {record.item_id: record.id for record in IDS}
    for query, prompt in zip(rows_of(shop / "test.jsonl"), prompts, strict=True):
        assert list(prompt) == ["user_id", "text", "tokens"]
        wanted = TEMPLATES[1].format(history=", ".join(names[item] for item in query["history"]))
        assert "".join(prompt["text"].split()) == "".join(wanted.split())


def test_history_and_subset(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "allow").write_text("i0\ni7\n\ni20\n")
    assert recommend(shop, "--allow", str(tmp_path / "allow"), "--keep-history", output=tmp_path / "r") == 0
    assert all(set(row["items"]) == {"i0", "i7", "i20"} for row in rows_of(tmp_path / "r"))
    assert recommend(shop, "--allow", str(tmp_path / "allow"), output=tmp_path / "r") == 0
    for query, row in zip(rows_of(shop / "test.jsonl"), rows_of(tmp_path / "r"), strict=True):
        assert set(row["items"]) == {"i0", "i7", "i20"} - set(query["history"])


def test_exact_search_and_wide_beams_agree(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend(shop, "--search", "exact", "-k", "3", output=tmp_path / "a") == 0
    assert recommend(shop, "--beams", "60", "-k", "3", output=tmp_path / "b") == 0
    for one, other in zip(rows_of(tmp_path / "a"), rows_of(tmp_path / "b"), strict=True):
        assert one["items"] == other["items"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
    told = [line for line in capsys.readouterr().err.splitlines() if "prefixes expanded" in line]
    expansions = read_run(tmp_path / "a")["expansions"]
    assert len(told) == 1
    assert f"recommend: {expansions} prefixes expanded for each history" in told[0]
    assert 1 <= expansions < 100
    assert "expansions" not in read_run(tmp_path / "b")


def test_shards_hold_every_history_once(shop: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert recommend(shop, output=whole) == 0
    parts = []
    for number in (1, 2, 3):
        assert recommend(shop, "--shard", f"{number}/3", output=tmp_path / "part") == 0
        parts += rows_of(tmp_path / "part")
    wanted = {row["user_id"]: row["items"] for row in rows_of(whole)}
    assert {row["user_id"]: row["items"] for row in parts} == wanted
    assert len(parts) == N_USERS


def test_the_tree_is_kept_between_runs_and_made_anew_for_other_ids(shop: Path, tmp_path: Path) -> None:
    kept = tmp_path / "ids.trie"
    for output in ("a", "b"):
        assert recommend(shop, "--trie", str(kept), output=tmp_path / output) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    first = kept.read_bytes()
    write_jsonl(tmp_path / "ids.jsonl", (record.row() for record in reversed(IDS)))
    assert recommend(shop, "--trie", str(kept), "--ids", str(tmp_path / "ids.jsonl"), output=tmp_path / "c") == 0
    assert kept.read_bytes() != first
    assert [row["items"] for row in rows_of(tmp_path / "c")] == [row["items"] for row in rows_of(tmp_path / "a")]


def test_a_pipe_can_hold_a_conversation(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions, answers = os.pipe(), os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(questions[0], "rb")))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(answers[1], "wb")))
    codes: list[int] = []
    worker = threading.Thread(
        target=lambda: codes.append(recommend(shop, "--batch-size", "1", "-k", "2", histories="-")), daemon=True
    )
    worker.start()
    with os.fdopen(questions[1], "wb", buffering=0) as ask, os.fdopen(answers[0], "rb") as listen:
        for user in ("ann", "bob"):
            ask.write(json.dumps({"user_id": user, "history": ["i5"]}).encode() + b"\n")
            # Each answer comes before the next question is asked.
            assert json.loads(listen.readline())["user_id"] == user
    worker.join(timeout=60)
    assert codes == [0]


@pytest.mark.parametrize("name", ["popularity", "markov"])
def test_baselines_recommend_too(shop: Path, tmp_path: Path, name: str) -> None:
    files = [str(shop / "test.jsonl"), "--train", str(shop / "train.jsonl"), "--ids", str(shop / "ids.jsonl")]
    assert run(["recommend", *files, "--baseline", name, "-k", "2", "-o", str(tmp_path / "r")]) == 0
    for query, row in zip(rows_of(shop / "test.jsonl"), rows_of(tmp_path / "r"), strict=True):
        assert row["scores"] == [-1.0, -2.0]
        assert not set(row["items"]) & set(query["history"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user_id": "a", "history": ["i1", "x9"]}', "unknown item 'x9'"),
        ('{"user_id": "a"}', '"history" is not a list'),
        ('{"history": []}', 'no "user_id"'),
        ("[1]", "not an object"),
        ("{", "not valid JSON"),
    ],
)
def test_a_bad_line_is_told_and_nothing_is_left(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    path = tmp_path / "histories.jsonl"
    path.write_text('{"user_id": "b", "history": ["i1"]}\n' + line + "\n")
    assert recommend(shop, histories=str(path), output=tmp_path / "recs.jsonl") == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"idgr: error: {path}:2: ")
    assert message in told
    assert [path.name for path in tmp_path.iterdir()] == ["histories.jsonl"]


def test_an_unknown_key_to_allow_is_told(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "allow").write_text("i0\nx9\n")
    assert recommend(shop, "--allow", str(tmp_path / "allow")) == 1
    assert f"{tmp_path / 'allow'}:2: unknown item 'x9'" in capsys.readouterr().err


def test_other_ids_are_refused_unless_forced(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [ItemId(record.item_id, record.id + " kit") for record in IDS]
    write_jsonl(tmp_path / "ids.jsonl", (record.row() for record in others))
    options: Sequence[str] = ["--ids", str(tmp_path / "ids.jsonl")]
    assert recommend(shop, *options, output=tmp_path / "r") == 1
    assert "was trained on other IDs" in capsys.readouterr().err
    assert recommend(shop, *options, "--force", output=tmp_path / "r") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t"], "needs --rec and --ids"),
        (["t", "--rec", "r", "--ids", "i", "--train", "t"], "--train is for --baseline"),
        (["t", "--baseline", "markov"], "needs --train"),
        (["t", "--baseline", "markov", "--train", "t", "--rec", "r"], "leave --rec"),
        (["-", "--rec", "r", "--ids", "-"], "standard input"),
        (["t", "--rec", "r", "--ids", "i", "--prompts", "-"], "same file"),
        (["t", "--rec", "r", "--ids", "i", "-k", "0"], "at least one item"),
        (["t", "--rec", "r", "--ids", "i", "--shard", "3/2"], "--shard 3/2"),
    ],
)
def test_conflicts_are_found_before_work_starts(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["recommend", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_too_few_beams_and_templates_are_told(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend(shop, "-k", "30") == 2
    assert "--beams 30 or more" in capsys.readouterr().err
    assert recommend(shop, "--template", "2") == 2
    assert "--template 2: there are 2 templates" in capsys.readouterr().err
