"""`idgr recommend` and `gen-ids` over folders of parts, with a manifest that survives kills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from idgr.cli.main import run
from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import read_jsonl, write_jsonl
from idgr.formats.part_lines import open_part
from idgr.formats.parts import MANIFEST, Manifest
from idgr.formats.records import read_ids
from idgr.stages.recommend import HistoryParts, Options

from ..hostile.killing import run_killed

NAMES = ["a.parquet", "day=1/b.parquet", "day=1/c.parquet"]


def digests(folder: Path) -> dict[str, bytes]:
    """The bytes of the parts and of the manifest."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl, users.jsonl and the same in users/, and items.jsonl and the same in items/: three parts each."""
    folder = tmp_path_factory.mktemp("shop")
    write_jsonl(folder / "train.jsonl", [{"user_id": f"t{n}", "items": [f"i{n % 5}", f"i{n % 3}"]} for n in range(9)])
    users = [{"user_id": f"u{n}", "history": [f"i{n % 5}"] * (n % 4), "target": f"i{n % 3}"} for n in range(10)]
    items = [{"item_id": f"i{n}", "text": f"title: {colour} soap"} for n, colour in enumerate(["red", "blue"] * 5)]
    for name, rows in (("users", users), ("items", items)):
        write_jsonl(folder / f"{name}.jsonl", rows)
        for number, part in enumerate(NAMES):
            place = folder / name / part
            place.parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame(rows[number * 3 : number * 3 + 3 if number < 2 else None]).write_parquet(place)
        (folder / name / "_SUCCESS").touch()
    return folder


def recommend(shop: Path, output: Path, *words: str) -> list[str]:
    return ["recommend", str(shop / "users"), "--baseline", "popularity", "--train", str(shop / "train.jsonl"), "-k",
            "2", *words, "-o", str(output)]  # fmt: skip


