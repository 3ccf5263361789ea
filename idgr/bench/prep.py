"""How fast a review dump is read, beside pandas and beside gzip with orjson, and what memory a whole `prep` needs.

The dump is the user's own, or one made up in the form of Amazon's reviews of 2014.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from idgr.bench.processes import Measurement, measure
from idgr.corpus.metadata import describe_items
from idgr.corpus.preparation import PrepOptions, prepare, write_prepared
from idgr.corpus.sources import amazon
from idgr.formats.jsonl import replace_file

_DAY = 86_400
_SUMMARY = 5  # words
_PART = 5_000_000  # events of a file of Parquet
_K_CORE = 5  # as `prep` has it for events


def bench_reading(path: str | None, *, rows: int, repeats: int, seed: int) -> Iterator[dict[str, Any]]:
    """Read the same dump with each contender in turn, `repeats` times; yield one record per contender.

    Args:
        path: a gzipped dump of Amazon reviews; None makes one of `rows` rows.

    Yields:
        Median rows per second by the wall clock, their ratio to pandas, the seconds of every run by the wall clock and
        of the processors, and the largest peak memory in MiB.
    """
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        if path is None:
            path = str(Path(folder, "reviews.json.gz"))
            write_reviews(path, rows, seed=seed, words=90)
        runs: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
        for _ in range(repeats):
            for name, make in CONTENDERS.items():
                runs[name].append(measure(make, path))
        rates = {name: median(run.result / run.seconds for run in done) for name, done in runs.items()}
        for name, done in runs.items():
            yield {
                "bench": "prep",
                "contender": name,
                "rows": done[0].result,
                "mib": round(Path(path).stat().st_size / 2**20, 1),
                "rows_per_s": round(rates[name]),
                "ratio_to_pandas": round(rates[name] / rates["pandas"], 2),
                "peak_mib": round(max(run.peak_mib for run in done)),
                "seconds": [round(run.seconds, 3) for run in done],
                "cpu_seconds": [round(run.cpu_seconds, 3) for run in done],
                "cpus": os.cpu_count(),
            }


def bench_tables(events: int, *, seed: int, with_pandas: bool) -> Iterator[dict[str, Any]]:
    """Make a folder of Parquet files, prepare it whole, as `prep table` does, and tell time and peak memory.

    Args:
        with_pandas: do the same in pandas after that.
    """
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        write_parts(Path(folder), events, seed=seed)
        paths = str(Path(folder, "events")), str(Path(folder, "items.parquet"))
        yield _of_whole("idgr, whole prep", events, measure(_whole_table, *paths))
        if with_pandas:
            yield _of_whole("pandas, whole prep", events, measure(_whole_pandas, *paths))


def bench_memory(events: int, *, seed: int) -> dict[str, Any]:
    """Make a dump of `events` reviews without their texts, prepare it whole, and tell time and peak memory."""
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        reviews, meta = str(Path(folder, "reviews.json.gz")), str(Path(folder, "meta.jsonl.gz"))
        n_items = write_reviews(reviews, events, seed=seed, words=0)
        with replace_file(meta) as stream:
            for item in range(n_items):
                stream.write(orjson.dumps({"asin": _item_key(item), "title": f"thing {item}"}) + b"\n")
        measured = measure(_whole_prep, reviews, meta, str(Path(folder, "data")))
        return _of_whole("idgr, whole prep", events, measured)


def _of_whole(contender: str, events: int, measured: Measurement) -> dict[str, Any]:
    return {
        "bench": "prep",
        "contender": contender,
        "rows": events,
        **measured.result,
        "rows_per_s": round(events / measured.seconds),
        "peak_mib": round(measured.peak_mib),
        "seconds": [round(measured.seconds, 1)],
        "cpus": os.cpu_count(),
    }


def write_parts(folder: Path, rows: int, *, seed: int) -> None:
    """Write made-up events into `events/` and their items to `items.parquet`, users and items as in `write_reviews`.

    Events stand in no order, their times are seconds.
    """
    import polars

    rng = np.random.default_rng(seed)
    n_users, n_items = max(1, rows // 10), max(1, rows // 100)
    (folder / "events").mkdir()
    for part, begin in enumerate(range(0, rows, _PART)):
        size = min(_PART, rows - begin)
        columns = {
            "user_id": rng.integers(n_users, size=size),
            "item_id": (n_items * rng.random(size) ** 2).astype(np.int64),
            "timestamp": rng.integers(1_300_000_000, 1_700_000_000, size=size),
        }
        polars.DataFrame(columns).write_parquet(folder / "events" / f"part-{part:05}.parquet")
    titles = [f"thing {item}" for item in range(n_items)]
    polars.DataFrame({"item_id": range(n_items), "title": titles}).write_parquet(folder / "items.parquet")


def write_reviews(path: str, rows: int, *, seed: int, words: int) -> int:
    """Write made-up reviews with the keys of Amazon's dump of 2014, grouped by item as there; return how many items.

    Users have 10 reviews on average and items 100, unevenly. Words follow Zipf's law, so the texts compress about as
    real ones do.

    Args:
        words: words in a review on average.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = max(1, rows // 10), max(1, rows // 100)
    letters = rng.integers(97, 123, size=(20_000, 10), dtype=np.uint8)
    vocabulary = [
        bytes(row[:length]).decode() for row, length in zip(letters, rng.integers(2, 11, 20_000), strict=True)
    ]
    likely = 1 / np.arange(1, len(vocabulary) + 1)
    likely /= likely.sum()
    taken = np.sort((n_items * rng.random(rows) ** 2).astype(np.int32))
    with replace_file(path) as stream:
        for begin in range(0, rows, 50_000):
            size = min(50_000, rows - begin)
            users = rng.integers(n_users, size=size)
            items = taken[begin : begin + size]
            days = rng.integers(5_000, size=size)
            stars = rng.integers(1, 6, size=size)
            lengths = rng.poisson(words, size=size)
            text = rng.choice(len(vocabulary), size=int((lengths + _SUMMARY).sum()), p=likely).tolist()
            at = 0
            lines = []
            for user, item, day, star, length in zip(
                users.tolist(), items.tolist(), days.tolist(), stars.tolist(), lengths.tolist(), strict=True
            ):
                row: dict[str, Any] = {"reviewerID": f"A{user:013d}", "asin": _item_key(item)}
                if words:
                    row |= {
                        "reviewerName": f"Reader {user}",
                        "helpful": [0, 0],
                        "reviewText": " ".join([vocabulary[word] for word in text[at : at + length]]),
                        "overall": float(star),
                        "summary": " ".join([vocabulary[word] for word in text[at + length : at + length + _SUMMARY]]),
                        "reviewTime": f"{1 + day % 12:02d} {1 + day % 28}, {2000 + day % 15}",
                    }
                row["unixReviewTime"] = day * _DAY
                at += length + _SUMMARY
                lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            stream.write(b"".join(lines))
    return n_items


def _item_key(item: int) -> str:
    return f"B{item:09d}"


def _pandas() -> Callable[[str], int]:
    import pandas

    return lambda path: len(pandas.read_json(path, lines=True))


def _gzip_orjson() -> Callable[[str], int]:
    def read(path: str) -> int:
        with gzip.open(path) as stream:
            rows = [(row["reviewerID"], row["asin"], row["unixReviewTime"]) for row in map(orjson.loads, stream)]
        return len(rows)

    return read


def _idgr() -> Callable[[str], int]:
    return lambda path: len(amazon.read_events(path))


CONTENDERS: dict[str, Callable[[], Callable[[str], int]]] = {
    "pandas": _pandas,
    "gzip + orjson": _gzip_orjson,
    "idgr": _idgr,
}


def _whole_prep() -> Callable[[str, str, str], dict[str, int]]:
    def run(reviews: str, meta: str, output: str) -> dict[str, int]:
        prepared = prepare(
            amazon.read_events(reviews), lambda wanted: describe_items(amazon.read_entries(meta), wanted), PrepOptions()
        )
        Path(output).mkdir()
        write_prepared(Path(output), prepared)
        return {name: prepared.stats[name] for name in ("users", "items", "interactions")}

    return run


def _whole_table() -> Callable[[str, str], dict[str, int]]:
    from idgr.corpus.sources import table

    def run(events: str, items: str) -> dict[str, int]:
        prepared = prepare(
            table.read_events([events], table.Columns()),
            lambda wanted: describe_items(table.read_entries([items]), wanted),
            PrepOptions(),
        )
        output = Path(events).with_name("data")
        output.mkdir()
        write_prepared(output, prepared)
        return {name: prepared.stats[name] for name in ("users", "items", "interactions")}

    return run


def _whole_pandas() -> Callable[[str, str], dict[str, int]]:
    """Order, 5-core, leave-one-out split and JSON Lines, as somebody who knows pandas would write it."""
    import pandas
    import polars

    def read(path: str) -> pandas.DataFrame:
        table = polars.read_parquet(path)  # in pandas it needs one more package
        return pandas.DataFrame({name: table[name].to_numpy() for name in table.columns})

    def run(events: str, items: str) -> dict[str, int]:
        frame = read(events).sort_values(["user_id", "timestamp"], kind="stable")
        n_before = -1
        while len(frame) != n_before:
            n_before = len(frame)
            for column in ("user_id", "item_id"):
                frame = frame[frame.groupby(column)[column].transform("size") >= _K_CORE]
        histories = frame.groupby("user_id", sort=False)["item_id"].agg(list)
        output = Path(events).with_name("pandas")
        output.mkdir()
        parts = {
            "train": {"items": histories.str[:-2]},
            "valid": {"history": histories.str[:-2], "target": histories.str[-2]},
            "test": {"history": histories.str[:-1], "target": histories.str[-1]},
        }
        for name, columns in parts.items():
            table = pandas.DataFrame(columns).reset_index()
            table.to_json(output / f"{name}.jsonl", orient="records", lines=True)
        known = frame["item_id"].unique()
        texts = read(items)
        texts[texts["item_id"].isin(known)].to_json(output / "items.jsonl", orient="records", lines=True)
        return {"users": len(histories), "items": len(known), "interactions": len(frame)}

    return run
