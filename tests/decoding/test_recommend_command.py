"""`idgr recommend`: a filter from histories to ranked items, which never looks at targets."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.cli.main import run
from idgr.decoding.beam import BeamSearch, SearchOptions
from idgr.decoding.decoder import Decoder
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import build_trie
from idgr.formats.jsonl import write_jsonl
from idgr.formats.lock import hold
from idgr.formats.records import ItemId, Query, ids_fingerprint
from idgr.formats.run_info import RunInfo, read_run
from idgr.models.backbone import Preset, load_backbone, new_backbone, save_backbone
from idgr.models.tokenizer import encode, train_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.ranking import Recommender

from ..hostile.damaged_files import damaged_files

ROOT = Path(__file__).parents[2]

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


def test_two_runs_may_make_the_same_tree(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the shards of one job do: who comes while another one writes keeps the tree to itself."""
    kept = tmp_path / "ids.trie"
    assert recommend(shop, output=tmp_path / "a") == 0
    with hold(kept):
        assert recommend(shop, "--trie", str(kept), output=tmp_path / "b") == 0
    assert not kept.exists()
    assert f"the prefix tree is not kept: {kept}: is being written by process" in capsys.readouterr().err
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shards_in_processes_of_their_own_share_a_tree(shop: Path, tmp_path: Path, warm_path: str) -> None:
    files = ["--rec", str(shop / "rec"), "--ids", str(shop / "ids.jsonl"), "--trie", str(tmp_path / "ids.trie")]
    running = []
    for number in (1, 2):
        words = [str(shop / "test.jsonl"), *files, "--shard", f"{number}/2", "-o", str(tmp_path / f"{number}")]
        command = [f"{warm_path.split(os.pathsep)[0]}/idgr", "recommend", *words, "--device", "cpu"]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    for one in running:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    assert sum(len(rows_of(tmp_path / name)) for name in ("1", "2")) == N_USERS
    assert (tmp_path / "ids.trie").is_file()


