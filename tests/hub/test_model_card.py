"""What a card tells, that the hub's own library reads it, and that nothing of the machine is in what is pushed."""

from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from idgr.cli.main import run
from idgr.formats.model_card import base_model_of
from idgr.formats.published import last_name, without_places
from idgr.formats.run_info import RunInfo, sha256_file

from ..models.test_damage import ITEMS, Shop, make_shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop whose SASRec was validated, on files in absolute paths, and by a configuration with one."""
    place = tmp_path / "shop"
    place.mkdir()
    made = make_shop(place)
    rec = made.folders["sasrec"]
    rows = [{"user_id": f"u{n}", "history": ITEMS[:1], "target": ITEMS[n]} for n in range(1, 4)]
    for name in ("valid", "test"):
        (place / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rows = [{"user_id": f"u{n}", "items": ITEMS} for n in range(1, 4)]
    (place / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = json.loads((rec / "config.json").read_text()) | {"text_vectors": {"path": "/home/somebody/minilm"}}
    (rec / "config.json").write_text(json.dumps(config))
    inputs = {name: str(place / f"{name}.jsonl") for name in ("train", "valid")}
    facts = {"kept": {"epoch": 2, "loss": 1.25, "hr@10": 0.5, "ndcg@10": 0.25}}
    options = {"layers": 1, "model": str(place / "t5"), "note": "a|b\nc"}
    RunInfo("train-sasrec", options, inputs, 7, facts).write(rec)
    asked = ["recommend", str(place / "test.jsonl"), "--rec", str(rec), "-k", "3", "-o", str(place / "recs.jsonl")]
    assert run([*asked, "--device", "cpu"]) == 0
    scored = [str(place / "recs.jsonl"), "--truth", str(place / "test.jsonl"), "--train", inputs["train"], "-k", "1"]
    assert run(["eval", *scored, "-k", "3", "-o", str(place / "metrics.json")]) == 0
    return made


def card_of(shop: Shop, *words: str) -> tuple[ModelCard, Path]:
    place = shop.place / "to"
    push = ["push", str(shop.folders["sasrec"]), "me/own-sasrec", "--license", "cc-by-4.0", "--to", str(place)]
    assert run([*push, *words]) == 0
    return ModelCard.load(place / "README.md"), place


def test_a_card_tells_what_the_record_and_the_metrics_tell(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    metrics: dict[str, Any] = json.loads((shop.place / "metrics.json").read_text())
    words = ["--metrics", str(shop.place / "metrics.json"), "--data-name", "My shop", "--base-model", "org/base"]
    card, _ = card_of(shop, *words)
    told = card.data
    assert (told.library_name, told.license, told.base_model) == ("idgr", "cc-by-4.0", "org/base")
    assert told.tags == ["idgr", "sasrec", "recommender"]
    found = {(one.dataset_split, one.metric_type): one for one in told.eval_results}
    names = [f"{name}@{k}" for k in (1, 3) for name in ("hr", "ndcg", "mrr")]
    wanted = {("test", name): metrics[name] for name in names} | {("valid", "hr@10"): 0.5, ("valid", "ndcg@10"): 0.25}
    assert {key: one.metric_value for key, one in found.items()} == wanted
    one = found["test", "hr@3"]
    assert (one.task_type, one.dataset_name, one.dataset_type) == ("recommendation", "My shop", "my-shop")
    assert one.dataset_args == {"sha256": sha256_file(shop.place / "test.jsonl")}
    text = card.text
    assert f"| train | `train.jsonl` | `{sha256_file(shop.place / 'train.jsonl')}` |" in text
    assert "`idgr train-sasrec`, seed 7." in text
    assert "Kept: epoch 2, loss 1.25, hr@10 0.5, ndcg@10 0.25." in text
    assert "| metric | this model | popularity | markov |" in text
    peers = [metrics["baselines"][name]["hr@3"] for name in ("popularity", "markov")]
    assert f"| hr@3 | {metrics['hr@3']:.4f} | {peers[0]:.4f} | {peers[1]:.4f} |" in text
    assert "| `note` | `a\\|b c` |" in text
    assert "idgr pull me/own-sasrec -o rec/" in text
    assert "which is not" not in capfd.readouterr().err


def test_the_card_of_a_ranker_of_texts_names_the_catalogue(shop: Shop) -> None:
    rec = shop.folders["sasrec"]
    (rec / "run.json").unlink()
    RunInfo("train-sasrec", {}, {"text-vectors": str(shop.folders["llama"])}, 7).write(rec)
    card, _ = card_of(shop)
    asked = f"--rec rec/ --items items.jsonl --text-vectors {shop.folders['llama'].name}/ -k 10"
    assert f"idgr recommend histories.jsonl {asked}" in card.text


def test_nothing_of_the_machine_is_pushed(shop: Shop) -> None:
    _, place = card_of(shop, "--metrics", str(shop.place / "metrics.json"))
    whole = b"".join(path.read_bytes() for path in sorted(place.iterdir()) if path.suffix != ".safetensors")
    for private in (str(shop.place), "/home/", str(Path.home()) + "/", platform.node(), f"/{getpass.getuser()}/"):
        assert private.encode() not in whole
    record = json.loads((place / "run.json").read_text())
    assert {role: one["path"] for role, one in record["inputs"].items()} == {
        "train": "train.jsonl", "valid": "valid.jsonl",
    }  # fmt: skip
    assert record["options"]["model"] == "t5"
    assert json.loads((place / "config.json").read_text())["text_vectors"] == {"path": "minilm"}


def test_metrics_of_another_make_are_refused_and_of_another_model_are_told(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    push = ["push", str(shop.folders["llama"]), "me/x", "--license", "mit", "--to", str(shop.place / "to")]
    metrics = shop.place / "metrics.json"
    assert run([*push, "--metrics", str(metrics)]) == 0
    assert f"{metrics} scores lists of " in capfd.readouterr().err
    metrics.write_text(metrics.read_text().replace('"hr@1"', '"hr@2"'))
    assert run([*push, "--metrics", str(metrics)]) == 1
    assert f"{metrics}: holds no metrics whose record tells where they come from; give" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/bob/rec/", "rec"), ("C:\\Users\\bob\\rec", "rec"), ("../../x.jsonl", "x.jsonl"), ("~/m", "m"),
        ("file:///srv/m", "m"), ("\\\\host\\share\\m", "m"), ("~bob/", "-"), ("../..", "-"),
    ],
)  # fmt: skip
def test_places_are_cut_to_their_last_name(path: str, name: str) -> None:
    assert last_name(path) == name
    assert without_places({"model": path, "other": [path, {"deep": path}]}) == {
        "model": name, "other": [name, {"deep": name}],
    }  # fmt: skip


def test_what_is_no_place_stays() -> None:
    told = {"model": "org/base", "sep": "/", "dots": "...", "templates": ["/ {history}"], "version": "2.13.0+cpu"}
    assert without_places(told) == told
    inputs = {"train": {"path": "data/bob/train.jsonl", "sha256": "0"}, "model": {"path": "org/base", "sha256": None}}
    earlier = [{"path": "runs/bob/rec", "ids_fingerprint": "0"}]
    assert without_places({"inputs": inputs, "earlier": earlier, "from": "runs/bob/rec"}) == {
        "inputs": {"train": {"path": "train.jsonl", "sha256": "0"}, "model": inputs["model"]},
        "earlier": [{"path": "rec", "ids_fingerprint": "0"}],
        "from": "rec",
    }


def test_the_base_model_is_told_where_it_came_from_the_hub() -> None:
    assert base_model_of({"options": {"model": "org/base"}}) == "org/base"
    for told in ({"model": "nano"}, {"model": "/srv/org/base"}, {"model": None}, {}):
        assert base_model_of({"options": told}) is None
    local = {"options": {"model": "models/t5"}, "inputs": {"model": {"path": "models/t5", "sha256": "0"}}}
    assert base_model_of(local) is None
