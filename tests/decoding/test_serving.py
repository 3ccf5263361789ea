"""`idgr export --to transformers`: `generate` gives the lists of `idgr recommend`; what cannot be exported is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.decoding.constraint import Constraint, RequestConstraint, Tree
from idgr.decoding.trie import build_trie
from idgr.formats.jsonl import write_json, write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RunInfo
from idgr.models.backbone import Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.recommender.item_head import new_item_head
from idgr.recommender.item_head_file import save_item_head
from idgr.recommender.serving import write_tree

from ..cli.test_pretrained_causal import byte_level_tokenizer
from ..docs.pages import blocks_of
from .oracle import EOS, DictionaryTrie, random_ids, tiny_llama

COLOURS = ["red", "blue", "green", "black", "white"]
THINGS = ["brush", "brush kit", "soap", "towel", "lamp shade", "comb"]
OLD = [ItemId(f"i{n}", f"{COLOURS[n // 6]} {THINGS[n % 6]}") for n in range(30)]
NEW = [ItemId("n0", "red"), ItemId("n1", "lamp towel"), ItemId("n2", "comb")]
TEMPLATES = ["history: {history}; next:", "after {history}, one picks"]
# None, some, more than are shown, longer than a prompt, and so many that fewer than 20 items are left.
HISTORIES = [[], [4, 9], [3, 8, 2, 7, 29], [11, 11, 5], [*range(6, 24, 3)], [*range(16)]]
FACTS = {"objective": "full", "templates": [], "max_history": 4, "max_prompt_tokens": 24, "arch": "causal"}


def save(folder: Path, *, head: str = "", slots: int = 0, **facts: object) -> Path:
    """A recommender of random weights; with an item head, or one that tells items."""
    folder.mkdir()
    told = FACTS | facts
    words = [record.id for record in OLD]
    tokenizer = byte_level_tokenizer() if told.get("separator") == "newline" else train_tokenizer(words, 400)
    if told["arch"] == "t5":
        told |= {"templates": TEMPLATES, "max_prompt_tokens": 64}
        backbone = new_backbone(Preset(16, 32, 1, 2, 8, 400), train_tokenizer([*words, *TEMPLATES], 400), seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in backbone.model.parameters():  # logits a few units wide
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    else:
        if told.get("separator") == "newline":  # bytes are many tokens
            told["max_prompt_tokens"] = 60
        backbone = Backbone(tiny_llama(2, len(tokenizer), item_slots=slots), tokenizer)
    save_backbone(backbone, folder)
    write_jsonl(folder / "ids.jsonl", (record.row() for record in OLD))
    if head:
        rows, model = id_tokens(tokenizer, words), backbone.model
        made = new_item_head(model, rows, 1.0, 0.0, 3, EOS, tells=head == "tells").head  # type: ignore[arg-type]
        with torch.no_grad():
            made.query.weight.normal_(generator=torch.Generator().manual_seed(4))
        save_item_head(made, [record.item_id for record in OLD], folder)
        told["item_head"] = {"weight": 1.0, "lambda": 0.6}
    RunInfo("train-rec", {}, {}, 0, told | {"ids_fingerprint": ids_fingerprint(OLD)}).write(folder)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder with data/test.jsonl, where the page's Python may import what it likes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "data").mkdir()
    rows = [{"user_id": f"u{n}", "history": [f"i{item}" for item in row]} for n, row in enumerate(HISTORIES)]
    write_jsonl(tmp_path / "data" / "test.jsonl", rows)
    yield tmp_path
    sys.modules.pop("constraint", None)


@pytest.mark.parametrize(
    ("facts", "more"),
    [
        ({"arch": "t5", "objective": "full"}, []),
        ({"arch": "t5", "objective": "trie"}, []),
        ({"objective": "full"}, []),
        ({"objective": "trie"}, []),
        ({"objective": "full", "separator": "newline"}, []),
        ({"objective": "full", "head": "ranks"}, ["--item-head-weight", "0"]),
    ],
    ids=["t5-full", "t5-trie", "full", "trie", "newline", "item-head"],
)
@pytest.mark.parametrize("grown", [False, True])
def test_generate_gives_the_lists_of_recommend(
    facts: dict[str, Any], more: list[str], grown: bool, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the Python of docs/serving.md."""
    save(place / "rec", **facts)
    if grown:
        write_jsonl(place / "grown.jsonl", (record.row() for record in [NEW[0], *OLD, *NEW[1:]]))
    ids = ["--ids", "grown.jsonl"] if grown else []
    asked = ["data/test.jsonl", "--rec", "rec", "-k", "20", "--device", "cpu", "-o", "recs.jsonl"]
    assert run(["recommend", *asked, *ids, *more]) == 0
    capsys.readouterr()
    assert run(["export", "rec", "--to", "transformers", *ids, "-o", "served"]) == 0
    err = capsys.readouterr().err
    assert ("export: without the item head, as" in err) == bool(more)
    assert f"export: rec with {33 if grown else 30} items for transformers in served\n" in err

    (code,) = [block for language, block in blocks_of("serving.md") if language == "python"]
    cells: dict[str, Any] = {}
    exec(compile(code, "serving.md", "exec"), cells)  # noqa: S102 - our own page
    wanted = lines(place / "recs.jsonl")
    assert [len(row["items"]) for row in wanted] == [20] * 5 + [17 if grown else 14]
    for row, ours in zip(cells["lists"], wanted, strict=True):
        assert [item for item, _ in row] == ours["items"]
        np.testing.assert_allclose([score for _, score in row], ours["scores"], atol=1e-4)


