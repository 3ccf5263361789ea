"""What the fuzzer calls: each harness takes bytes, gives them to a reader as input, and judges what comes of it.

An input may be refused, in one line that says what to do; it may not crash a reader, hang it, or make it write outside
its output. Knows the readers; how inputs are found it does not (`python -m tests.fuzz`, and the corpus in the tests).
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from idgr.cli.main import run
from idgr.corpus.literals import parse_literal
from idgr.corpus.metadata import describe_items
from idgr.corpus.preparation import PrepOptions, prepare
from idgr.corpus.sources import amazon, jsonl, movielens, yelp
from idgr.corpus.text import plain_text
from idgr.errors import IdgrError
from idgr.evaluation.audit.verdict import all_checks
from idgr.formats import records
from idgr.formats.jsonl import Lines, dump_line, read_jsonl
from idgr.formats.records import Item
from idgr.formats.run_info import read_run
from idgr.prompts.templates import load_templates, split_template

_OUTSIDE = re.compile(r"^(-\w|[^=]*=)?/|\.\.")
SOURCES = (amazon, jsonl, movielens, yelp)


def _seed_choice(data: bytes, n: int) -> tuple[int, bytes]:
    """The first byte chooses; digits and letters in a readable corpus count on from `0`."""
    return ((data[0] - ord("0")) % n, data[1:]) if data else (0, b"")


@contextlib.contextmanager
def _stdin(data: bytes) -> Iterator[None]:
    before = sys.stdin
    sys.stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data)))  # type: ignore[assignment, arg-type]
    try:
        yield
    finally:
        sys.stdin = before


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Let errors pass that a user can do something with; any other is a finding."""
    try:
        yield
    except IdgrError as fault:
        _judge(fault)


def _judge(fault: IdgrError) -> None:
    message = str(fault)
    assert message.isprintable(), f"a message of one printable line: {message!r}"
    assert fault.what, f"a message that says what is wrong: {message!r}"
    assert fault.todo, f"a message that says what to do: {message!r}"
    assert fault.where is not None, f"a message that says where: {message!r}"


def read_records(data: bytes) -> None:
    """Every reader of what crosses between stages."""
    which, content = _seed_choice(data, 7)
    readers: list[Callable[[], Any]] = [
        lambda: records.read_items("-"),
        lambda: records.read_ids("-"),
        lambda: records.read_sequences("-", {"a", "b", "1"}),
        lambda: list(records.read_queries("-", need_target=True)),
        lambda: list(records.read_queries("-", {"a", "b", "1"}, allow_empty=True)),
        lambda: list(records.read_recommendations("-", {"a", "b", "1"}, {"u", "v"})),
        lambda: [dump_line(row) for row in read_jsonl("-", lambda row: row)],
    ]
    with _stdin(content), refusing():
        for record in readers[which]():
            if which < 6:
                orjson.loads(dump_line(record.row()))


def read_packed(data: bytes) -> None:
    """Bytes as a gzip file."""
    with tempfile.NamedTemporaryFile(suffix=".gz", dir=_memory()) as file:
        file.write(data)
        file.flush()
        with refusing():
            for _ in Lines(file.name):
                pass


