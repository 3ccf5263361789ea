"""`idgr audit` of a catalogue that has grown: IDs that were kept, and a recommender of the smaller one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.evaluation.audit.checks import FAIL, PASS
from idgr.evaluation.audit.results import _belong
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RunInfo

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
    # A file that is not what was made is found, whether or not the IDs that it keeps are the same.
    grown.write_text(grown.read_text().replace("blue soap", "blue towel"))
    assert verdict(tmp_path, capsys, "IDs are made from item text alone")[0] == FAIL


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