def test_fewer_beams_and_items_of_the_history(place: Path) -> None:
    from transformers import AutoModelForCausalLM

    save(place / "rec")
    assert run(["export", "rec", "--to", "transformers", "--beams", "5", "-o", "served"]) == 0
    asked = ["data/test.jsonl", "--rec", "rec", "-k", "5", "--beams", "5", "--keep-history", "--device", "cpu"]
    assert run(["recommend", *asked, "-o", "recs.jsonl"]) == 0
    tree, model = Tree("served"), AutoModelForCausalLM.from_pretrained("served").eval()
    (row,) = [row for row in lines(place / "recs.jsonl") if row["user_id"] == "u0"]
    prompt = torch.tensor([tree.prompt([])])
    made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), logits_processor=[Constraint(tree)])
    assert [OLD[tree.line(one)].item_id for one in made[:, prompt.shape[1] :].tolist()] == row["items"]
    assert json.loads((place / "served" / "run.json").read_text())["options"] == {"to": "transformers", "beams": 5}


def changed(folder: Path) -> list[str]:
    write_jsonl(folder / "ids.jsonl", (record.row() for record in [ItemId("i0", "soap"), *OLD[1:]]))
    return ["--ids", str(folder / "ids.jsonl")]


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ({"slots": 9}, None, "rec: begins an item every 9 places (item_slots), where other programs count places"),
        ({"head": "tells"}, None, "rec: reads a vector of each item beside its ID (--tell-items); export one"),
        ({"user_ids": "history", "arch": "t5"}, None, "rec: its prompts begin with users' IDs"),
        ({}, changed, "ids.jsonl: item 'i0' has the ID 'soap', but had 'red brush' when rec was trained"),
        ({"max_prompt_tokens": 2}, None, "a history of 2 tokens cannot hold the longest ID"),
        ({"objective": "none"}, None, "rec: its run.json tells objective"),
    ],
    ids=["item-slots", "tells", "user-ids", "changed", "short", "facts"],
)
def test_what_cannot_be_exported(
    made: dict[str, Any],
    options: Callable[[Path], list[str]] | None,
    message: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(place / "rec", **made)
    more = options(place) if options is not None else []
    assert run(["export", "rec", "--to", "transformers", *more, "-o", "served"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "--force" not in err
    assert not (place / "served").exists()


def test_a_damaged_or_lost_head(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "rec", head="ranks")
    words = ["export", "rec", "--to", "transformers", "-o", "served"]
    (place / "rec" / "item_head.safetensors").write_bytes(b"no tensors")
    assert run(words) == 1
    assert "rec: holds no usable item head (its item_head.safetensors cannot be read" in capsys.readouterr().err
    (place / "rec" / "item_head.safetensors").unlink()
    assert run(words) == 1
    assert "rec: holds no item_head.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value"), [("--ids", "ids.jsonl"), ("--beams", "5")])
def test_options_of_other_programs(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "data", "--to", "recbole", flag, value, "-o", "out"]) == 2
    assert f"{flag} does not go with --to recbole; leave it out, or give --to transformers" in capsys.readouterr().err


def served(folder: Path, ids: Sequence[Sequence[int]], normalize: str) -> Tree:
    write_tree(build_trie(ids, EOS), folder / "tree.safetensors")
    write_json(folder / "prompt.json", {"end": EOS, "normalize": normalize})
    return Tree(folder)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), items=st.integers(1, 60), normalize=st.sampled_from(["full", "trie"]))
def test_the_tree_is_that_of_dictionaries(
    seed: int, items: int, normalize: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    generator = np.random.default_rng(seed)
    ids = random_ids(generator, items, longest=8)
    tree, plain = served(tmp_path_factory.mktemp("tree"), ids, normalize), DictionaryTrie(ids, range(items))
    seen = [ids[item] for item in generator.integers(0, items, size=items // 2)]
    left = DictionaryTrie(ids, [item for item in range(items) if ids[item] not in seen])
    constraint, empty = RequestConstraint(tree, seen), set(tree.empty(seen).tolist())
    logits = torch.from_numpy(generator.normal(size=40).astype(np.float32))

    nodes = {(*row, EOS)[:length] for row in ids for length in range(len(row) + 2)}
    assert len(nodes) == len(tree.below) == len(tree.item) == len(tree.first) - 1
    for prefix in nodes:
        *_, node = path = tree.path(prefix)
        assert len(path) == len(prefix) + 1
        assert tree.children(node)[0].tolist() == plain.children(prefix)
        below = [item for item, row in enumerate(ids) if (*row, EOS)[: len(prefix)] == prefix]
        assert tree.below[node] == len(below)
        assert tree.line(prefix) == (below[0] if prefix[-1:] == (EOS,) else -1)
        assert (node in empty) == all(ids[item] in seen for item in below)
        kept = constraint(prefix, logits)
        assert torch.isfinite(kept).nonzero().flatten().tolist() == left.children(prefix)
        children = plain.children(prefix)
        wanted = logits[children].log_softmax(0) if normalize == "trie" else logits[children]
        for token, value in zip(children, wanted.tolist(), strict=True):
            assert token not in left.children(prefix) or kept[token].item() == pytest.approx(value)
    assert tree.line([*ids[0], EOS, 0, 0]) == 0
    assert not torch.isfinite(constraint([0, 0], logits)).any()
