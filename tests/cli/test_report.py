"""`idgr report` on a tiny shop that went through all stages: the files, the page, and what it says is missing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from idgr.cli.main import app, run
from idgr.cli.reproduce import command_line
from idgr.formats.jsonl import write_jsonl
from idgr.formats.run_info import read_run
from idgr.models.backbone import PRESETS, Preset

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)
PLOTS = {
    "id-lengths.png",
    "learning-first-generator.png",
    "learning-generator.png",
    "learning-recommender.png",
    "rounds.png",
    "segments-1.png",
}


def idgr(*words: object) -> None:
    assert run([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of `alternate` scored with rows and segments, and a baseline's lists scored without."""
    root = tmp_path_factory.mktemp("made") / "shop"
    data, gen, loop = root / "data", root / "gen", root / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        idgr("prep", "demo", "--items", 20, "--users", 20, "-o", data)
        idgr("init-gen", data / "items.jsonl", "--epochs", 10, "--lr", 0.01, "--batch-size", 4, "-o", gen)
        few = ["--rounds", 2, "--rec.epochs", 1, "--valid-beams", 10, "--gen.lr", 0.01]
        idgr("alternate", data, "--gen", gen, *few, "-o", loop)
        test, train = data / "test.jsonl", data / "train.jsonl"
        final = ["--rec", loop / "final/rec", "--ids", loop / "final/ids.jsonl"]
        idgr("recommend", test, *final, "--beams", 10, "-o", root / "recs.jsonl")
        scored = ["--truth", test, "--train", train]
        metrics, rows = root / "idgr-metrics.json", root / "users.jsonl"
        idgr("eval", root / "recs.jsonl", *scored, "--segments", "--per-user", rows, "-o", metrics)
        idgr("recommend", test, "--baseline", "markov", "--train", train, "-o", root / "markov.jsonl")
        idgr("eval", root / "markov.jsonl", "--truth", test, "--no-baselines", "-o", root / "counted-metrics.json")
    torch.set_num_threads(threads)
    return root


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_whole_page(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idgr("report", made, "-o", tmp_path / "report")
    assert capsys.readouterr().out == ""
    folder = tmp_path / "report"
    assert {path.name for path in folder.iterdir()} == PLOTS | {"report.md", "run.json"}
    text = (folder / "report.md").read_text()
    assert set(re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)) == PLOTS
    for name in PLOTS:
        head = (folder / name).read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") > 600

    metrics = json.loads((made / "idgr-metrics.json").read_text())
    rows = {line.split("|")[1].strip(): line for line in section(text, "Results").splitlines() if line.startswith("| ")}
    assert list(rows)[2:] == ["counted", "idgr", "*popularity*", "*markov*"]
    assert re.search(rf"{metrics['hr@10']:.4f}(\*\*)? \[[\d., ]*\]", rows["idgr"])
    best = max(metrics["hr@10"], *(rival["hr@10"] for rival in metrics["baselines"].values()))
    assert f"**{best:.4f}**" in rows["idgr"] + rows["*popularity*"] + rows["*markov*"]
    # The baseline's own lists have the figures that `eval` counted beside the model.
    assert rows["counted"].split("|")[2:] == rows["*markov*"].split("|")[2:]
    assert "Not divided" in section(text, "Hit rate by history length, target popularity and transition")
    assert "`counted`" in section(text, "Hit rate by history length, target popularity and transition")

    last = [json.loads(line) for line in (made / "run/round-2/ids.jsonl").read_text().splitlines()]
    first = [json.loads(line) for line in (made / "run/round-0/ids.jsonl").read_text().splitlines()]
    changed = [(old["id"], new["id"]) for old, new in zip(first, last, strict=True) if old["id"] != new["id"]]
    assert changed
    ids = section(text, "IDs before and after training")
    assert f"from round-0 to round-2: {len(changed)} of 20 items" in ids
    assert f"| {changed[0][0]} | {changed[0][1]} |" in ids
    assert len(re.findall(r"^\| title: ", ids, re.MULTILINE)) == min(len(changed), 10)

    # The audit minds that one result stands without baselines, and the page says so.
    assert run(["audit", str(made), "-o", str(tmp_path / "audit.json")]) == 1
    checks = json.loads((tmp_path / "audit.json").read_text())["checks"]
    passed = sum(check["verdict"] == "PASS" for check in checks)
    audit = section(text, "Audit")
    assert f"**FAIL**; {passed} checks passed, 1 failed" in audit
    (fault,) = (line for line in audit.splitlines() if line.startswith("| FAIL"))
    assert "baselines stand beside the result" in fault
    assert "counted-metrics.json" in fault


