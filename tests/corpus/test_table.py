"""`idgr prep table`: the same data set from every form of table as `prep jsonl` makes of the same events."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from idgr.cli.main import run
from idgr.corpus import ordering, statistics
from idgr.corpus.sources.table import Columns, read_entries, read_events
from idgr.errors import IdgrError, UsageError
from idgr.formats import tables

Write = Callable[[str, Any], Path]
FILES = ("items.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl", "stats.json")
FIRST = 1_600_000_000


def made_up() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events and items; keys with zeros before them, a title with a comma, a tab's width of spaces and a quote."""
    draw = random.Random(5)
    events = [
        {
            "user_id": f"{user:03}",
            "item_id": f"{item:03}",
            "timestamp": FIRST + draw.randrange(10**6),
            "rating": item % 5,
        }
        for user in range(40)
        for item in draw.sample(range(30), 8)
    ]
    draw.shuffle(events)
    items = [{"item_id": f"{n:03}", "title": f'a "{n}", red; lamp', "kind": f"k{n % 3}"} for n in range(30)]
    return events, items


def separated(rows: list[dict[str, Any]], mark: str = ",", names: list[str] | None = None, end: str = "\n") -> bytes:
    def cell(value: Any) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in f'{mark}"\n') else text

    lines = [names or list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(mark.join(map(cell, line)) + end for line in lines).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    pl.DataFrame(rows).write_parquet(packed := io.BytesIO(), row_group_size=37)
    return packed.getvalue()


def result(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Run `idgr prep table …`, which must succeed; what it wrote."""

    def table(*arguments: str | Path) -> dict[str, bytes]:
        output = tmp_path / "table"
        assert run(["prep", "table", *map(str, arguments), "--k-core", "3", "-o", str(output), "--overwrite"]) == 0
        return result(output)

    return table


@pytest.fixture
def expected(write: Write, prep: Callable[..., Path]) -> dict[str, bytes]:
    events, items = made_up()
    return result(prep("jsonl", write("events.jsonl", events), write("meta.jsonl", items), "--k-core", "3"))


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "e.csv": separated,
    "e.tsv": lambda rows: separated(rows, "\t"),
    "semicolons.csv": lambda rows: separated(rows, ";"),
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + separated(rows, end="\r\n"),
    "e.csv.gz": separated,
    "gzip_by_another_name.csv": lambda rows: gzip.compress(separated(rows)),
    "e.parquet": parquet,
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("block", [7, 1 << 16])
def test_every_form_gives_the_bytes_of_jsonl(
    write: Write,
    table: Callable[..., dict[str, bytes]],
    expected: dict[str, bytes],
    name: str,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "BLOCK", block)
    monkeypatch.setattr(tables, "ROWS", block)
    events, items = made_up()
    assert table(write(name, FORMS[name](events)), "--items", write(f"items_{name}", FORMS[name](items))) == expected


@pytest.mark.parametrize("block", [1, 5, 100])
@pytest.mark.parametrize("more", [(), ("--repeats", "first"), ("--ties", "shuffle", "--max-users", "20")])
def test_blocks_of_events_give_the_bytes_of_all_at_once(
    write: Write, table: Callable[..., dict[str, bytes]], block: int, more: tuple[str, ...], monkeypatch: Any
) -> None:
    draw, (events, items) = random.Random(block), made_up()
    events += [draw.choice(events) | {"timestamp": FIRST + draw.randrange(3)} for _ in range(60)]
    arguments = (write("e.csv", separated(events)), "--items", write("i.csv", separated(items)), *more)
    expected = table(*arguments)
    monkeypatch.setattr(ordering, "BLOCK", block)
    monkeypatch.setattr(statistics, "BLOCK", block)
    monkeypatch.setattr(tables, "BLOCK", block)
    assert table(*arguments) == expected


def test_parts_in_a_folder_and_several_files(
    tmp_path: Path, table: Callable[..., dict[str, bytes]], expected: dict[str, bytes], write: Write
) -> None:
    events, items = made_up()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/_SUCCESS").write_bytes(b"")
    for part, name in enumerate(("part-0.parquet", "part-1.parquet", "part-2.csv")):
        rows = events[part * 100 : (part + 1) * 100 if part < 2 else None]
        (tmp_path / "parts" / name).write_bytes(parquet(rows) if name.endswith("parquet") else separated(rows))
    meta = write("items.csv", separated(items))
    assert table(tmp_path / "parts", "--items", meta) == expected
    one, other = write("one.csv", separated(events[:150])), write("other.tsv", separated(events[150:], "\t"))
    assert table(one, other, "--items", meta) == expected


def test_columns_by_name(
    write: Write, table: Callable[..., dict[str, bytes]], expected: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    events, items = made_up()
    path = write("e.csv", separated(events, names=["who", "what", "at", "how"]))
    meta = write("i.csv", separated(items, names=["what", "title", "kind"]))
    named = ("--user-col", "who", "--item-col", "what", "--time-col", "at")
    assert table(path, "--items", meta, *named) == expected
    told = capsys.readouterr().err
    assert f"{path}: users from who, items from what, times from at\n" in told
    assert f"{meta}: items from what, their text from title, kind\n" in told
    assert table(path, "--items", meta, *named, "--text-col", "title", "--text-col", "kind") == expected
    headless = write("none.csv", separated(events).split(b"\n", 1)[1])
    assert table(headless, "--items", meta, "--columns", "who,what,at,how", *named) == expected


def test_events_that_tell_of_the_items_too(write: Write, table: Callable[..., dict[str, bytes]], expected: Any) -> None:
    events, items = made_up()
    texts = {item["item_id"]: item for item in items}
    order = {row["item_id"]: n for n, row in enumerate(map(json.loads, expected["items.jsonl"].splitlines()))}
    path = write("e.csv", separated([event | texts[event["item_id"]] for event in events]))
    found = table(path, "--items", str(path), "--text-col", "title", "--text-col", "kind")
    rows = sorted(map(json.loads, found.pop("items.jsonl").splitlines()), key=lambda row: order[row["item_id"]])
    assert rows == list(map(json.loads, expected.pop("items.jsonl").splitlines()))
    assert found == expected


def test_recbole(write: Write, table: Callable[..., dict[str, bytes]], expected: dict[str, bytes]) -> None:
    events, items = made_up()
    names = ["user_id:token", "item_id:token", "timestamp:float", "rating:float"]
    rows = [event | {"timestamp": float(event["timestamp"])} for event in events]
    inter = write("x.inter", separated(rows, "\t", names))
    raw = "".join(f"{item['item_id']}\t{item['title']}\t{item['kind']}\n" for item in items)  # no quotes around quotes
    item = write("x.item", f"item_id:token\ttitle:token_seq\tkind:token\n{raw}".encode())
    assert table(inter, "--items", item) == expected
    typed = ("--user-col", "user_id:token", "--item-col", "item_id:token")
    texts = ("--text-col", "title:token_seq", "--text-col", "title", "--text-col", "kind:token")
    assert table(inter, "--items", item, *typed, *texts) == expected


def test_keys_of_items_are_first_sought_as_the_events_call_them(write: Write) -> None:
    path = write("x.item", b"item_id:token\tthing:token\tname:token_seq\n1\t7\tLamp\n")
    (entry,) = read_entries([str(path)], like="thing:token")
    assert (entry.item_id, entry.record) == ("7", {"name": "Lamp"})


def triples(path: Path, **named: Any) -> list[tuple[str, str, int]]:
    drop = named.pop("drop_missing", False)
    rating = named.pop("min_rating", None)
    events = read_events([str(path)], Columns(**named), drop_missing=drop, min_rating=rating)
    columns = zip(events.user.tolist(), events.item.tolist(), events.time.tolist(), strict=True)
    return [(events.users[user], events.items[item], time) for user, item, time in columns]


MOMENT = datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        *(FIRST, FIRST * 1_000, FIRST * 10**6, float(FIRST), f"{FIRST}.0", f" {FIRST}", "1.6e9"),
        *("2020-09-13 12:26:40", "2020-09-13T14:26:40+02:00", "2020-09-13T12:26:40Z", "2020-09-13 12:26:40 UTC"),
    ],
)
def test_times(write: Write, value: Any) -> None:
    assert triples(write("e.csv", f"user,item,time\nu,i,{value}\n".encode())) == [("u", "i", FIRST * 10**6)]


@pytest.mark.parametrize(
    "value",
    [FIRST, float(FIRST), str(FIRST), MOMENT, MOMENT.replace(tzinfo=None), MOMENT.astimezone(timezone(timedelta(0)))],
)
def test_times_of_parquet(write: Write, value: Any) -> None:
    assert triples(write("e.parquet", parquet([{"user": 7, "item": "007", "time": value}]))) == [
        ("7", "007", FIRST * 10**6)
    ]


def test_dates_and_zones_of_parquet(write: Write) -> None:
    frame = pl.DataFrame({"user": ["u"], "item": ["i"], "time": [MOMENT]})
    frame = frame.with_columns(pl.col("time").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms"))
    frame.write_parquet(packed := io.BytesIO())
    assert triples(write("e.parquet", packed.getvalue())) == [("u", "i", FIRST * 10**6)]
    assert triples(write("d.parquet", parquet([{"user": "u", "item": "i", "time": MOMENT.date()}]))) == [
        ("u", "i", (FIRST - FIRST % 86_400) * 10**6)
    ]
    for name, content in (
        ("n.parquet", parquet([{"user": "u", "item": "i", "time": 20200913}])),
        ("n.csv", b"user,item,time\nu,i,20200913\n"),
    ):
        assert triples(write(name, content)) == [("u", "i", (FIRST - FIRST % 86_400) * 10**6)]
    with pytest.raises(IdgrError, match=r"y.parquet: row 1: \"time\" '9999-12-31' is in the year 9999"):
        triples(write("y.parquet", parquet([{"user": "u", "item": "i", "time": MOMENT.date().replace(9999, 12, 31)}])))


def test_keys_stay_as_they_stand(write: Write) -> None:
    content = b"user,item,time\n007,1.50,1\n 7,NA,2\n1e3,null,3\n"
    assert triples(write("e.csv", content)) == [
        ("007", "1.50", 10**6),
        (" 7", "NA", 2 * 10**6),
        ("1e3", "null", 3 * 10**6),
    ]


def test_rows_of_several_lines_blank_lines_and_strange_quotes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'user,item,time,note\nu,1,1,"a\n\nb"\n\n\nu,"2",2,5" pipe\nv,3,3,"x, ""y"""\nw,"4"a,4,\n'
    wanted = [("u", "1", 10**6), ("u", "2", 2 * 10**6), ("v", "3", 3 * 10**6), ("w", "4a", 4 * 10**6)]
    for block in (1, 2, 3, 100):
        monkeypatch.setattr(tables, "BLOCK", block)
        path = write("e.csv", content)
        assert triples(path) == wanted
        assert read_events([str(path)], Columns()).line.tolist() == [2, 7, 8, 9]


HEAD = b"user,item,time,rating\n"


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b"u,1,1,3\nu,2\n", 3, "2 fields, not 4"),
        (b"u,1,1,3\nu,2,3,4,5\n", 3, "5 fields, not 4"),
        (b'u,"1,1",1,3\nu,2,3\n', 3, "3 fields, not 4"),  # as many commas as if all were well
        (b"u,1,1,3\n\nu,,1,3\n", 4, "nothing in the column of items, item; .*--missing-keys drop"),
        (b"u,1,1,3\n,2,1,3\n", 3, "nothing in the column of users, user"),
        (b"u,1,1,3\nu,2,noon,3\n", 3, "\"time\" 'noon' is not a number"),
        (b"u,1,1,3\nu,2,,3\n", 3, '"time".* missing'),
        (b"u,1,2020-01-01,3\nu,2,5,3\n", 3, "\"time\" '5' is not a date"),
        (b"u,1,1,3\nu,2,2,good\n", 3, "rating 'good' is not a number"),
        (b"u,1,1,3\nu,2,2,\n", 3, "rating None is not a number"),
        (b"u,1,1,3\nu,\xff,2,1\n", 3, "not valid UTF-8"),
        (b'u,1,1,3\nu,"2,2,3\nu,3,3,3\n', 2, "a quote that is opened in this line or after it is not closed"),
        (b"u,1,1600000000,3\nu,2,9000000000,3\nu,2,1600000000000,3\n", 3, "could be in seconds"),
    ],
)
def test_faults_are_named_with_their_line(write: Write, content: bytes, line: int, what: str) -> None:
    path = write("e.csv", HEAD + content)
    with pytest.raises(IdgrError, match=what) as caught:
        triples(path, min_rating=0)
    assert (caught.value.where, caught.value.line) == (str(path), line)


