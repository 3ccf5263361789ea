"""Every error path of idgr, one by one: each says what is wrong, where, and what to do next.

The paths are found in the source: every call of `IdgrError` or `UsageError`, and every `raise ValueError` of a parser,
whose text a reader turns into an error with file and line (`idgr.errors.faulty_line`). `pytest -v` lists them all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import idgr
from idgr.errors import IdgrError, UsageError, faulty_line, one_line

HOUSE = Path(idgr.__file__).parent

# Errors that no file or folder is at fault for, or whose message names what is; looked at one by one.
WITHOUT_A_PLACE = {
    # Modules that know tokens, tensors and texts, and no files.
    ("decoding/beam.py", "the IDs hold tokens that the model does not have"),
    ("decoding/expansion.py", "the model's scores are not numbers"),
    ("decoding/trie.py", "items {} and {} have the same ID tokens"),
    ("models/compiling.py", "torch.compile does not work here ({})"),
    ("decoding/trie.py", "no IDs to build a prefix tree from"),
    ("decoding/trie.py", "the ID of item {} has no tokens"),
    ("decoding/trie.py", "an ID holds the token that ends IDs"),
    ("ids/assignment.py", "item {} has no free candidate in {} attempts"),
    ("ids/assignment.py", "the recommender's tokenizer cannot spell {}"),
    ("ids/schemes/category.py", "no item has a field {}"),
    ("ids/candidates.py", "the ID generator's probabilities are not numbers"),
    ("models/llama.py", "the longest ID has {} tokens with EOS, but the model has {} places for an item"),
    ("models/tokenizer.py", "no text to learn a vocabulary from"),
    ("prompts/histories.py", "a history of {} tokens cannot hold the longest ID ({} tokens with its end)"),
    ("recommender/calibration.py", "the model's scores are not finite numbers"),
    (
        "prompts/rendering.py",
        "a prompt of {} tokens cannot hold the longest template ({} tokens) and the longest ID ({} tokens)",
    ),
    ("generator/training.py", "the ID {} has no tokens"),
    ("generator/training.py", "{}"),  # the ID that has too many
    ("engine/trainer.py", "no training instances"),
    ("engine/step.py", "{}: the {} is not a number any more (epoch {}, step {}{})"),
    ("models/tokenizer.py", "the recommender's tokenizer reads the ID {} back as {}"),
    ("models/tokenizer.py", "the IDs {} and {} have the same tokens under the recommender's tokenizer"),
    # The message names the model, which need not be a file.
    ("models/hub.py", "cannot load the {} {}: {}"),
    # A package, a process, or an option is at fault.
    ("bench/decode.py", "no targets to score the lists with"),
    ("bench/select.py", "costs lie {} nats apart"),
    ("bench/processes.py", "the contender {} ended with code {}"),
    ("bench/trainers.py", "there are {} training instances, not the {} of all steps"),
    ("bench/commands.py", "pandas, which idgr is compared with, is not installed"),
    ("bench/decode_onnxruntime.py", "--beside onnxruntime needs onnxruntime-genai and onnx, which are not installed"),
    ("bench/decode_ctranslate2.py", "--beside ctranslate2 needs ctranslate2, which is not installed"),
    ("evaluation/report/plots.py", "matplotlib, which a report needs, is not installed"),
    ("ids/schemes/libraries.py", "{} needs {}, which is not installed"),
    ("models/lora.py", "{} needs peft, which is not installed"),
    ("engine/tracking.py", "--track {} needs {}, which is not installed"),
}  # fmt: skip

# `ValueError`s that do not become a message as they are: faults of a caller, or told anew by the function that calls.
NOT_OF_A_PARSER = {
    ("evaluation/scoring.py", "segments need the training sequences"),
    ("evaluation/scoring.py", "user {} of the truth has no target"),
    ("decoding/trie.py", "{} is {}"),
    ("corpus/literals.py", "a line of {} bytes, more than {}"),
    ("corpus/literals.py", "not valid UTF-8 ({})"),
    ("corpus/literals.py", "not a Python literal ({})"),
    ("corpus/literals.py", "not a Python literal (it holds more than values)"),
    ("corpus/literals.py", "not a Python literal of an item (nested too deep)"),
    ("corpus/literals.py", "not a Python literal of an item (it holds a number of thousands of digits)"),
}


class ErrorPath(NamedTuple):
    module: str
    line: int
    kind: str
    arguments: list[ast.expr]
    names: dict[str, ast.expr]

    @property
    def what(self) -> str:
        return text_of(self.arguments[0]) if self.arguments else ""


def text_of(expression: ast.expr | None) -> str:
    """The text of a string, with `{}` for what is put into it; `{}` for any other expression."""
    if isinstance(expression, ast.Constant):
        return str(expression.value)
    if isinstance(expression, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "{}" for part in expression.values)
    return "{}"


def error_paths(source: str, module: str) -> Iterator[ErrorPath]:
    tree = ast.parse(source)
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kind = node.func.id
            if kind in ("IdgrError", "UsageError") or (kind == "ValueError" and id(node) in raised):
                names = {word.arg: word.value for word in node.keywords if word.arg is not None}
                yield ErrorPath(module, node.lineno, kind, node.args, names)


PATHS = [
    path
    for file in sorted(HOUSE.rglob("*.py"))
    if file.name != "errors.py"
    for path in error_paths(file.read_text(encoding="utf-8"), file.relative_to(HOUSE).as_posix())
]
ERRORS = [path for path in PATHS if path.kind != "ValueError"]
PARSERS = [path for path in PATHS if path.kind == "ValueError"]


def faults(path: ErrorPath) -> list[str]:
    """What an error path lacks."""
    if path.kind == "ValueError":
        known = (path.module, path.what) in NOT_OF_A_PARSER
        return [] if known or "; " in path.what else ["no `; what to do`"]
    lacking = []
    todo = path.arguments[1] if len(path.arguments) > 1 else path.names.get("todo")
    if todo is None or text_of(todo) == "":
        lacking.append("no next step")
    if not path.what:
        lacking.append("nothing that is wrong")
    if path.kind == "IdgrError" and "where" not in path.names and (path.module, path.what) not in WITHOUT_A_PLACE:
        lacking.append("no place")
    if "line" in path.names and "where" not in path.names:
        lacking.append("a line of no file")
    return lacking


def _name(path: ErrorPath) -> str:
    return f"{path.module}:{path.line} {path.what[:60]}"


@pytest.mark.parametrize("path", ERRORS, ids=_name)
def test_an_error_says_what_where_and_what_to_do(path: ErrorPath) -> None:
    assert faults(path) == []


@pytest.mark.parametrize("path", PARSERS, ids=_name)
def test_a_parser_says_what_and_what_to_do(path: ErrorPath) -> None:
    assert faults(path) == []


def test_the_reviewed_lists_hold_nothing_that_is_gone() -> None:
    assert {(path.module, path.what) for path in ERRORS} >= WITHOUT_A_PLACE
    assert {(path.module, path.what) for path in PARSERS} >= NOT_OF_A_PARSER


def test_the_rules_find_a_breach() -> None:
    source = """
