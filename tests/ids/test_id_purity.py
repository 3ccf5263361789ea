"""`idgr ids purity`: entropies worked out by hand, chance from clusters of the same sizes, and the command."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.ids.purity import purities

# Two categories of four items each. The first word parts them 4 : 4 with one of each on the wrong side, the second
# parts those into what is alike.
IDS = ["a x", "a x y", "a x z", "a w", "b x", "b x y", "b x z", "b w"]
OF = ["nails", "nails", "nails", "hair", "hair", "hair", "hair", "nails"]


def test_entropies_are_those_worked_out_by_hand() -> None:
    found = purities(IDS, OF, draws=3, seed=0)
    assert [(one.level, one.clusters) for one in found] == [(0, 1), (1, 2), (2, 4), (3, 8)]
    # 1 bit of two equal halves; H(1/4) = 0.811278; then clusters of 3, 1, 3 and 1 of one category each.
    assert [one.entropy for one in found] == pytest.approx([1.0, 0.8112781244591328, 0.0, 0.0], abs=1e-12)
    # One cluster of all has its entropy whoever is where, and a cluster of one item has none.
    assert (found[0].chance, found[3].chance) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_chance_is_that_of_clusters_of_the_same_sizes() -> None:
    """Of four items in clusters of two, two categories of two: both pure in a third of the assignments, else none."""
    ids, of = ["a x", "a y", "b x", "b y"], ["c", "c", "d", "d"]
    (_, first, _) = purities(ids, of, draws=3000, seed=0)
    assert first.entropy == 0.0
    assert first.chance == pytest.approx(2 / 3, abs=0.04)
    assert purities(ids, of, draws=7, seed=3) == purities(ids, of, draws=7, seed=3)
    assert purities(ids, of, draws=3000, seed=3)[1].chance != first.chance


def test_no_items() -> None:
    assert purities([], [], draws=1, seed=0) == []


def _write(folder: Path) -> list[str]:
    write_jsonl(folder / "ids.jsonl", ({"item_id": str(n), "id": text} for n, text in enumerate(IDS)))
    texts = (f"title: thing {n}; kinds: Beauty, {of}, {n}" for n, of in enumerate(OF))
    write_jsonl(folder / "items.jsonl", ({"item_id": str(n), "text": text} for n, text in enumerate(texts)))
    return ["ids", "purity", str(folder / "ids.jsonl"), "--items", str(folder / "items.jsonl")]


def test_command_writes_a_row_per_level_and_its_record(tmp_path: Path) -> None:
    command = _write(tmp_path)
    assert run([*command, "--category-field", "kinds", "-o", str(tmp_path / "purity.jsonl")]) == 0
    rows = [orjson.loads(line) for line in (tmp_path / "purity.jsonl").read_bytes().splitlines()]
    assert [row["entropy_bits"] for row in rows] == [1.0, 0.8113, 0.0, 0.0]
    assert rows[0] == {"level": 0, "clusters": 1, "entropy_bits": 1.0, "chance_bits": 1.0}
    record = orjson.loads((tmp_path / "purity.jsonl.run.json").read_bytes())
    assert record["options"] == {"category-field": "kinds", "category-depth": 2, "draws": 5}
    assert record["seed"] == 0


@pytest.mark.parametrize(
    ("options", "what"),
    [([], "no item has a field 'categories'"), (["--category-field", "kinds", "--category-depth", "3"], None)],
)
def test_field_and_depth(
    tmp_path: Path, options: list[str], what: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*_write(tmp_path), *options]) == (1 if what else 0)
    shown = capsys.readouterr()
    if what:
        assert what in shown.err
    else:
        assert orjson.loads(shown.out.splitlines()[0])["entropy_bits"] == 3.0  # at depth 3 each item is a category


def test_items_of_other_ids_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = _write(tmp_path)
    write_jsonl(tmp_path / "items.jsonl", [{"item_id": "0", "text": "kinds: a"}])
    assert run([*command, "--category-field", "kinds"]) == 1
    assert "has no item '1'" in capsys.readouterr().err
