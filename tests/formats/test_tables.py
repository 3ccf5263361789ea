"""What polars makes of a block of CSV is what the `csv` module makes of it, or it is not taken."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats import tables
from idgr.formats.tables import open_tables

NAMES = ["a", "b", "c"]
cells = st.text(st.sampled_from("xé7 \"'#\\;."), max_size=4)
quoted = st.text(st.sampled_from('x",\n\r '), max_size=4).map(lambda text: '"' + text.replace('"', '""') + '"')
rows = st.lists(st.lists(cells | quoted, min_size=2, max_size=4).map(",".join), min_size=1, max_size=4)


def read(path: Path) -> list[tuple[int, tuple[str, ...]]] | str:
    """The rows with their lines, empty cells as such; or the message of the error."""
    found = []
    try:
        for table in open_tables([path]):
            for frame, lines in table.batches(NAMES):
                found += zip(lines, (tuple(cell or "" for cell in row) for row in frame.rows()), strict=True)
    except IdgrError as fault:
        return str(fault)
    return found


@settings(max_examples=200, deadline=None)
@given(rows, st.sampled_from(["\n", "\r\n"]))
@example(["1,2", '"a,b",2,3'], "\n")
@example(["1,2,3", "", "4,5,6"], "\n")
@example(["1,2,", "4,5,"], "\n")
@example(['1,"x"y,2'], "\n")
@example(["#1,2,3"], "\n")
def test_both_readings_agree(tmp_path_factory: pytest.TempPathFactory, rows: list[str], end: str) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes((end.join([",".join(NAMES), *rows]) + end).encode())
    fast = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables._Csv, "_plain", lambda *_: None)
        slow = read(path)
    if isinstance(slow, str) and "not a line of CSV" in slow:
        return  # a lone carriage return in a field, which polars takes
    assert fast == slow


def test_plain_rows_are_parsed_by_polars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b,c\n1,,3\n"4",5,\n' * 1)
    expected = [(2, ("1", "", "3")), (3, ("4", "5", ""))]
    assert read(path) == expected
    path.write_bytes(b"a,b,c\n" + b"1,,3\n4,5,\n" * 3)
    monkeypatch.setattr(tables._Csv, "_careful", lambda *_: pytest.fail("not needed"))
    found = read(path)
    assert [row for _, row in found] == [row for _, row in expected] * 3
    assert [line for line, _ in found] == list(range(2, 8))


def test_records_are_written_as_parquet(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert run(["prep", "demo", "--items", "30", "--users", "40", "-o", data]) == 0
    for command in (
        ["recommend", f"{data}/test.jsonl", "--baseline", "popularity", "--train", f"{data}/train.jsonl", "-k", "5"],
        ["gen-ids", f"{data}/items.jsonl", "--model", "keyphrase"],
    ):
        lines, packed = tmp_path / "x.jsonl", tmp_path / "x.parquet"
        assert run([*command, "-o", str(lines)]) == 0
        assert run([*command, "-o", str(packed)]) == 0
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        found = polars.read_parquet(packed).to_dicts()
        assert [{name: value for name, value in row.items() if value is not None} for row in found] == rows
        assert json.loads((tmp_path / "x.parquet.run.json").read_text())["outputs"].keys() == {"x.parquet"}
    with tables.lines_to_parquet(empty := io.BytesIO()):
        pass
    assert polars.read_parquet(empty.getvalue()).is_empty()


def test_damaged_parquet_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    polars.DataFrame({name: ["x", "y", None] for name in NAMES}).write_parquet(packed := io.BytesIO())
    path, whole, refused = tmp_path / "x.parquet", packed.getvalue(), 0
    for at in range(4, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        found = read(path)
        refused += isinstance(found, str)
        assert not isinstance(found, str) or found.startswith(f"{path}: cannot be read as Parquet"), found
    assert refused > 10
    assert capfd.readouterr().err == ""