raise IdgrError("bad")
raise IdgrError(f"bad {x}", "mend it")
raise IdgrError("bad", "mend it", where=path, line=3)
raise UsageError("bad")
raise ValueError("bad")
raise ValueError("bad; mend it")
"""
    found = [faults(path) for path in error_paths(source, "x.py")]
    assert found == [["no next step", "no place"], ["no place"], [], ["no next step"], ["no `; what to do`"], []]


def test_nothing_else_is_raised_at_a_user() -> None:
    """Other exceptions are raised only where a caller of ours is at fault, or the library asks for them."""
    strange = set()
    for file in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                strange.add(node.exc.func.id)
    ours = {"IdgrError", "UsageError", "ValueError", "TooLargeError", "faulty_line", "_cannot_load"}
    ours |= {"cannot_write", "closed_output", "_not_ours", "_odd", "_unreadable", "pickled"}
    ours |= {"StoppedError", "SignalledError", "_saved"}  # told on a signal, with what to do
    assert strange - ours <= {"AssertionError", "AttributeError"}, "add what a user may meet to the rules above"


def test_the_parts_of_a_message() -> None:
    assert str(IdgrError("bad", "mend it", where="x.jsonl", line=3)) == "x.jsonl:3: bad; mend it"
    assert str(IdgrError("bad", "mend it", where="-", line=3)) == "stdin:3: bad; mend it"
    assert (IdgrError("bad").exit_code, UsageError("bad").exit_code) == (1, 2)
    fault = faulty_line(ValueError("item 'a; b' is bad; mend it"), "x", 1)
    assert (fault.what, fault.todo, fault.where, fault.line) == ("item 'a; b' is bad", "mend it", "x", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two\nlines\r\n and\ttabs", "two lines and tabs"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("right \u202eto left\u200f", "right \\u202eto left\\u200f"),
        ("half \ud800", "half \\ud800"),
        ("naïve 手", "naïve 手"),
    ],
)
def test_a_message_is_one_line_that_a_terminal_shows_as_it_is(text: str, expected: str) -> None:
    assert one_line(text) == expected
    assert one_line(text).isprintable()


def test_a_message_has_an_end() -> None:
    message = str(IdgrError(f"item {'x' * 10_000_000!r} is bad", "mend it", where="x.jsonl", line=3))
    assert message.startswith("x.jsonl:3: item 'xxx")
    assert message.endswith("; mend it")
    assert len(message) < 2_100