def read_raw(data: bytes) -> None:
    """Events and metadata of every source, through the whole preparation."""
    which, content = _seed_choice(data, 2 * len(SOURCES))
    source = SOURCES[which // 2]
    with _stdin(content), refusing():
        if which % 2:
            for item in describe_items(source.read_entries("-"), None, source.FIELDS, duplicates=True).values():
                assert "\n" not in item.text
                dump_line(item.row())
            return
        events = source.read_events("-")
        prepared = prepare(
            events,
            lambda wanted: {item: Item(item, "x") for item in events.items if wanted is None or item in wanted},
            PrepOptions(k_core=0, allow_sorted=True),
        )
        users = prepared.split.histories.users
        whole = {users[user]: items for user, items in prepared.split._users()}
        for sequence in prepared.split.train():
            assert sequence.items == whole[sequence.user_id][: len(sequence.items)]
        for query in prepared.split.test():
            assert [*query.history, query.target] == whole[query.user_id]


def make_text(data: bytes) -> None:
    """A record of metadata, in JSON or as a Python literal, to plain text."""
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            record = parse_literal(data)
        except ValueError:
            return
        # The parser must have met nothing but values.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.literal_eval(data.decode())
    if isinstance(record, dict):
        text = plain_text(record)
        assert text == " ".join(text.split())
        text.encode()


def read_templates(data: bytes) -> None:
    """A file of prompt templates."""
    with _stdin(data), refusing():
        for template in load_templates("-"):
            before, after = split_template(template)
            assert template.count("{history}") >= 1
            assert isinstance(before + after, str)


def read_run_file(data: bytes) -> None:
    """A `run.json` of anyone's making."""
    folder = Path(_memory())
    path = folder / f"fuzz-{os.getpid()}.run.json"
    path.write_bytes(data)
    try:
        with refusing():
            read_run(path.with_name(path.name.removesuffix(".run.json")))
    finally:
        path.unlink()


_AUDITED = (
    "published/user_sequence.txt",
    "published/item_plain_text.txt",
    "published/user_generative_index_phase_0.txt",
    "published/item_generative_indexing_phase_0.txt",
    "stages/data/run.json",
    "stages/data/stats.json",
    "stages/ids.jsonl.run.json",
    "stages/ids.jsonl",
    "stages/rec/run.json",
    "stages/recs.jsonl.run.json",
    "stages/metrics.json.run.json",
    "stages/metrics.json",
    "stages/run.json",
    "stages/metrics.jsonl",
)


def audit_folder(data: bytes) -> None:
    """A folder for `idgr audit` with one file of anyone's making; the first byte says which."""
    which, content = _seed_choice(data, len(_AUDITED))
    with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
        folder = Path(scratch)
        _write_shop(folder / "stages" / "data")
        (folder / "published").mkdir()
        (folder / "published" / "user_sequence.txt").write_text("u a b c\nv c b a\n")
        (folder / "published" / "item_plain_text.txt").write_text("a red tea\nb green tea\nc ice\n")
        for name in ("rec", "final"):
            (folder / "stages" / name).mkdir()
        for name in ("ids.jsonl", "recs.jsonl"):
            shutil.copy(folder / "stages" / "data" / name, folder / "stages" / name)
        if content:
            (folder / _AUDITED[which]).write_bytes(content)
        with refusing():
            checks, _ = all_checks(folder / _AUDITED[which].split("/")[0], None)
            for check in checks:
                assert check.verdict in ("PASS", "FAIL", "SKIP", "WARN")
                assert check.evidence


def command_line(data: bytes) -> None:
    """Words after `idgr`, one a line, where a few small files lie. Words that could reach elsewhere are passed over."""
    words = data.decode(errors="replace").split("\n")
    if _is_out_of_play(words):
        return
    with _shop() as folder:
        before = _listing(folder.parent)
        said = io.StringIO()
        out = io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out), _stdin(b'{"user_id": "u"}\n'):
            code = run(words)
        message = said.getvalue()
        assert code in (0, 1, 2), f"exit code {code}: {message}"
        assert "this is a fault in idgr" not in message, message
        assert "Traceback" not in message or "--debug" in words, message
        lines = [line for line in message.splitlines() if line.startswith("idgr: error:")]
        assert len(lines) == (code != 0) or (code == 2 and not lines), message
        assert _listing(folder.parent) == before, "nothing beside the folder was touched"


def _is_out_of_play(words: list[str]) -> bool:
    """Commands that work for long or load models, and names outside the folder, where nothing may be written."""
    outside = any(_OUTSIDE.search(word) or "\0" in word or len(word) > 200 for word in words)
    large = any(sum(letter.isdigit() for letter in word) > 4 for word in words)
    works = {"bench", "alternate", "init-gen", "train-rec", "train-gen", "zeroshot", "demo"}
    slow = not works.isdisjoint(words)
    models = ("--model", "--rec", "--gen", "--tokenizer", "--force")
    loads = any(word.startswith(models) for word in words) or "gen-ids" in words
    return outside or large or slow or (loads and "keyphrase" not in words)


@contextlib.contextmanager
def _shop() -> Iterator[Path]:
    """A scratch folder, made the current one, with a file of each kind."""
    home = Path.cwd()
    outer = Path(tempfile.mkdtemp(dir=_memory()))
    folder = outer / "in"
    _write_shop(folder)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(home)
        shutil.rmtree(outer)


def _write_shop(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text('{"item_id": "a", "text": "red tea"}\n{"item_id": "b", "text": "green tea"}\n')
    (folder / "train.jsonl").write_text('{"user_id": "u", "items": ["a", "b"]}\n')
    (folder / "test.jsonl").write_text('{"user_id": "u", "history": ["a"], "target": "b"}\n')
    (folder / "recs.jsonl").write_text('{"user_id": "u", "items": ["b"]}\n')
    (folder / "ids.jsonl").write_text('{"item_id": "a", "id": "red"}\n{"item_id": "b", "id": "green"}\n')
    (folder / "sequences.jsonl").write_text('{"user_id": "u", "items": ["a", "b", "a", "b"]}\n')


def _listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _memory() -> str | None:
    """Where files cost no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - the names are unique


HARNESSES: dict[str, Callable[[bytes], None]] = {
    "records": read_records,
    "packed": read_packed,
    "raw": read_raw,
    "text": make_text,
    "templates": read_templates,
    "run-file": read_run_file,
    "audit": audit_folder,
    "command-line": command_line,
}
