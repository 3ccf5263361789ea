"""`idgr recommend` and `Recommender` with more, fewer or other items than the recommender was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from idgr.api import Recommender
from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RunInfo
from idgr.models.backbone import Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

from .oracle import tiny_llama

OLD = [ItemId(f"i{n}", text) for n, text in enumerate(["red soap", "red brush", "blue soap", "blue brush", "comb"])]
NEW = [ItemId("n0", "red comb"), ItemId("n1", "green soap")]
TEMPLATES = ["history: {history}; next:"]


def save(folder: Path, arch: str) -> Path:
    folder.mkdir()
    tokenizer = train_tokenizer([record.id for record in OLD] + TEMPLATES, 400)
    if arch == "t5":
        backbone = new_backbone(Preset(16, 32, 1, 2, 8, 400), tokenizer, seed=0)
    else:
        slots = 3 + max(len(row) for row in tokenizer([one.id for one in OLD], add_special_tokens=False)["input_ids"])
        backbone = Backbone(tiny_llama(0, len(tokenizer), item_slots=slots), tokenizer)
    save_backbone(backbone, folder)
    write_jsonl(folder / "ids.jsonl", (record.row() for record in OLD))
    facts = {"objective": "full", "templates": TEMPLATES, "max_history": 20, "max_prompt_tokens": 512, "arch": arch}
    RunInfo("train-rec", {}, {}, 0, facts | {"ids_fingerprint": ids_fingerprint(OLD)}).write(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grown")
    for arch in ("t5", "causal"):
        save(folder / arch, arch)
    write_jsonl(folder / "histories.jsonl", [{"user_id": "u", "history": ["i1", "n0"]}])
    return folder


def recommend(place: Path, tmp_path: Path, ids: Sequence[ItemId], *more: str, arch: str = "t5") -> int:
    write_jsonl(tmp_path / "ids.jsonl", (record.row() for record in ids))
    words = [str(place / "histories.jsonl"), "--rec", str(place / arch), "--ids", str(tmp_path / "ids.jsonl")]
    return run(["recommend", *words, "--device", "cpu", "-o", str(tmp_path / "recs.jsonl"), *more])


def listed(tmp_path: Path) -> list[str]:
    (line,) = (tmp_path / "recs.jsonl").read_text().splitlines()
    items: list[str] = json.loads(line)["items"]
    return items


def test_new_items_are_recommended_and_counted(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend(place, tmp_path, [NEW[0], *OLD, NEW[1]]) == 0
    err = capsys.readouterr().err
    assert f"recommend: 2 of the 7 items of {tmp_path / 'ids.jsonl'} are new to {place / 't5'}\n" in err
    assert set(listed(tmp_path)) == {"i0", "i2", "i3", "i4", "n1"}


def test_items_that_are_gone_are_not_recommended(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend(place, tmp_path, [OLD[1], *OLD[3:], NEW[1]]) == 0
    assert f"are new to {place / 't5'}; 2 that it was trained on are not there" in capsys.readouterr().err
    assert set(listed(tmp_path)) == {"i3", "i4", "n1"}
    (tmp_path / "allow").write_text("n1\ni4\n")
    assert recommend(place, tmp_path, [OLD[1], *OLD[3:], NEW[1]], "--allow", str(tmp_path / "allow")) == 0
    assert set(listed(tmp_path)) == {"n1", "i4"}


def test_an_old_item_of_another_name_is_refused_by_name(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [OLD[0], ItemId("i1", "soap brush"), *OLD[2:4], ItemId("i4", "blue comb"), *NEW]
    assert recommend(place, tmp_path, changed) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"idgr: error: {tmp_path / 'ids.jsonl'}: item 'i1' has the ID 'soap brush', but had ")
    assert "'red brush' when" in told
    assert "and 1 more have others" in told
    assert "--force" in told
    assert recommend(place, tmp_path, changed, "--force") == 0


def test_a_catalogue_of_other_items_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend(place, tmp_path, NEW) == 1
    assert "was trained on other IDs than those of" in capsys.readouterr().err
    save(tmp_path / "bare", "t5")
    write_jsonl(tmp_path / "bare" / "ids.jsonl", (record.row() for record in OLD[:3]))
    assert recommend(tmp_path, tmp_path, [*OLD, *NEW], arch="bare") == 1, "not the IDs that training left"


def test_a_new_id_that_has_no_room_between_items_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend(place, tmp_path, [*OLD, ItemId("n0", "red comb")], arch="causal") == 0
    capsys.readouterr()
    assert recommend(place, tmp_path, [*OLD, ItemId("n0", "red comb blue brush soap")], arch="causal") == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "places for an item; give shorter IDs" in told


def test_from_python(place: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.jsonl"
    write_jsonl(ids, (record.row() for record in [*OLD[1:], *NEW]))
    recommender = Recommender.load(place / "t5", ids=ids, device="cpu")
    (found,) = recommender.recommend([["i1", "n0"]])
    assert {one.item for one in found} == {"i2", "i3", "i4", "n1"}
    write_jsonl(ids, (record.row() for record in [ItemId("i0", "soap"), *OLD[1:]]))
    with pytest.raises(IdgrError, match="item 'i0' has the ID 'soap'"):
        Recommender.load(place / "t5", ids=ids, device="cpu")
