"""Only a command's own earlier output gives its place to `-o`; all else is kept, and told before the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgr.cli.main import run

from .test_faults import PREP, contents, idgr


@pytest.mark.parametrize("name", ["notes.txt", "raw.jsonl", ".hidden"])
def test_what_is_not_of_the_command_is_never_deleted(name: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["export", "data", "--to", "trec", "-o", "exported"]
    assert run(PREP) == 0
    assert run([*export[:3], "cornac", *export[4:]]) == 0
    for words in (export, PREP):
        assert run(words) == 0, "its own earlier output is replaced"
        (shop / words[-1] / name).write_text("mine")
        before = contents(shop)
        capsys.readouterr()
        assert run(words) == 1
        assert f"{words[-1]}: holds {name}, which `idgr " in capsys.readouterr().err
        assert contents(shop) == before
    assert run([*PREP[:-1], "exported"]) == 1
    assert "holds another output of idgr, made by `idgr export`" in capsys.readouterr().err
    assert contents(shop) == before


def test_inputs_are_not_replaced_by_what_is_made_of_them(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PREP) == 0
    before = contents(shop)
    for words in (
        ["prep", "jsonl", "data/train.jsonl", "--meta", "data/items.jsonl", "-o", "data"],
        ["prep", "fuse", "data", "data", "-o", "data"],
        ["export", "data", "--to", "trec", "-o", "data"],
        ["zeroshot", "data", "--gen", "gen", "--rec", "rec", "-o", "data"],
        ["report", "data", "-o", "data"],
        ["train-sasrec", "data/train.jsonl", "-o", "data", "--overwrite"],
        ["alternate", "data", "--gen", "gen", "-o", "data", "--overwrite"],
    ):
        capsys.readouterr()
        assert run(words) == 2
        assert "data would take the place of " in capsys.readouterr().err
        assert contents(shop) == before


@pytest.mark.parametrize("output", ["", ".", "..", "/", "../here"])
def test_no_folder_that_one_is_in_is_replaced(
    output: str, shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*PREP[:-1], "here"]) == 0
    monkeypatch.chdir("here")
    before = contents(shop)
    for words in (
        ["prep", "jsonl", "../s.jsonl", "--meta", "../m.jsonl", "--overwrite"],
        ["train-sasrec", "../train.jsonl"],
        ["train-sasrec", "../train.jsonl", "--overwrite"],
    ):
        if output == "../here" and words[0] != "prep":
            continue  # another command's, which is told first
        capsys.readouterr()
        assert run([*words, "-o", output]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        told = (f"-o {output!r} is no name of its own", f"-o {output} is the current folder", "would take the place of")
        assert any(words in said for words in told)
        assert contents(shop) == before


def test_a_place_that_takes_no_output_is_told_before_the_work(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of the inputs is there, so work would be told of first."""
    (shop / "file").touch()
    for words in (
        ["eval", "none", "--truth", "none", "--no-baselines"],
        ["blend", "none", "none", "--truth", "none"],
        ["compare", "none", "nil"],
        ["stats", "none"],
        ["audit", "none"],
        ["ids", "diff", "none", "none", "--items", "none"],
        ["ids", "purity", "none", "--items", "none"],
        ["import", "none"],
        ["recommend", "none", "--baseline", "popularity", "--train", "none"],
        ["gen-ids", "none", "--model", "keyphrase"],
        ["bench", "prep", "none"],
    ):
        for output, what in ((".", "is a folder"), ("file/x", "cannot be written (Not a directory)")):
            capsys.readouterr()
            assert run([*words, "-o", output]) == 1
            assert f"{output}: {what}" in capsys.readouterr().err
    assert {path.name for path in shop.iterdir()} == {"s.jsonl", "m.jsonl", "train.jsonl", "file"}


def test_names_that_are_not_utf8_work_or_are_refused_at_once(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "d\udcff"
    assert run([*PREP[:-1], odd]) == 0
    assert run([*PREP[:-1], odd]) == 0, "its own output is known again"
    for words in (
        ["export", odd, "--to", "recbole", "-o", f"{odd}-recbole"],
        ["export", odd, "--to", "recbole", "-o", f"{odd}-recbole"],
        ["gen-ids", f"{odd}/items.jsonl", "--model", "keyphrase", "-o", f"{odd}.jsonl.gz"],
        ["ids", "diff", f"{odd}.jsonl.gz", f"{odd}.jsonl.gz", "--items", f"{odd}/items.jsonl", "-o", f"{odd}-diff"],
        ["recommend", f"{odd}/test.jsonl", "--baseline", "markov", "--train", f"{odd}/train.jsonl", "-o", f"{odd}-r"],
    ):
        assert run(words) == 0, capsys.readouterr().err
    done = idgr(["eval", f"{odd}-r", "--truth", f"{odd}/test.jsonl", "--no-baselines", "-o", f"{odd}-m"])
    assert done.returncode == 0, done.stderr
    made = contents(shop)
    for words in (
        ["stats", odd],
        ["audit", odd],
        ["compare", f"{odd}-u", "none"],
        ["prep", "fuse", odd, "none", "-o", "fused"],
        ["report", odd, "-o", "page"],
        ["train-sasrec", "none", "-o", f"{odd}-s"],
        ["train-two-tower", "none", "-o", f"{odd}-s"],
        ["init-gen", "none", "-o", f"{odd}-s"],
        ["alternate", "none", "--gen", "none", "-o", f"{odd}-s"],
        ["gen-ids", "m.jsonl", "--model", odd, "-o", "x"],
        ["zeroshot", odd, "--gen", odd, "--rec", odd, "-o", "x"],
    ):
        capsys.readouterr()
        assert run(words) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert " is not UTF-8, as " in said
        assert contents(shop) == made