def test_a_damaged_tree_never_changes_a_list(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, rec = tmp_path / "ids.trie", load_backbone(shop / "rec")
    assert recommend(shop, "--trie", str(kept), output=tmp_path / "whole") == 0
    capsys.readouterr()
    monkeypatch.setattr("idgr.models.backbone.load_backbone", lambda _: rec)  # once, not for each file
    codes = []
    for damaged in damaged_files(kept, 60, seed=0):
        kept.write_bytes(damaged.content)
        codes.append(recommend(shop, "--trie", str(kept), output=tmp_path / "r"))
        said = capsys.readouterr().err.splitlines()
        if codes[-1] == 0:
            assert (tmp_path / "r").read_bytes() == (tmp_path / "whole").read_bytes(), damaged.what
        else:
            assert codes[-1] == 1, damaged.what
            assert len(said) == 1, damaged.what
            assert said[0].startswith(f"idgr: error: {kept}: is not a prefix tree of idgr, or damaged ("), damaged.what
            assert said[0].endswith("; delete it, and it is made again")
    assert codes.count(1) > 40


def test_more_than_the_catalogue_is_all_of_it(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Items are what the catalogue has: more of them, or more beams, are no error and cost nothing."""
    lists = []
    for options in (
        ["-k", "10000000000"],
        ["-k", "31", "--beams", "9223372036854775807"],
        ["--search", "exact", "-k", "99"],
    ):
        assert recommend(shop, *options, output=tmp_path / "r") == 0
        lists.append([row["items"] for row in rows_of(tmp_path / "r")])
        told = capsys.readouterr().err
        k = options[options.index("-k") + 1]
        assert f"-k {k} is more than the 30 items that there are to recommend\n" in told
        assert f"13 of 13 histories have fewer than {k} items\n" in told
        assert ("is more than the 30 items of the catalogue" in told) == ("--beams" in options)
    assert lists[0] == lists[1] == lists[2]
    for query, items in zip(rows_of(shop / "test.jsonl"), lists[0], strict=True):
        assert sorted(items) == sorted({f"i{n}" for n in range(30)} - set(query["history"]))


def test_a_wide_search_of_all_items_is_an_exact_one(shop: Path) -> None:
    backbone = load_backbone(shop / "rec")
    tokenizer = backbone.tokenizer
    texts = [f"{one.id} {other.id}" for one in IDS[:20] for other in IDS]
    rows = encode(tokenizer, texts)
    renderer = PromptRenderer(tokenizer, TEMPLATES, rows)
    keys = [f"k{n}" for n in range(len(rows))]

    def recommender(beams: int) -> Recommender:
        trie = build_trie(rows, tokenizer.eos_token_id)
        return Recommender(backbone, keys, renderer, trie, SearchOptions(5, beams, normalize="trie"))

    wide, narrow = recommender(600), recommender(599)
    assert (type(wide.search), type(narrow.search)) == (ExactSearch, BeamSearch)
    query = Query("u", ["k1", "k2"])
    assert wide.recommend([query])[0].items == narrow.recommend([query])[0].items


def test_unknown_items_can_be_left_out(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    histories = [["x9", "i1", "x9", "i2"], ["i1", "i2"], ["x8"], []]
    write_jsonl(tmp_path / "h", ({"user_id": f"u{n}", "history": row} for n, row in enumerate(histories)))
    assert recommend(shop, histories=str(tmp_path / "h"), output=tmp_path / "r") == 0
    first, second, third, fourth = rows_of(tmp_path / "r")
    assert (first["items"], third["items"]) == (second["items"], fourth["items"])
    assert len(third["items"]) == 10
    assert "left 3 unknown items out of 2 of 4 histories, 1 of which are empty now" in capsys.readouterr().err
    assert recommend(shop, "--unknown", "drop", "--shard", "2/2", histories=str(tmp_path / "h")) == 0
    assert "left" not in capsys.readouterr().err  # the second history and the fourth have none
    files = ["--baseline", "markov", "--train", str(shop / "train.jsonl"), "--ids", str(shop / "ids.jsonl")]
    assert run(["recommend", str(tmp_path / "h"), *files, "--unknown", "error", "-o", str(tmp_path / "r")]) == 1
    assert "leave such items out with --unknown drop" in capsys.readouterr().err
    write_jsonl(tmp_path / "other", ({"user_id": f"u{n}", "history": [f"x{n}"]} for n in range(3)))
    assert recommend(shop, histories=str(tmp_path / "other"), output=tmp_path / "none") == 1
    assert "none of the 3 items in its histories is in the catalogue" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert run(["recommend", str(tmp_path / "h"), *files, "--unknown", "drop", "-o", str(tmp_path / "r")]) == 0
    assert "left 3 unknown items out of 2 of 4 histories" in capsys.readouterr().err


def test_training_sequences_are_histories_too(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"user_id": row["user_id"], "items": row["history"]} for row in rows_of(shop / "test.jsonl")]
    write_jsonl(tmp_path / "train", rows)
    assert recommend(shop, output=tmp_path / "a") == 0
    assert recommend(shop, histories=str(tmp_path / "train"), output=tmp_path / "b") == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    capsys.readouterr()
    assert recommend(shop, histories=str(tmp_path / "b")) == 1  # lists are no histories
    assert '"history" is not a list' in capsys.readouterr().err


def test_repeated_items_and_long_histories(shop: Path, tmp_path: Path) -> None:
    """The newest 20 items are shown, repeated ones as they stand; all of a history is left out."""
    long = [f"i{n % 25}" for n in range(60)]
    write_jsonl(tmp_path / "h", [{"user_id": "u", "history": long}, {"user_id": "v", "history": long[-20:]}])
    options = ["--prompts", str(tmp_path / "p"), "-k", "30", "--beams", "30"]
    assert recommend(shop, *options, histories=str(tmp_path / "h"), output=tmp_path / "r") == 0
    first, second = rows_of(tmp_path / "p")
    assert first["tokens"] == second["tokens"]
    assert [sorted(row["items"]) for row in rows_of(tmp_path / "r")] == [
        sorted(f"i{n}" for n in range(25, 30)),
        sorted(f"i{n}" for n in [*range(10, 15), *range(25, 30)]),
    ]


def test_a_device_without_memory_is_told_in_one_line(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Decoder, "read", no_room)
    assert recommend(shop, output=tmp_path / "r") == 1
    assert capsys.readouterr().err == (
        f"idgr: error: {shop / 'rec'}: the device has not the memory for a single history; "
        "give fewer --beams, or --device cpu\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_tells_how_far_it_is(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("idgr.progress.FIRST_LOG_SECONDS", 0.0)
    monkeypatch.setattr("idgr.progress.LOG_EVERY_SECONDS", 0.0)
    assert recommend(shop, "--batch-size", "2", "--shard", "1/2", output=tmp_path / "r") == 0
    told = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert [line.split(",")[0] for line in told] == [f"recommend: {n}/7 histories" for n in (2, 4, 6, 7)]
    assert all(line.endswith(" left") for line in told)


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
        ('{"user_id": "a", "history": ["i1", 2.5]}', '"history" is not'),
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
        (
            ["t", "--baseline", "markov", "--train", "t", "--beams", "5", "--max-history", "3"],
            "--baseline markov asks no model, so --max-history, --beams says nothing to it; leave that out",
        ),
        (["t", "--baseline", "text", "--items", "i", "--cache"], "so --cache says nothing to it"),
        (["t", "--baseline", "text", "--items", "i", "--precision", "bf16"], "--precision bf16 with --baseline text"),
        (["-", "--rec", "r", "--ids", "-"], "standard input"),
        (["t", "--rec", "r", "--ids", "i", "--prompts", "-"], "same file"),
        (["t", "--rec", "r", "--ids", "i", "-k", "0"], "-k 0; give a number of at least 1"),
        (["t", "--rec", "r", "--ids", "i", "-k", "-3"], "-k -3; give a number of at least 1"),
        (["t", "--rec", "r", "--ids", "i", "-k", "nan"], "-k"),
        (["t", "--rec", "r", "--ids", "i", "-k", "1" * 30], "-k"),
        (["t", "--rec", "r", "--ids", "i", "--beams", "0"], "--beams 0; give a number of at least 1"),
        (["t", "--rec", "r", "--ids", "i", "--beams", "-1"], "--beams -1; give a number of at least 1"),
        (["t", "--rec", "r", "--ids", "i", "--beams", "1" * 30], "--beams"),
        (["t", "--rec", "r", "--ids", "i", "--batch-size", "0"], "--batch-size"),
        (["t", "--rec", "r", "--ids", "i", "--batch-size", "1" * 30], "--batch-size"),
        *(
            (["t", "--rec", "r", "--ids", "i", "--length-penalty", number], "from -10 to 10")
            for number in ("nan", "inf", "-inf", "1000", "-10.5", "1e400")
        ),
        (["t", "--baseline", "markov", "--train", "t", "--length-penalty", "nan"], "from -10 to 10"),
        (["t", "--rec", "r", "--ids", "i", "--shard", "1/" + "9" * 5000], "--shard 1/9"),
        (["t", "--rec", "r", "--ids", "i", "--trie", "-", "-o", "r"], "a plain file"),
        (["t", "--rec", "r", "--ids", "i", "--trie", "t.gz"], "a plain file"),
        (["t", "--rec", "r", "--ids", "i", "--trie", "/dev/null"], "a plain file"),
        (["t", "--rec", "r", "--ids", "i", "--unknown", "skip"], "--unknown"),
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
