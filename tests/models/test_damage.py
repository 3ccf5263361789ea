"""Folders with odd settings and damage: recommending from one ends in right lists, or in one line and exit code 1.

`python -m tests.models.test_damage COUNT SEED` tries more of them, so many of each kind of folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idgr.cli.main import run
from idgr.formats.adapter_folder import weights_hash
from idgr.formats.rec_folder import RecommenderFacts, write_seen_tokens
from idgr.formats.records import ids_fingerprint, read_ids
from idgr.formats.run_info import RunInfo

from ..decoding.oracle import score_every_item, tiny_llama, tiny_t5
from ..hostile.damage import damaged_variants

WORDS = ("red nail polish", "blue nail polish", "chi pro dryer", "aloe cream", "soap", "red soap", "blue dryer")
ITEMS = [f"I{number}" for number in range(len(WORDS))]
HISTORIES = [["I0"], ["I2", "I3"], []]
K = 3
MOST_WEIGHT = 1e4  # of a model whose scores are compared


@dataclass(frozen=True)
class Shop:
    """The files of a shop, and a folder of each of four kinds that recommends in it."""

    place: Path
    folders: dict[str, Path]

    def arguments(self, kind: str, folder: Path, output: Path) -> list[str]:
        given = ["recommend", str(self.place / "histories.jsonl"), "-k", str(K), "-o", str(output)]
        given += ["--device", "cpu", "--rec", str(self.folders["llama"] if kind == "adapter" else folder)]
        if kind != "sasrec":
            given += ["--ids", str(self.place / "ids.jsonl"), "--prompts", f"{output}.prompts"]
        return given + (["--adapter", str(folder)] if kind == "adapter" else [])


def make_shop(place: Path) -> Shop:
    from idgr.models.backbone import Backbone, save_backbone
    from idgr.models.lora import add_lora, save_adapter
    from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
    from idgr.models.tokenizer import encode, train_tokenizer

    rows = [{"item_id": item, "id": words} for item, words in zip(ITEMS, WORDS, strict=True)]
    (place / "ids.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    asked = [{"user_id": f"u{number}", "history": history} for number, history in enumerate(HISTORIES)]
    (place / "histories.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked))
    tokenizer = train_tokenizer([*WORDS, "what comes next"], 400)
    known = ids_fingerprint(read_ids(place / "ids.jsonl"))
    folders = {kind: place / kind for kind in ("t5", "llama", "sasrec", "adapter")}
    for folder in folders.values():
        folder.mkdir()
    models = {"t5": tiny_t5(3, len(tokenizer)), "llama": tiny_llama(3, len(tokenizer), item_slots=40)}
    for kind, model in models.items():
        save_backbone(Backbone(model, tokenizer), folders[kind])
        write_seen_tokens(folders[kind], {token for row in encode(tokenizer, WORDS) for token in row})
        templates = ["{history}, what comes next"] if kind == "t5" else []
        facts = RecommenderFacts("trie", templates, 20, 512, known, arch="t5" if kind == "t5" else "causal")
        RunInfo("train-rec", {}, {}, 0, asdict(facts)).write(folders[kind])
    add_lora(models["llama"], 2, seed=0)
    save_adapter(models["llama"], folders["adapter"], str(folders["llama"]))
    base = {"base": weights_hash(folders["llama"]), "ids_fingerprint": known}
    RunInfo("train-adapter", {}, {}, 0, base).write(folders["adapter"])
    save_sasrec(new_sasrec(SasrecConfig(len(ITEMS), width=8, layers=1), seed=1), ITEMS, folders["sasrec"])
    RunInfo("train-sasrec", {}, {}, 0).write(folders["sasrec"])
    return Shop(place, folders)


def lists(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def faults(shop: Shop, kind: str, folder: Path, output: Path) -> list[str]:
    """What is wrong with how recommending from a folder ends; nothing where it is as it should be."""
    said, written = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(written):
            code = run(shop.arguments(kind, folder, output))
    except BaseException as fault:  # whatever it is, a user would have seen it
        return [f"raised {type(fault).__name__}: {fault}"]
    lines = [line for line in said.getvalue().splitlines() if line.startswith("idgr: error: ")]
    if code:
        found = [f"exit code {code}"] if code != 1 else []
        found += [f"said {said.getvalue()!r}"] if len(lines) != 1 or "Traceback" in said.getvalue() else []
        found += [f"blames idgr: {lines[0]}"] if lines and "this is a fault in idgr" in lines[0] else []
        return found + (["left an output"] if output.exists() else [])
    rows = lists(output)
    keys = set(ITEMS)
    if kind == "sasrec":  # its keys are what its folder says
        keys = set(json.loads((folder / "items.json").read_bytes())["items"])
    found = [f"said {lines}"] if lines else []
    if len(rows) != len(HISTORIES):
        found.append(f"{len(rows)} lists")
    for row, history in zip(rows, HISTORIES, strict=False):
        items, scores = row["items"], row["scores"]
        whole = len(set(items)) == K and set(items) <= keys - {*history}
        if not whole or scores != sorted(scores, reverse=True) or not all(map(math.isfinite, scores)):
            found.append(f"wrong list {row}")
    if kind in ("t5", "llama") and not found:
        found += _unlike_transformers(kind, folder, output, rows)
    output.unlink()
    return found


def _unlike_transformers(kind: str, folder: Path, output: Path, rows: list[dict[str, Any]]) -> list[str]:
    """How scores differ from those of the model that transformers loads from the same folder, if it loads one."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from idgr.models.tokenizer import encode, load_tokenizer

    auto: Any = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    try:
        model = auto.from_pretrained(folder).float().eval()
    except Exception:  # stricter than idgr about what is beside the weights
        return []
    if kind == "llama":
        model.config.item_slots = int(json.loads((folder / "config.json").read_text()).get("item_slots", 0))
    elif getattr(model.config, "decoder_start_token_id", None) not in (0, None):
        return []  # the oracle starts from padding
    if max(float(weight.detach().abs().max()) for weight in model.parameters() if weight.numel()) > MOST_WEIGHT:
        return []  # then the rounding of sums decides
    model.config.is_encoder_decoder = kind == "t5"
    ids = encode(load_tokenizer(str(folder)), WORDS)
    found = []
    for row, shown in zip(rows, lists(Path(f"{output}.prompts")), strict=True):
        all_scores = score_every_item(model, ids, shown["tokens"], length_penalty=0.0, normalize="trie")
        wanted = [all_scores[ITEMS.index(item)] for item in row["items"]]
        if not np.allclose(row["scores"], wanted, atol=1e-3, rtol=1e-3):
            found.append(f"scores {row['scores']}, by transformers {wanted}")
    return found


