"""`idgr audit` of a catalogue that has grown: IDs that were kept, and a recommender of the smaller one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.evaluation.audit.checks import FAIL, PASS, SKIP
from idgr.evaluation.audit.results import _belong
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RunInfo, sha256_file

NAMES = ["red soap", "blue soap", "green brush"]


def items(path: Path, names: list[str]) -> str:
    write_jsonl(path, ({"item_id": f"i{n}", "text": f"title: {name}"} for n, name in enumerate(names)))
    return str(path)


def verdict(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> tuple[str, str]:
    """The check of the grown file that has this name: verdict and what is told."""
    capsys.readouterr()
    run(["audit", str(folder), "-o", "-"])
    rows = json.loads(capsys.readouterr().out)["checks"]
    (found,) = (row for row in rows if row["name"] == name and row["subject"].endswith("grown.jsonl"))
    return found["verdict"], found["evidence"]


FROM_TEXT = "IDs are made from item text alone"


@pytest.mark.parametrize("scheme", [["--model", "keyphrase"], ["--scheme", "title"]])
def test_kept_ids_are_those_of_the_kept_file(
    scheme: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, grown = tmp_path / "ids.jsonl", tmp_path / "grown.jsonl"
    assert run(["gen-ids", items(tmp_path / "old.jsonl", NAMES[:2]), *scheme, "-o", str(ids)]) == 0
    words = ["gen-ids", items(tmp_path / "new.jsonl", NAMES), *scheme, "--keep", str(ids), "-o", str(grown)]
    assert run(words) == 0
    result, told = verdict(tmp_path, capsys, "IDs are made from item text alone")
    assert (result, "the IDs of 2 items are those of" in told) == (PASS, True)
    assert re.search("(the first 1|all 1) new ones, made again from those( alone)?, are equal$", told)
    # A file that is not what was made is found, whether or not the IDs that it keeps are the same.
    grown.write_text(grown.read_text().replace("blue soap", "blue towel"))
    assert verdict(tmp_path, capsys, "IDs are made from item text alone")[0] == FAIL


def rewrite(path: Path, old: str, new: str) -> None:
    """Change a file of IDs, and its record so that it tells the new hash."""
    before = sha256_file(path)
    path.write_text(path.read_text().replace(old, new))
    record = path.with_name(f"{path.name}.run.json")
    record.write_text(record.read_text().replace(before, sha256_file(path)))


@pytest.mark.parametrize("scheme", [["--model", "keyphrase"], ["--scheme", "title"], ["--scheme", "random"], ["t5"]])
def test_new_ids_are_made_again_beside_those_kept(
    scheme: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if scheme == ["t5"]:
        scheme = ["--model", str(request.getfixturevalue("generator")), "--device", "cpu"]
    ids, grown, old = tmp_path / "ids.jsonl", tmp_path / "grown.jsonl", items(tmp_path / "old.jsonl", NAMES[:2])
    assert run(["gen-ids", old, *scheme, "-o", str(ids)]) == 0
    # The new items have the texts of old ones, so that what they are called depends on the names that are kept.
    new = items(tmp_path / "new.jsonl", [*NAMES[:2], *NAMES])
    assert run(["gen-ids", new, *scheme, "--keep", str(ids), "-o", str(grown)]) == 0
    result, told = verdict(tmp_path, capsys, FROM_TEXT)
    assert (result, "3 new ones, made again from" in told) == (PASS, True), told
    # One of the new names is another, and the record's hash says that this was made.
    last = json.loads(grown.read_text().splitlines()[-1])["id"]
    rewrite(grown, json.dumps(last, ensure_ascii=False), '"green comb"')
    result, told = verdict(tmp_path, capsys, FROM_TEXT)
    assert (result, "3 new ones, made again from" in told, told.endswith("1 differ")) == (FAIL, True, True), told


def test_kept_ids_that_are_gone_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, grown, words = tmp_path / "ids.jsonl", tmp_path / "grown.jsonl", ["--model", "keyphrase", "-o"]
    assert run(["gen-ids", items(tmp_path / "old.jsonl", NAMES[:2]), *words, str(ids)]) == 0
    command = ["gen-ids", items(tmp_path / "new.jsonl", NAMES), "--keep", str(ids), *words, str(grown)]
    assert run(command) == 0
    # Under another name its bytes are found; with other bytes, or not there, they are not.
    ids.rename(tmp_path / "elsewhere.jsonl")
    ids.with_name("ids.jsonl.run.json").rename(tmp_path / "elsewhere.jsonl.run.json")
    assert verdict(tmp_path, capsys, FROM_TEXT)[0] == PASS
    (tmp_path / "elsewhere.jsonl").unlink()
    (tmp_path / "elsewhere.jsonl.run.json").unlink()
    for text in (None, '{"item_id": "i0", "id": "red soap"}\n'):
        if text is not None:
            ids.write_text(text)
        result, told = verdict(tmp_path, capsys, FROM_TEXT)
        assert result == SKIP
        assert (
            told == f"the IDs that it kept, {ids}, are not here with the hash on record, so none can be made again; "
            "put that file back"
        )
    # All are kept: nothing is new.
    ids.unlink()
    assert run(["gen-ids", str(tmp_path / "old.jsonl"), *words, str(ids)]) == 0
    assert run(["gen-ids", str(tmp_path / "old.jsonl"), "--keep", str(ids), *words, str(grown)]) == 0
    result, told = verdict(tmp_path, capsys, FROM_TEXT)
    assert (result, told.endswith(f"the IDs of 2 items are those of {ids}")) == (PASS, True)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from idgr.models.backbone import Preset, new_backbone, save_backbone
    from idgr.models.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("generator")
    tokenizer = train_tokenizer([f"title: {name}" for name in [*NAMES, "green comb"]], 300)
    save_backbone(new_backbone(Preset(16, 32, 1, 2, 8, 300), tokenizer, seed=0), folder)
    return folder


def test_a_recommender_of_the_smaller_catalogue_belongs(tmp_path: Path) -> None:
    old = [ItemId(f"i{n}", name) for n, name in enumerate(NAMES[:2])]
    (rec := tmp_path / "rec").mkdir()
    write_jsonl(rec / "ids.jsonl", (one.row() for one in old))
    RunInfo("train-rec", {}, {}, 0, {"ids_fingerprint": ids_fingerprint(old)}).write(rec)
    ids = tmp_path / "ids.jsonl"
    for first, wanted in (("red soap", PASS), ("red towel", FAIL)):
        rows = [ItemId("i0", first), ItemId("n", "green brush")]
        write_jsonl(ids, (one.row() for one in rows))
        assert _belong(rec, ids, rec).verdict == wanted
