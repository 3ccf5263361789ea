"""Every command's help, what help may import, exit codes, closed pipes and tracebacks."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from idgr.cli.main import app, run

HEAVY = ("torch", "transformers", "tokenizers", "numpy", "polars", "pandas", "sentencepiece", "accelerate")


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of the command tree with its path."""
    command = typer.main.get_command(app) if command is None else command
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    for name in command.list_commands(None):
        yield from commands(command.get_command(None, name), (*path, name))


LEAVES = dict(commands())
GROUPS = sorted({path[:depth] for path in LEAVES for depth in range(len(path))})
by_name = pytest.mark.parametrize("path", LEAVES, ids=" ".join)


def test_there_are_commands() -> None:
    assert ("eval",) in LEAVES


@by_name
def test_docstring_is_one_line_then_an_example_that_parses(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    text = inspect.cleandoc(command.callback.__doc__ or "")
    summary, _, rest = text.partition("\n")
    assert summary.endswith(".")
    assert rest.startswith("\n"), "a blank line stands after the one-line summary"
    examples = [" ".join(part.split()) for part in rest.split("Example:")[1:]]
    assert examples, "an `Example: idgr …` stands in the docstring"
    for example in examples:
        ours = [shlex.split(part) for part in example.split("|") if part.strip().startswith("idgr ")]
        assert ours, f"{example!r} calls idgr"
        for words in ours:
            assert tuple(words[1 : len(path) + 1]) == path
            # Raises where an argument is missing or an option does not exist.
            command.make_context(words[0], words[len(path) + 1 :])


@by_name
def test_every_option_has_a_short_help(path: tuple[str, ...]) -> None:
    for parameter in LEAVES[path].params:
        if "--help" not in parameter.opts:
            assert parameter.help, f"{parameter.opts} has a help text"
            assert len(parameter.help) <= 160, f"the help of {parameter.opts} is short"


@pytest.mark.parametrize("path", [*GROUPS, *LEAVES], ids=lambda path: " ".join(path) or "idgr")
def test_help_is_shown(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr()
    assert "Usage: " + " ".join(("idgr", *path)) in " ".join(shown.out.split())
    assert shown.err == ""


def test_no_help_imports_anything_heavy() -> None:
    script = f"""
import sys
from idgr.cli.main import run
for path in {[list(path) for path in [*GROUPS, *LEAVES]]!r}:
    assert run([*path, "--help"]) == 0
    heavy = sorted(name for name in {HEAVY!r} if name in sys.modules)
    assert not heavy, f"idgr {{' '.join(path)}} --help imports {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("idgr ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["no-such-command"], "No such command"),
        (["eval"], "Missing argument"),
        (["eval", "recs.jsonl", "--no-such-option"], "No such option"),
        (["eval", "recs.jsonl", "--truth", "t.jsonl", "-k", "x"], "Invalid value"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("idgr: error: ")
    assert hint in shown.err
    assert shown.err.count("\n") == 1
    assert "--help" in shown.err


def test_a_traceback_is_shown_with_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "/nowhere/recs.jsonl", "--truth", "/nowhere/test.jsonl", "--no-baselines"]
    assert run(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run(["--debug", *arguments]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("idgr: error: /nowhere/test.jsonl: cannot be read")
    assert run(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err, "--debug holds for its own run only"


def test_a_closed_pipe_is_no_fault(tmp_path: Any) -> None:
    (tmp_path / "test.jsonl").write_text('{"user_id": "u", "history": ["a"], "target": "b"}\n')
    (tmp_path / "recs.jsonl").write_text('{"user_id": "u", "items": ["b"]}\n')
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "idgr", "eval", "recs.jsonl", "--truth", "test.jsonl", "--no-baselines", "-k", "1"],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr


LONG = "x" * 5000
TOO_LONG = [
    f"recommend test.jsonl --rec {LONG} --ids ids.jsonl",
    f"recommend {LONG} --baseline popularity --train {LONG}",
    f"gen-ids {LONG} --model {LONG}",
    f"train-rec {LONG} --ids {LONG} -o rec",
    f"prep jsonl {LONG} --meta {LONG} -o data",
    f"audit {LONG}",
    f"stats {LONG}",
    f"stats data -o {LONG}",
    f"report {LONG} -o page",
    f"export {LONG} --to trec -o out",
    f"blend {LONG} {LONG} --weight 0.5",
]


@pytest.mark.parametrize("words", TOO_LONG, ids=[words.replace(LONG, "LONG") for words in TOO_LONG])
def test_a_name_too_long_for_a_file_is_no_fault_of_idgr(
    words: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words.split()) in (1, 2)
    error = capsys.readouterr().err
    assert "fault in idgr" not in error
    assert len(error.splitlines()) == 1
