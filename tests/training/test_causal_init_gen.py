"""`idgr init-gen` of a Llama, and what is made with it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import read_ids
from idgr.formats.run_info import read_run
from idgr.generator.training import pair_loss
from idgr.ids.causal_prompts import PLAIN, causal_prompts
from idgr.ids.generation import first_candidates
from idgr.ids.options import GenerationOptions
from idgr.models.backbone import CAUSAL_PRESETS as PRESETS
from idgr.models.backbone import Backbone, load_either, new_causal_backbone, save_backbone
from idgr.models.tokenizer import decode, encode, load_tokenizer, train_tokenizer

NAMES = [f"{a} {b}" for a in ("Amber", "basil", "cedar", "delta") for b in ("pump", "lamp", "stove", "poncho")]
TEXTS = [f"title: the {name}" for name in NAMES]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue, pairs, and a small Llama that has learnt them."""
    place = tmp_path_factory.mktemp("shop")
    write_jsonl(place / "items.jsonl", ({"item_id": str(n), "text": text} for n, text in enumerate(TEXTS)))
    write_jsonl(place / "pairs.jsonl", ({"item_id": str(n), "id": name} for n, name in enumerate(NAMES)))
    sequences = [{"user_id": f"u{n}", "items": [str(n), str(n + 1), str(n + 2)]} for n in range(8)]
    write_jsonl(place / "train.jsonl", sequences)
    write_jsonl(place / "test.jsonl", [{"user_id": "u1", "history": ["1", "2", "3"], "target": "4"}])
    assert init_gen(place, "gen", "--epochs", "15", "--lr", "3e-3", "--dropout", "0") == 0
    return place


def init_gen(place: Path, output: str, *more: str, model: str = "nano-causal") -> int:
    given = [str(place / "items.jsonl"), "--pairs", str(place / "pairs.jsonl"), "--model", model]
    little = ["--batch-size", "4", "--held-out", "0", "--device", "cpu"]
    return run(["init-gen", *given, *little, *more, "-o", str(place / output)])


def test_the_loss_is_that_of_the_id_s_tokens_and_its_end(shop: Path) -> None:
    backbone = load_either(str(shop / "gen"))
    model = backbone.model.eval()
    eos = backbone.tokenizer.eos_token_id
    prompts = [row.tolist() for row in causal_prompts(backbone.tokenizer, ["title: a", *TEXTS[:2]], 256, taught=True)]
    labels = [[*row, eos] for row in encode(backbone.tokenizer, ["the pump of cedar", *NAMES[:2]])]
    found, terms = pair_loss(model, prompts, labels)
    wanted = torch.zeros(())
    for prompt, answer in zip(prompts, labels, strict=True):
        tokens = torch.tensor([[*prompt, *answer]])
        ignored = tokens.clone()
        ignored[0, : len(prompt)] = -100
        wanted = wanted + model(tokens, labels=ignored).loss * len(answer)
    assert terms == sum(map(len, labels))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_it_writes_the_names_that_it_was_taught(shop: Path) -> None:
    record = read_run(shop / "gen")
    assert (record["command"], record["prompt"]) == ("init-gen", "plain")
    backbone = load_either(str(shop / "gen"))
    assert backbone.taught
    assert {"▁Amber", "▁history", "▁Text", "▁Name"} <= set(backbone.tokenizer.get_vocab())
    assert run(["gen-ids", str(shop / "items.jsonl"), "--model", str(shop / "gen"), "-o", str(shop / "ids.jsonl")]) == 0
    assert [one.id for one in read_ids(str(shop / "ids.jsonl"))] == NAMES  # not in lower case: as it was taught


def test_the_search_is_a_plain_one_behind_the_plain_prompt(shop: Path) -> None:
    backbone = load_either(str(shop / "gen"))
    tokenizer, texts = backbone.tokenizer, [*TEXTS[:3], "title: the pump; brand: delta lamp"]
    prompts = causal_prompts(tokenizer, texts, 256, taught=True)
    frame = [encode(tokenizer, [part])[0] for part in ("Text:", "Name:")]
    assert PLAIN.split() == ["Text:", "THE-TEXT-OF-THE-PRODUCT", "Name:"]
    assert prompts[0].tolist() == [*frame[0], *encode(tokenizer, ["the Amber pump"])[0], *frame[1]]
    found = first_candidates(texts, backbone, GenerationOptions(beams=1, groups=1, penalty_start=0.0))
    wanted = []
    for prompt in prompts:
        tokens = torch.tensor(prompt[None].astype("int64"))
        how = {"do_sample": False, "max_new_tokens": 9, "attention_mask": torch.ones_like(tokens)}
        written = backbone.model.generate(input_ids=tokens, **how)
        wanted.append(decode(tokenizer, [written[0, len(prompt) :].tolist()]))
    assert found == wanted


def test_a_folder_is_taught_further_and_its_tokenizer_stays(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = shop / "base"
    base.mkdir()
    tokenizer = train_tokenizer([*TEXTS, *NAMES], 400)
    save_backbone(new_causal_backbone(PRESETS["nano-causal"], tokenizer, seed=1), base)
    assert not load_either(str(base)).taught
    for output in ("one", "two"):
        assert init_gen(shop, output, "--epochs", "2", model=str(base)) == 0
    assert (shop / "one" / "model.safetensors").read_bytes() == (shop / "two" / "model.safetensors").read_bytes()
    assert load_tokenizer(str(shop / "one")).get_vocab() == tokenizer.get_vocab()
    log = [orjson.loads(line) for line in (shop / "one" / "log.jsonl").read_bytes().splitlines()]
    assert log[1]["loss"] < log[0]["loss"]
    assert "error" not in capfd.readouterr().err


def test_a_text_without_room_names_the_option(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = shop / "small"
    small.mkdir()
    backbone: Backbone = new_causal_backbone(PRESETS["nano-causal"], train_tokenizer([*TEXTS, *NAMES], 400), seed=1)
    backbone.model.config.max_position_embeddings = 8
    save_backbone(backbone, small)
    assert init_gen(shop, "none", model=str(small)) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "--max-text-tokens 256 makes a prompt of" in said
    assert said.endswith("with an ID behind them; give fewer")
    assert not (shop / "none").exists()


def test_zeroshot_takes_it(shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rec = ["--gen", str(shop / "gen"), "--rec", str(shop / "gen"), "--device", "cpu", "--max-history", "3", "-k", "3"]
    assert run(["zeroshot", str(shop), *rec, "-o", str(tmp_path / "out")]) == 0
    assert [one.id for one in read_ids(str(tmp_path / "out" / "ids.jsonl"))] == NAMES
    assert orjson.loads((tmp_path / "out" / "metrics.json").read_bytes())["n_users"] == 1
    assert "error" not in capfd.readouterr().err