def try_variants(shop: Shop, kind: str, count: int, seed: int, tell: Callable[[str], object] = print) -> list[str]:
    """What went wrong with `count` variants of a kind of folder."""
    wrong = []
    for number, (what, folder) in enumerate(damaged_variants(shop.folders[kind], count, seed)):
        tell(f"{kind} {what}")
        output = shop.place / f"{kind}-{seed}-{number}.jsonl"
        wrong += [f"{kind}, seed {seed}, {what}: {fault}" for fault in faults(shop, kind, folder, output)]
    return wrong


KINDS = ("t5", "llama", "sasrec", "adapter")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_folder_recommends(kind: str, shop: Shop, tmp_path: Path) -> None:
    assert faults(shop, kind, shop.folders[kind], tmp_path / "out.jsonl") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_ends_in_right_lists_or_one_line(kind: str, shop: Shop) -> None:
    assert try_variants(shop, kind, 30, 0) == []


def test_equal_seeds_damage_equally(shop: Shop) -> None:
    def contents(seed: int) -> list[tuple[str, list[bytes]]]:
        return [
            (what, [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()])
            for what, folder in damaged_variants(shop.folders["t5"], 12, seed)
        ]

    assert contents(1) == contents(1)
    assert contents(1) != contents(2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        ours = make_shop(Path(made))
        n, first = int(sys.argv[1]), int(sys.argv[2])
        all_wrong = [fault for kind in KINDS for fault in try_variants(ours, kind, n, first, lambda _: None)]
    print(f"{n} variants of each of {len(KINDS)} kinds of folder, {len(all_wrong)} faults", *all_wrong, sep="\n")
    sys.exit(bool(all_wrong))
