"""Hostile input: each is either handled or refused in one line, and nothing is written outside the output.

Properties of the readers are tested with the fuzzer's harnesses (`tests/fuzz`), so that both judge alike.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import idgr
from idgr.cli.main import run
from idgr.models.backbone import PRESETS, Preset

from ..fuzz.harnesses import HARNESSES

HOUSE = Path(idgr.__file__).parent
TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)

KEYS = ["a b", "a/b", "../../escaped", 'q"u\'o`te', "new\nline", "\u202ertl\u200f", "</s>", "{history}", "$(touch ran)",
        "x" * 3000, "\x1b[31m", "\0", " ", "-o", 7]  # fmt: skip
TEXTS = ["</s> tea <pad><unk>", "{history} {user} {{cup}}", "\u202e\0\x1b[31m lamp \u200f", "x" * 10_000_000,
         "<a " * 30_000 + " mug", "&amp;" * 30_000 + " pot", "$(touch ran) `touch ran`; rm -rf *", "../../etc",
         "%s%n{0}\\", "手" * 5000, "<a x='" * 10_000]  # fmt: skip


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setitem(PRESETS, "nano", TINY)


@pytest.mark.usefixtures("tiny")
def test_hostile_metadata_and_keys_go_through_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    here = tmp_path / "in"
    n = len(KEYS)
    users = [{"user_id": f"../{user}\n", "items": [KEYS[(user * 4 + step * 7) % n] for step in range(5)]}
             for user in range(n)]  # fmt: skip
    lines(here / "s.jsonl", users)
    lines(here / "m.jsonl", [{"item_id": key, "title": TEXTS[i % len(TEXTS)], "n": i} for i, key in enumerate(KEYS)])
    few = ["--tokenizer", "gen", "--epochs", "1", "--valid-beams", "10"]
    for command in (
        ["prep", "jsonl", "s.jsonl", "--meta", "m.jsonl", "-o", "data"],
        ["init-gen", "data/items.jsonl", "--epochs", "1", "-o", "gen"],
        ["gen-ids", "data/items.jsonl", "--model", "keyphrase", "--rec-tokenizer", "gen", "-o", "ids.jsonl"],
        ["train-rec", "data/train.jsonl", "--ids", "ids.jsonl", "--valid", "data/valid.jsonl", *few, "-o", "rec"],
        ["recommend", "data/test.jsonl", "--rec", "rec", "--ids", "ids.jsonl", "--beams", "5", "-k", "5", "--prompts",
         "prompts.jsonl", "-o", "recs.jsonl"],
        ["eval", "recs.jsonl", "--truth", "data/test.jsonl", "--train", "data/train.jsonl", "-o", "metrics.json"],
        ["audit", ".", "-o", "audit.json"],
    ):  # fmt: skip
        assert run(command) == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"], "nothing was written outside"
    outputs = {"data", "gen", "ids.jsonl", "rec", "prompts.jsonl", "recs.jsonl", "metrics.json", "audit.json"}
    made = {path.name for path in here.iterdir()} - {"s.jsonl", "m.jsonl"}
    assert {name.removesuffix(".run.json") for name in made} == outputs
    keys = [json.loads(line)["item_id"] for line in (here / "ids.jsonl").read_text().splitlines()]
    assert keys == [str(key) for key in KEYS], "keys come through as they are"
    ids = [json.loads(line)["id"] for line in (here / "ids.jsonl").read_text().splitlines()]
    assert max(map(len, ids)) < 300
    # What spells the end of a sequence, or a slot, in an item's text is neither in a prompt.
    for line in (here / "prompts.jsonl").read_text().splitlines():
        assert json.loads(line)["tokens"].count(1) == 1, "one </s>, at the end"
        assert "{" not in json.loads(line)["text"]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (b'{"item_id": "a", "n": NaN}', "item 'a' has no text"),  # NaN and infinities are nothing
        (b'{"item_id": "a", "n": -Infinity}', "item 'a' has no text"),
        (b'{"item_id": NaN}', '"item_id" is not a non-empty string'),
        (b'{"item_id": "a", "n": nan}', "not valid JSON"),
        (b'{"item_id": "a", "n": ' + b"[" * 5000 + b"]" * 5000 + b"}", "not valid JSON"),
        (b'{"item_id": "a", "n": "\\ud800"}', "not valid JSON"),
        (b'{"item_id": "a", "n": "\xff"}', "not valid JSON"),
        (b'{"item_id": "a", "n": "\x00"}', "not valid JSON"),
        (b'{"item_id": {"a": 1}}', '"item_id" is not a non-empty string'),
        (b'{"item_id": 1.5}', '"item_id" is not a non-empty string'),
        (b'{"item_id": ""}', '"item_id" is not a non-empty string'),
        (b'{1: "a"}', "not valid JSON"),
        (b"a: &a [*a]", "not valid JSON"),
        (b"\x80\x04K\x01.", "not valid JSON"),
    ],
)
def test_what_no_stage_takes_is_refused_with_its_line(
    line: bytes, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"item_id": "ok", "title": "tea"}\n' + line + b"\n")
    assert run(["gen-ids", str(path), "--model", "keyphrase", "-o", str(tmp_path / "ids.jsonl")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"idgr: error: {path}:2: {hint}")
    assert "; " in said
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]


def test_deep_nesting_and_large_numbers_that_are_json_are_taken(tmp_path: Path) -> None:
    deep = "[" * 900 + '"x"' + "]" * 900
    (tmp_path / "m.jsonl").write_text(f'{{"item_id": "a", "t": {deep}, "n": 1e308, "m": {10**15}}}\n')
    assert run(["gen-ids", str(tmp_path / "m.jsonl"), "--model", "keyphrase", "-o", str(tmp_path / "ids.jsonl")]) == 0


def test_links_in_place_of_outputs_are_replaced_and_their_targets_kept(tmp_path: Path) -> None:
    lines(tmp_path / "m.jsonl", [{"item_id": "a", "title": "tea"}])
    lines(tmp_path / "s.jsonl", [{"user_id": "u", "items": ["a", "a", "a"]}])
    (tmp_path / "precious.txt").write_text("keep")
    (tmp_path / "ids.jsonl").symlink_to("precious.txt")
    assert run(["gen-ids", str(tmp_path / "m.jsonl"), "--model", "keyphrase", "-o", str(tmp_path / "ids.jsonl")]) == 0
    assert (tmp_path / "precious.txt").read_text() == "keep"
    assert not (tmp_path / "ids.jsonl").is_symlink()

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run.json").write_text("{}")
    (tmp_path / "elsewhere" / "mine").write_text("keep")
    (tmp_path / "data").symlink_to("elsewhere")
    command = ["prep", "jsonl", str(tmp_path / "s.jsonl"), "--meta", str(tmp_path / "m.jsonl")]
    assert run([*command, "-o", str(tmp_path / "data")]) == 0
    assert (tmp_path / "elsewhere" / "mine").read_text() == "keep"
    assert not (tmp_path / "data").is_symlink()


def test_a_name_that_is_not_utf8_is_read_and_recorded(tmp_path: Path) -> None:
    strange = tmp_path / "m\udcff.jsonl"
    lines(strange, [{"item_id": "a", "title": "tea"}])
    assert run(["gen-ids", str(strange), "--model", "keyphrase", "-o", str(tmp_path / "ids.jsonl")]) == 0
    record = json.loads((tmp_path / "ids.jsonl.run.json").read_text())
    assert record["inputs"]["items"]["path"].endswith("m\\xff.jsonl")


BYTES = st.binary(max_size=400)
# Pieces of what the readers know, so that chance gets further than the first bracket.
PIECES = st.lists(
    st.sampled_from(
        [b'{"user_id": ', b'"u"', b', "items": [', b'"a"', b"]", b"}", b"\n", b', "item_id": ', b', "timestamp": ',
         b"1", b'"title": ', b"{'asin': ", b"1::2::3::4", b"userId,movieId,rating,timestamp\n", b"{history}", b"\xff",
         b"\r", b'"', b"\\", b"\0", b"1e999", b"-1", b"null", b"[", b"{"]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in HARNESSES if name not in ("command-line", "audit")])
@settings(derandomize=True, deadline=None, max_examples=80)
@given(which=st.integers(0, 13), data=BYTES | PIECES)
@example(which=0, data=b"")
def test_no_bytes_crash_a_reader(name: str, which: int, data: bytes) -> None:
    HARNESSES[name](bytes([ord("0") + which]) + data if name in ("records", "raw") else data)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(which=st.integers(0, 13), data=st.binary(max_size=60) | PIECES)
def test_no_bytes_crash_the_audit(which: int, data: bytes) -> None:
    HARNESSES["audit"](bytes([ord("0") + which]) + data)


WORDS = st.sampled_from(
    ["eval", "prep", "jsonl", "gen-ids", "recommend", "ids", "diff", "audit", "recs.jsonl", "test.jsonl", "items.jsonl",
     "train.jsonl", "--truth", "--train", "--model", "keyphrase", "-o", "out", "-", "-k", "0", "5", "--meta",
     "--baseline", "markov", "--no-baselines", "--help", "--debug", "--seed", "nan", "--items", "--ids", "ids.jsonl"]
) | st.text(max_size=8)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=60)
@given(words=st.lists(WORDS, max_size=9))
def test_no_command_line_crashes(words: list[str]) -> None:
    HARNESSES["command-line"]("\n".join(words).encode(errors="replace"))


DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
DANGEROUS_ATTRIBUTES = {
    ("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("pickle", "load"), ("pickle", "loads"),
    ("torch", "load"), ("joblib", "load"), ("yaml", "load"), ("marshal", "loads"), ("shelve", "open"),
}  # fmt: skip
DANGEROUS_IMPORTS = {"pickle", "marshal", "shelve", "joblib", "yaml", "dill", "cloudpickle"}


def dangers(source: str) -> list[str]:
    """Ways from data to code or a shell in a module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in DANGEROUS_CALLS:
                found.append(f"line {node.lineno}: {called.id}()")
            if isinstance(called, ast.Attribute) and (ast.unparse(called.value), called.attr) in DANGEROUS_ATTRIBUTES:
                found.append(f"line {node.lineno}: {ast.unparse(called)}()")
            for word in node.keywords:
                if word.arg in ("shell", "trust_remote_code", "allow_pickle", "weights_only"):
                    wanted = word.arg == "weights_only"
                    if not (isinstance(word.value, ast.Constant) and word.value.value is wanted):
                        found.append(f"line {node.lineno}: {word.arg}=")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in DANGEROUS_IMPORTS]
    return found


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_no_input_can_reach_a_shell_or_an_interpreter(path: Path) -> None:
    assert dangers(path.read_text(encoding="utf-8")) == []


def test_the_rule_finds_dangers() -> None:
    source = "import pickle\neval(x)\nos.system(x)\nsubprocess.run(x, shell=True)\nf(trust_remote_code=flag)\n"
    assert len(dangers(source)) == 5
    assert dangers("f(trust_remote_code=False)\nsubprocess.run([x])\nast.literal_eval(x)\n") == []