def test_faults_of_parquet_name_the_row(write: Write) -> None:
    path = write("e.parquet", parquet([{"user": "u", "item": "i", "time": 1}, {"user": None, "item": "i", "time": 1}]))
    with pytest.raises(IdgrError, match=r"e.parquet: row 2: nothing in the column of users, user"):
        triples(path)
    assert triples(path, drop_missing=True) == [("u", "i", 10**6)]
    with pytest.raises(IdgrError, match=r"the column user holds Float64, and keys are text or whole numbers"):
        triples(write("f.parquet", parquet([{"user": 1.5, "item": "i", "time": 1}])))
    with pytest.raises(IdgrError, match=r"the column of times, time, holds Boolean"):
        triples(write("b.parquet", parquet([{"user": 1, "item": "i", "time": True}])))
    with pytest.raises(UsageError, match=r"--columns is for CSV without a header, and .*e.parquet is Parquet; leave"):
        triples(write("e.parquet", parquet([{"user": 1, "item": 1, "time": 1}])), names=["user", "item", "time"])
    with pytest.raises(IdgrError, match=r"cut.parquet: cannot be read as Parquet"):
        triples(write("cut.parquet", path.read_bytes()[:-20]))


def test_the_file_of_a_fault_among_several(write: Write) -> None:
    one = write("one.csv", b"user,item,time\nu,1,1600000000\nu,2,1600000000000\n")
    two = write("two.csv", b"user,item,time\nu,1,1600000000\nu,2,9000000000\n")
    with pytest.raises(IdgrError, match=r"two.csv:3: the time 9000000000 could be"):
        read_events([str(one), str(two)], Columns())
    dated = write("dated.csv", b"user,item,time\nu,1,2020-01-01\n")
    with pytest.raises(IdgrError, match=r"dated.csv:2: \"time\" '2020-01-01' is not a number"):
        read_events([str(one), str(dated)], Columns())
    bare = write("z.csv", b"user,item,time\n")
    with pytest.raises(IdgrError, match=r"two.csv:3: the time 9000000000 could be"):
        read_events([str(one), str(bare), str(two)], Columns())