def test_every_command_can_be_typed_again(made: Path, tmp_path: Path) -> None:
    idgr("report", made, "-o", tmp_path / "report", "--no-audit")
    commands = section((tmp_path / "report/report.md").read_text(), "Commands")
    typed = [shlex.split(block.replace("\\\n", " ")) for block in re.findall(r"```sh\n(.*?)```", commands, re.DOTALL)]
    names = [words[1] for words in typed]
    assert names[:4] == ["prep", "init-gen", "alternate", "recommend"]
    assert sorted(names[4:]) == ["eval", "eval", "recommend"]
    for words in typed:
        assert words[0] == "idgr"
        assert "#" not in words, "the record tells nothing that the command line does not know"
        group = get_command(app)
        command = group.get_command(None, words[1])  # type: ignore[attr-defined, arg-type]
        rest = words[2:]
        while hasattr(command, "get_command"):
            command, rest = command.get_command(None, rest[0]), rest[1:]
        command.make_context(words[1], rest)
    (scored,) = (words for words in typed if "--per-user" in words)
    assert scored[scored.index("--per-user") + 1] == str(made / "users.jsonl")
    # What was typed for the baseline gives the same bytes.
    (lists,) = (words for words in typed if "--baseline" in words)
    output = lists.index("-o") + 1
    before, lists[output] = Path(lists[output]), str(tmp_path / "again.jsonl")
    idgr(*lists[1:])
    assert (tmp_path / "again.jsonl").read_bytes() == before.read_bytes()
    # The parts of a run are told with their times, and can be typed as well.
    assert "| train-gen | run/round-2/gen |" in commands
    part = made / "run/round-2/rec"
    assert command_line(read_run(part), [part])[:3] == ["idgr", "train-rec", str(made / "data/train.jsonl")]


def test_what_is_missing_is_said_and_not_drawn(made: Path, tmp_path: Path) -> None:
    idgr("report", made / "data", "-o", tmp_path / "report", "--no-audit")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.md", "run.json"}
    text = (tmp_path / "report/report.md").read_text()
    for told in (
        "No metrics of `idgr eval` or `idgr zeroshot`",
        "No training of a recommender",
        "No training by `idgr init-gen`",
        "No run of `idgr alternate` was found",
        "No results to divide",
        "No IDs of `idgr gen-ids`",
        "Not asked for (`--no-audit`)",
        "idgr prep demo --items 20 --users 20 -o",
    ):
        assert told in text
    assert "![" not in text