def test_parts_are_answered_as_one_file_is(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, whole = tmp_path / "recs", tmp_path / "recs.parquet"
    assert run(recommend(shop, parts)) == 0
    words = recommend(shop, whole)
    words[1] = str(shop / "users.jsonl")
    assert run(words) == 0
    assert pl.concat([pl.read_parquet(parts / name) for name in NAMES]).equals(pl.read_parquet(whole))
    assert sorted(digests(parts)) == sorted([*NAMES, MANIFEST])
    record = json.loads((parts / MANIFEST).read_text())
    assert (record["command"], list(record["parts"])) == ("recommend", NAMES)
    assert all(sorted(noted) == ["input", "output"] for noted in record["parts"].values())
    assert list(record["inputs"]) == ["train"]
    # Finished: nothing is done, and only what is missing, changed or of a changed source is.
    before = digests(parts)
    (parts / NAMES[0]).write_bytes(b"x")
    (parts / NAMES[2]).unlink()
    capsys.readouterr()
    assert run(recommend(shop, parts)) == 0
    assert "recommend: 1 of 3 parts are done before, 2 are to be made" in capsys.readouterr().err
    assert digests(parts) == before


def test_shards_of_parts_share_a_manifest(shop: Path, tmp_path: Path) -> None:
    one, shared = tmp_path / "one", tmp_path / "shared"
    assert run(recommend(shop, one)) == 0
    assert run(recommend(shop, shared, "--shard", "2/2")) == 0
    assert sorted(digests(shared)) == [MANIFEST, NAMES[1]]
    assert json.loads((shared / MANIFEST).read_text())["parts"][NAMES[0]] is None
    assert run(recommend(shop, shared, "--shard", "1/2")) == 0
    assert digests(shared) == digests(one)


def test_a_changed_part_alone_is_made_again(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "users", tmp_path / "users")
    options = {"baseline": "popularity", "train": str(shop / "train.jsonl"), "k": 2}
    parts = HistoryParts(Options(histories=str(tmp_path / "users"), output=str(tmp_path / "recs"), **options))
    assert parts.missing() == NAMES
    assert [parts.make(name) for name in NAMES] == [3, 3, 4]
    assert parts.missing() == []
    pl.DataFrame({"user_id": [7], "items": [["i1"]]}).write_parquet(tmp_path / "users" / NAMES[1])
    assert parts.missing() == [NAMES[1]]
    assert parts.make(NAMES[1]) == 1
    assert pl.read_parquet(tmp_path / "recs" / NAMES[1])["user_id"].to_list() == ["7"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda words: [*words, "--keep-history"],
            "_manifest.json: its parts were made with --keep-history False, not True",
        ),
        (lambda words: [*words[:7], "3", *words[8:]], "made with --k 2, not 3; give the same; or remove it"),
        (lambda words: [*words, "--prompts", "p"], "--prompts given with a folder of parts"),
        (lambda words: [*words[:-1], "-"], "-o - cannot hold the parts of"),
        (lambda words: [*words[:-1], words[1] + "/recs"], "whose parts are read, overlap"),
        (lambda words: [*words[:-1], str(Path(words[1]).parent / "items.jsonl")], "is a file, not a folder of parts"),
        (lambda words: [words[0], words[-1] + "/../foreign", *words[2:]], "holds a.parquet, which is no part of"),
        (lambda words: [*words[:-1], words[-1] + "/../foreign"], f"is not empty and holds no {MANIFEST}"),
        (lambda words: [words[0], words[-1] + "/../empty", *words[2:]], "holds no files; give a folder of Parquet"),
    ],
)
def test_what_does_not_fit_is_one_line(
    change: Callable[[list[str]], list[str]],
    told: str,
    shop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    write_jsonl(tmp_path / "foreign" / "u.jsonl", [{"user_id": "u", "history": []}])
    assert run(recommend(shop, tmp_path / "recs")) == 0
    before = digests(tmp_path / "recs")
    capsys.readouterr()
    assert run(change(recommend(shop, tmp_path / "recs"))) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert told in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert digests(tmp_path / "recs") == before


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"parts": 3}', '{"command": "recommend", "parts": {"a": 3}}'])
def test_a_damaged_manifest_is_told(text: str, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recs").mkdir()
    (tmp_path / "recs" / MANIFEST).write_text(text)
    assert run(recommend(shop, tmp_path / "recs")) == 1
    assert f"{MANIFEST}: " in capsys.readouterr().err.splitlines()[-1]


def test_a_faulty_row_is_told_with_its_part(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(shop / "users", tmp_path / "users")
    bad = tmp_path / "users" / NAMES[1]
    pl.DataFrame({"user_id": ["u", "v"], "history": ["x", None]}).write_parquet(bad)
    words = recommend(shop, tmp_path / "recs")
    words[1] = str(tmp_path / "users")
    assert run(words) == 1
    assert f"{bad}:1: " in capsys.readouterr().err.splitlines()[-1]
    assert json.loads((tmp_path / "recs" / MANIFEST).read_text())["parts"][NAMES[0]] is not None
    bad.write_bytes(b"PAR1 and no more")
    assert run(words) == 1
    assert "cannot be read as Parquet" in capsys.readouterr().err.splitlines()[-1]


def test_a_part_without_rows(tmp_path: Path) -> None:
    pl.DataFrame(schema={"user_id": pl.String, "history": pl.List(pl.String)}).write_parquet(tmp_path / "p")
    assert list(read_jsonl(open_part(str(tmp_path / "p")), dict)) == []


def test_killed_at_any_point_and_run_again_it_gives_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    assert run(recommend(shop, tmp_path / "whole")) == 0
    wanted = digests(tmp_path / "whole")
    _, operations = run_killed(recommend(shop, tmp_path / "all"), tmp_path)
    assert digests(tmp_path / "all") == wanted
    renames = [at for at, one in enumerate(operations) if one.startswith("rename")]
    assert len(renames) == 1 + 2 * len(NAMES)  # the manifest, and after each part again
    # Before the second part has its name, and between that and the note that it is done.
    for at in (renames[3], renames[4]):
        output = tmp_path / f"at-{at}"
        shutil.rmtree(tmp_path / "all")
        killed, _ = run_killed(recommend(shop, tmp_path / "all"), tmp_path, at=at)
        assert killed
        assert json.loads((tmp_path / "all" / MANIFEST).read_text())["parts"][NAMES[1]] is None
        first = (tmp_path / "all" / NAMES[0]).stat().st_mtime_ns
        assert run(recommend(shop, tmp_path / "all")) == 0
        assert (tmp_path / "all" / NAMES[0]).stat().st_mtime_ns == first
        assert digests(tmp_path / "all") == wanted, output


def test_who_writes_the_manifest_is_waited_for(shop: Path, tmp_path: Path) -> None:
    made = {"command": "c", "options": {}, "inputs": {}, "seed": None}
    one, other = (Manifest(str(shop / "users"), str(tmp_path / "o"), made) for _ in range(2))
    with one.part(NAMES[0]) as first, other.part(NAMES[1]) as second:
        first.write(b'{"a": 1}\n')
        second.write(b'{"a": 2}\n')
    assert one.missing() == other.missing() == [NAMES[2]]
    assert one.missing(2, 3) == []
    with pytest.raises(IdgrError, match="is being written by"), one.part(NAMES[2]), other.part(NAMES[2]):
        pass


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from idgr.models.backbone import Preset, new_backbone, save_backbone
    from idgr.models.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([f"title: {colour} soap" for colour in ("red", "blue")], 300)
    folder = tmp_path_factory.mktemp("generator")
    save_backbone(new_backbone(Preset(16, 32, 1, 2, 8, 300), tokenizer, seed=0), folder)
    return folder


def test_ids_of_parts_are_those_of_one_file(shop: Path, generator: Path, tmp_path: Path) -> None:
    model = ["--model", str(generator), "--device", "cpu"]
    whole, parts = tmp_path / "ids.jsonl", tmp_path / "ids"
    assert run(["gen-ids", str(shop / "items.jsonl"), *model, "-o", str(whole)]) == 0
    assert run(["gen-ids", str(shop / "items"), *model, "-o", str(parts)]) == 0
    assert read_ids(parts) == read_ids(whole)
    assert [len(pl.read_parquet(parts / name)) for name in NAMES] == [3, 3, 4]
    made = digests(parts)
    # What is lost is made again, and only that.
    (parts / NAMES[1]).unlink()
    (parts / "_candidates" / NAMES[2]).unlink()
    before = (parts / "_candidates" / NAMES[0]).stat().st_mtime_ns
    assert run(["gen-ids", str(shop / "items"), *model, "-o", str(parts)]) == 0
    assert digests(parts) == made
    assert (parts / "_candidates" / NAMES[0]).stat().st_mtime_ns == before
    # Shards of parts, joined as shards of one file are.
    for number in (1, 2):
        words = ["gen-ids", str(shop / "items"), *model, "--shard", f"{number}/2", "-o", str(tmp_path / "found")]
        assert run(words) == 0
    assert digests(tmp_path / "found") == digests(parts / "_candidates")
    words = ["--assign", f"{tmp_path}/found/*.parquet", "--assign", f"{tmp_path}/found/*/*.parquet"]
    assert run(["gen-ids", str(shop / "items"), *model, *words, "-o", str(tmp_path / "joined")]) == 0
    assert [(tmp_path / "joined" / name).read_bytes() for name in NAMES] == [made[name] for name in NAMES]
    assert run(["gen-ids", str(shop / "items.jsonl"), *model, *words, "-o", str(tmp_path / "joined.jsonl")]) == 0
    assert (tmp_path / "joined.jsonl").read_bytes() == whole.read_bytes()


def test_ids_by_a_rule_and_items_twice(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "keyphrase", "-o"]
    assert run(["gen-ids", str(shop / "items.jsonl"), *words, str(tmp_path / "ids.jsonl")]) == 0
    assert run(["gen-ids", str(shop / "items"), *words, str(tmp_path / "ids")]) == 0
    assert read_ids(tmp_path / "ids") == read_ids(tmp_path / "ids.jsonl")
    shutil.copytree(shop / "items", tmp_path / "items")
    shutil.copy(tmp_path / "items" / NAMES[0], tmp_path / "items" / "z.parquet")
    capsys.readouterr()
    assert run(["gen-ids", str(tmp_path / "items"), *words, str(tmp_path / "twice")]) == 1
    assert "z.parquet:1: duplicate item_id 'i0'" in capsys.readouterr().err.splitlines()[-1]


def test_options_that_parts_do_not_take() -> None:
    with pytest.raises(UsageError, match="--prompts"):
        HistoryParts(Options(histories="users/", output="recs/", rec="rec/", ids="ids.jsonl", prompts="p"))