def test_rows_without_keys_are_counted(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, items = made_up()
    path = write("e.csv", separated(events) + b",001,1600000000,3\nu,,1600000000,3\n")
    output = tmp_path / "data"
    command = ["prep", "table", str(path), "--items", str(write("i.csv", separated(items))), "-o", str(output)]
    assert run(command) == 1
    assert f"{path}:322: nothing in the column of users" in capsys.readouterr().err
    assert run([*command, "--missing-keys", "drop"]) == 0
    assert "left out 2 events (rows without a user or an item)" in capsys.readouterr().err
    removed = json.loads((output / "stats.json").read_text())["removed"]
    assert removed[0] == {"why": "rows without a user or an item", "events": 2, "users": 0, "items": 0}


def test_low_ratings_are_left_out(write: Write) -> None:
    path = write("e.csv", b"user,item,time,stars\nu,1,1,3\nv,2,2,2.5\nu,3,3,5\n")
    assert triples(path, min_rating=3) == [("u", "1", 10**6), ("u", "3", 3 * 10**6)]
    assert read_events([str(path)], Columns(), min_rating=3).below_rating == (1, 1, 1)


@pytest.mark.parametrize(
    ("content", "named", "kind", "what"),
    [
        (b"a,b,c\n1,2,3\n", {}, IdgrError, "no column has a usual name for users: a, b, c; name it with --user-col"),
        (b"user,b,c\n1,2,3\n", {}, IdgrError, "no column has a usual name for items: user, b, c; .* --item-col"),
        (
            b"user,item,c\n1,2,3\n",
            {"time": "d"},
            UsageError,
            "--time-col d: no such column in .*; choose from user, it",
        ),
        (b"user,user,item,time\n1,1,2,3\n", {}, IdgrError, "e.csv:1: two columns are called 'user'"),
        (b"7,8,9\n1,2,3\n", {}, IdgrError, "e.csv:1: no header: 7 is a value, .* --columns"),
        (b"1,2,3\n", {"names": ["user", "item"]}, IdgrError, "e.csv:1: 3 fields, but --columns names 2"),
        (b"user,item,time\n", {}, IdgrError, "holds a header only"),
        (b"", {}, IdgrError, "is empty"),
        (b"user,item,time\r1,2,3\r", {}, IdgrError, "lines end in carriage returns alone; write line feeds: tr"),
        ("user,item,time\n1,2,3\n".encode("utf-16"), {}, IdgrError, "is UTF-16 text"),
    ],
)
def test_headers(write: Write, content: bytes, named: dict[str, Any], kind: type[IdgrError], what: str) -> None:
    with pytest.raises(kind, match=what):
        triples(write("e.csv", content), **named)


def test_entries(write: Write) -> None:
    path = write("i.csv", b'id,name,url,sales_rank\n007,Lamp,http://x.y,5\n8,"Red\nrug",,\n')
    told: list[str] = []
    first, second = read_entries([str(path)], tell=told.append)
    assert (first.item_id, first.line, first.record["name"]) == ("007", 2, "Lamp")
    assert (second.item_id, second.line, second.record["name"]) == ("8", 3, "Red\nrug")
    assert told == [f"{path}: items from id, their text from name"]
    with pytest.raises(IdgrError, match=r"i.csv:3: nothing in the column of keys, id"):
        list(read_entries([str(write("i.csv", b"id,name\n7,a\n,b\n"))]))
    frame = pl.DataFrame(
        {"sku": [7], "tags": [["a", "b"]], "made": [MOMENT.date()], "kind": pl.Series(["x"]).cast(pl.Categorical)}
    ).with_columns(length=pl.lit(timedelta(hours=2, minutes=10)), pause=pl.lit(None, pl.Duration))
    frame.write_parquet(packed := io.BytesIO())
    (entry,) = read_entries([str(write("i.parquet", packed.getvalue()))])
    made = {"tags": ["a", "b"], "made": "2020-09-13", "kind": "x", "length": "2h 10m", "pause": None}
    assert (entry.item_id, entry.record) == ("7", made)


def test_standard_input(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    events, items = made_up()
    stream = io.BufferedReader(io.BytesIO(separated(events)))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
    output, meta = tmp_path / "out", write("i.csv", separated(items))
    assert run(["prep", "table", "-", "--items", str(meta), "--k-core", "3", "-o", str(output)]) == 0
    assert result(output) == expected


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ([], "no --items, so no item has a text; give --items, or --missing-text key"),
        (["--rating-col", "r", "--items", "i"], "--rating-col does nothing without --min-rating"),
        (["--text-col", "r", "--missing-text", "key"], "--text-col is of --items, which is not given"),
        (["--items", "e.csv"], "--items is a table of events, .*--text-col"),
        (["--items", "i", "--columns", "a,,b"], "--columns names an empty column"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    assert run(["prep", "table", "e.csv", *options, "-o", "nowhere"]) == 2
    assert re.search(what, capsys.readouterr().err)


def test_keys_as_texts(write: Write, tmp_path: Path) -> None:
    path, output = write("e.csv", separated(made_up()[0])), tmp_path / "out"
    assert run(["prep", "table", str(path), "--missing-text", "key", "-o", str(output)]) == 0
    assert json.loads((output / "items.jsonl").read_text().splitlines()[0])["text"].startswith("item: 0")
