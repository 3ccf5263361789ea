"""Which kind of model a command takes: a Llama is known by its folder, and told in one line where a T5 is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from idgr.cli.main import run

from ..models.test_damage import HISTORIES, ITEMS, WORDS, Shop, make_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    place = tmp_path_factory.mktemp("shop")
    made = make_shop(place)
    sequences = [["I0", "I1", "I2"], ["I3", "I4", "I5", "I6"], ["I6", "I0"]]
    rows = {
        "items": [{"item_id": item, "text": words} for item, words in zip(ITEMS, WORDS, strict=True)],
        "train": [{"user_id": f"u{n}", "items": items} for n, items in enumerate(sequences)],
        "valid": [{"user_id": f"u{n}", "history": items, "target": "I3"} for n, items in enumerate(HISTORIES[:1])],
        "test": [{"user_id": f"u{n}", "history": items, "target": "I4"} for n, items in enumerate(HISTORIES[:1])],
    }
    for name, records in rows.items():
        (place / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in records))
    return made


def llama_as_it_comes(shop: Shop, folder: Path) -> Path:
    """A Llama folder with a list of EOS and no pad, as those of Llama 3 are."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes((shop.folders["llama"] / name).read_bytes())
    for name, told in {
        "config.json": {"eos_token_id": [9, 1, 8], "pad_token_id": None, "item_slots": 0},
        "generation_config.json": {"eos_token_id": [9, 1, 8]},
        "tokenizer_config.json": {"pad_token": None},
    }.items():
        whole = json.loads((shop.folders["llama"] / name).read_text()) | told
        (folder / name).write_text(json.dumps(whole))
    return folder


def test_a_llama_needs_no_arch_and_its_eos_is_recorded(
    shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = llama_as_it_comes(shop, tmp_path / "llama")
    given = [str(shop.place / "train.jsonl"), "--ids", str(shop.place / "ids.jsonl"), "--model", str(model)]
    assert run(["train-rec", *given, "--epochs", "1", "--device", "cpu", "-o", str(tmp_path / "rec")]) == 0
    record = json.loads((tmp_path / "rec" / "run.json").read_text())
    assert (record["arch"], record["options"]["arch"], record["eos_token_id"]) == ("causal", "causal", 1)
    assert record["max_history"] == 50
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "rec" / name).read_text())["eos_token_id"] == 1
    asked = [str(shop.place / "histories.jsonl"), "--rec", str(tmp_path / "rec"), "--ids", given[2], "-k", "3"]
    assert run(["recommend", *asked, "-o", str(tmp_path / "recs.jsonl")]) == 0
    assert run(["recommend", *asked[:2], str(model), *asked[3:], "--force", "-o", str(tmp_path / "raw.jsonl")]) == 0
    assert len((tmp_path / "raw.jsonl").read_text().splitlines()) == len(HISTORIES)
    assert "error" not in capfd.readouterr().err


@pytest.mark.parametrize("arch", ["t5", "causal"])
def test_an_arch_that_is_not_the_model_s_is_told(
    arch: str, shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = shop.folders["llama" if arch == "t5" else "t5"]
    given = [str(shop.place / "train.jsonl"), "--ids", str(shop.place / "ids.jsonl"), "--model", str(model)]
    assert run(["train-rec", *given, "--arch", arch, "--device", "cpu", "-o", str(tmp_path / "rec")]) == 1
    said = "is a Llama; give a model of the T5" if arch == "t5" else "is a T5; give a model of the Llama"
    assert f"idgr: error: {model}: {said} architecture\n" in capfd.readouterr().err
    assert not (tmp_path / "rec").exists()


def test_alternate_says_before_the_work_that_its_generator_is_a_t5(
    shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    t5, llama = str(shop.folders["t5"]), str(shop.folders["llama"])
    given = ["alternate", str(shop.place), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert run([*given, "--gen", llama, "--rec", t5]) == 1
    said = capfd.readouterr().err
    assert f"{llama}: is a Llama, and alternate takes a T5; give one such as `idgr init-gen --model nano` makes" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_files_of_a_tokenizer_are_told(shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Other tokens would spell the same IDs, and mean nothing to the model."""
    import shutil

    from idgr.models.tokenizer import train_tokenizer

    rec = shutil.copytree(shop.folders["t5"], tmp_path / "rec")
    train_tokenizer(["quite other words", *WORDS], 300).save_pretrained(rec)
    asked = [str(shop.place / "histories.jsonl"), "--rec", str(rec), "--ids", str(shop.place / "ids.jsonl")]
    assert run(["recommend", *asked, "-k", "3", "-o", str(tmp_path / "recs.jsonl")]) == 1
    said = "its tokenizer.json is not the one that it was trained with; put that back, or insist with --force"
    assert f"{rec}: {said}" in capfd.readouterr().err


def test_the_example_of_train_rec_makes_a_model_that_train_gen_takes(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train-rec", "--help"]) == 0
    assert "--tokenizer gen/ -o rec/" in " ".join(capfd.readouterr().out.split())