def test_rows_alone_give_segments_and_none_give_no_plot(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    metrics = json.loads((copy / "idgr-metrics.json").read_text())
    with_rivals = made.parent / "with"
    idgr("report", made, "-o", with_rivals, "--no-audit")
    del metrics["segments"]
    (copy / "idgr-metrics.json").write_text(json.dumps(metrics))
    capsys.readouterr()
    idgr("report", copy, "-o", tmp_path / "counted", "--no-audit")
    assert f"{copy}/idgr-metrics.json is not what its record tells of" in capsys.readouterr().err
    assert (tmp_path / "counted/segments-1.png").is_file()
    assert (tmp_path / "counted/segments-1.png").read_bytes() != (with_rivals / "segments-1.png").read_bytes()
    (copy / "users.jsonl").unlink()
    idgr("report", copy, "-o", tmp_path / "without", "--no-audit")
    text = (tmp_path / "without/report.md").read_text()
    assert not (tmp_path / "without/segments-1.png").exists()
    assert "There are no intervals" in text
    assert "`--train`: `counted`, `idgr`" in text


def test_lists_may_be_scored_by_calls_that_tell_different_things(made: Path, tmp_path: Path) -> None:
    """With cutoffs of their own and without training sequences: each has its own rows, else what others' rows tell."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    scored = ["eval", copy / "recs.jsonl", "--truth", copy / "data/test.jsonl", "--no-baselines"]
    for name in ("above", "xtra"):  # by name before the other rows, and after them
        rows = copy / f"{name}-users.jsonl"
        idgr(*scored, "-k", 1, "-k", 5, "--per-user", rows, "-o", copy / f"{name}-metrics.json")
    idgr(*scored, "-k", 5, "-k", 10, "-o", copy / "bare-metrics.json")

    def cells(output: str) -> dict[str, dict[str, str]]:
        idgr("report", copy, "-o", tmp_path / output, "--no-audit")
        results = section((tmp_path / output / "report.md").read_text(), "Results")
        head, _, *rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in results.splitlines() if line.startswith("|")
        ]
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}

    def with_interval(row: dict[str, str]) -> list[str]:
        return [metric for metric, cell in row.items() if "[" in cell]

    found = cells("own")
    assert with_interval(found["idgr"]) == ["HR@5", "NDCG@5", "HR@10", "NDCG@10"]
    assert with_interval(found["above"]) == with_interval(found["xtra"]) == ["HR@1", "NDCG@1", "HR@5", "NDCG@5"]
    metrics = json.loads((copy / "idgr-metrics.json").read_text())
    del metrics["segments"]
    (copy / "idgr-metrics.json").write_text(json.dumps(metrics))
    (copy / "users.jsonl").unlink()
    found = cells("of others")
    assert with_interval(found["idgr"]) == with_interval(found["bare"]) == ["HR@5", "NDCG@5"]


def test_several_folders_stand_side_by_side(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    idgr("report", made, copy, "-o", tmp_path / "report", "--no-audit")
    results = section((tmp_path / "report/report.md").read_text(), "Results")
    assert f"{copy.as_posix()}/idgr".replace("_", "\\_") in results
    assert results.count("*popularity*") == 1


def test_data_do_not_become_markdown(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    rows = [json.loads(line) for line in (copy / "run/round-0/ids.jsonl").read_text().splitlines()]
    rows[0]["id"] = "a | b <img src=x> [c](d) `e`\u202e"
    write_jsonl(copy / "run/round-0/ids.jsonl", rows)
    idgr("report", copy, "-o", tmp_path / "report", "--no-audit")
    ids = section((tmp_path / "report/report.md").read_text(), "IDs before and after training")
    assert "a \\| b &lt;img src=x&gt; \\[c\\](d) \\`e\\`\\\\u202e" in ids


def test_an_audit_that_cannot_be_made_is_told(made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    with (copy / "data/train.jsonl").open("a") as stream:
        stream.write("{\n")
    idgr("report", copy, "-o", tmp_path / "report")
    audit = section((tmp_path / "report/report.md").read_text(), "Audit")
    assert "could not be audited" in audit
    assert "train.jsonl:21: not valid JSON" in audit


def test_a_report_is_made_again_but_takes_no_other_place(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(code: int, *words: object) -> str:
        capsys.readouterr()
        assert run(["report", *map(str, words)]) == code
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        return shown

    idgr("report", made / "data", "-o", tmp_path / "report", "--no-audit")
    first = (tmp_path / "report/report.md").read_bytes()
    idgr("report", made / "data", "-o", tmp_path / "report", "--no-audit")
    assert (tmp_path / "report/report.md").read_bytes() == first
    for place in (made, made.parent):
        assert "would take the place of" in refused(2, made, "-o", place)
    assert "holds another output of idgr" in refused(1, made, "-o", made / "gen")
    assert "named twice" in refused(2, made, made, "-o", tmp_path / "x")
    assert "standard input" in refused(2, "-", "-o", tmp_path / "x")
    assert "cannot hold a folder" in refused(2, made, "-o", "-")
    assert "no such folder" in refused(1, made / "none", "-o", tmp_path / "x")
    (tmp_path / "empty").mkdir()
    assert "holds nothing" in refused(1, tmp_path / "empty", "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert (made / "gen/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("idgr-metrics.json", "{\n", "idgr-metrics.json: is not a JSON object"),
        ("idgr-metrics.json", '{"n_users": 1,\n"n_items": 2}', "idgr-metrics.json: holds no hit rate"),
        ("users.jsonl", '{"user_id": "u"}\n', "users.jsonl:1: no hit rate"),
        ("users.jsonl", '{"user_id": "u", "hr@5": 1}\n{"user_id": "v"}\n', 'users.jsonl:2: no number "hr@5"'),
        ("run/metrics.jsonl", '{"phase": "rec"}\n', 'metrics.jsonl:1: no integer "round"'),
        ("gen/log.jsonl", "3\n", "log.jsonl:1: a JSON int"),
    ],
)
def test_a_broken_file_is_named(
    name: str, content: str, hint: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    (copy / name).write_text(content)
    capsys.readouterr()
    assert run(["report", str(copy), "-o", str(tmp_path / "report"), "--no-audit"]) == 1
    assert hint in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_without_matplotlib_the_extra_is_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("idgr.evaluation.report.plots.find_spec", lambda name: None)
    assert run(["report", str(made), "-o", str(tmp_path / "report")]) == 1
    assert "pip install 'idgr[report]'" in capsys.readouterr().err
