"""`idgr prep`: raw dumps to the records that all other stages read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idgr.errors import IdgrError, UsageError, check_utf8
from idgr.formats.jsonl import STDIN, STDOUT, replace_folder
from idgr.formats.run_info import RunInfo, differences, hash_output, read_run
from idgr.progress import log

if TYPE_CHECKING:
    from idgr.corpus.preparation import Prepared

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _prep() -> None:
    """Turn raw dumps into items, training sequences and held-out targets.

    Example: idgr prep amazon reviews_Beauty_5.json.gz --meta meta_Beauty.json.gz -o data/beauty/
    """


class Repeats(StrEnum):
    keep = "keep"
    first = "first"


class Ties(StrEnum):
    file = "file"
    shuffle = "shuffle"


class SplitBy(StrEnum):
    leave_one_out = "leave-one-out"
    temporal = "temporal"


class MissingText(StrEnum):
    error = "error"
    drop = "drop"
    key = "key"


Interactions = Annotated[str, typer.Argument(metavar="EVENTS", help="Who took what when; - is standard input.")]
Meta = Annotated[str, typer.Option("--meta", help="Metadata of the items; - is standard input.")]
Output = Annotated[str, typer.Option("-o", "--output", help="The folder to write.")]
KCore = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Events that each user and item keeps at least; 0 is off (default: 5 for events, off for sequences).",
    ),
]
MinRating = Annotated[float | None, typer.Option(help="Leave out what is rated lower.")]
From = Annotated[str | None, typer.Option("--from", metavar="DATE", help="Leave out events before this date (UTC).")]
To = Annotated[str | None, typer.Option("--to", metavar="DATE", help="Leave out events on and after this date (UTC).")]
RepeatsOption = Annotated[Repeats, typer.Option(help="A user's events on one item: all, or only the first.")]
TiesOption = Annotated[
    Ties | None,
    typer.Option(help="Order of equal times (default: the file's; random where that is one of items)."),
]
SplitOption = Annotated[SplitBy, typer.Option(help="Hold out each user's last two items, or what comes after dates.")]
ValidFrom = Annotated[str | None, typer.Option(metavar="DATE", help="Where training ends (temporal split, UTC).")]
TestFrom = Annotated[str | None, typer.Option(metavar="DATE", help="Where validation ends (temporal split, UTC).")]
MaxUsers = Annotated[int | None, typer.Option(min=1, help="Keep so many users, chosen at random.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is random.")]
Fields = Annotated[str | None, typer.Option(metavar="A,B,C", help="Metadata keys that make the text, in this order.")]
MissingTextOption = Annotated[
    MissingText, typer.Option(help="Items without text: stop, leave them out, or take their key.")
]
KeepAllItems = Annotated[bool, typer.Option("--keep-all-items", help="Keep items that no event names.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a data set made of other inputs or options.")]
AllowSorted = Annotated[bool, typer.Option("--allow-sorted", help="Go on where items are in order of their keys.")]


def _add_source(name: str, summary: str, example: str) -> None:
    """Add the subcommand for the source in `idgr.corpus.sources.NAME`; all have the same options."""

    def command(
        interactions: Interactions,
        meta: Meta,
        output: Output,
        k_core: KCore = None,
        min_rating: MinRating = None,
        begin: From = None,
        end: To = None,
        repeats: RepeatsOption = Repeats.keep,
        ties: TiesOption = None,
        split: SplitOption = SplitBy.leave_one_out,
        valid_from: ValidFrom = None,
        test_from: TestFrom = None,
        max_users: MaxUsers = None,
        seed: Seed = 0,
        fields: Fields = None,
        missing_text: MissingTextOption = MissingText.error,
        keep_all_items: KeepAllItems = False,
        allow_sorted: AllowSorted = False,
        overwrite: Overwrite = False,
    ) -> None:
        options: dict[str, Any] = {
            "k-core": k_core,
            "min-rating": min_rating,
            "from": begin,
            "to": end,
            "repeats": repeats,
            "ties": ties,
            "split": split,
            "valid-from": valid_from,
            "test-from": test_from,
            "max-users": max_users,
            "fields": fields,
            "missing-text": missing_text,
            "keep-all-items": keep_all_items,
            "allow-sorted": allow_sorted,
        }
        _check_output(output)
        if interactions == STDIN and meta == STDIN:
            raise UsageError("the events and --meta cannot both be standard input", "give one of them as a file")
        dates = {option: _date(option, options[option]) for option in ("from", "to", "valid-from", "test-from")}
        temporal = split is SplitBy.temporal
        if temporal != (valid_from is not None) or temporal != (test_from is not None):
            raise UsageError("--split temporal, --valid-from and --test-from belong together", "give all three or none")
        for earlier, later in (("from", "to"), ("valid-from", "test-from")):
            first, last = dates[earlier], dates[later]
            if first is not None and last is not None and first >= last:
                raise UsageError(f"--{earlier} is not before --{later}", "give the earlier date first")
        names = None if fields is None else [field.strip() for field in fields.split(",") if field.strip()]
        if names == []:
            raise UsageError("--fields names no key", "give names such as title,brand")
        run = RunInfo(f"prep {name}", options, {"events": interactions, "meta": meta}, seed, outputs=[output])
        if not overwrite and _is_finished(output, run):
            return

        with _folder(output, run) as write:
            from importlib import import_module

            from idgr.corpus.metadata import describe_items
            from idgr.corpus.preparation import PrepOptions, prepare

            source = import_module(f"idgr.corpus.sources.{name}")
            events = source.read_events(interactions, min_rating=min_rating)
            log(f"read {len(events):,} events of {len(events.users):,} users on {len(events.items):,} items")
            write(
                prepare(
                    events,
                    lambda wanted: describe_items(
                        source.read_entries(meta),
                        wanted,
                        names or source.FIELDS,
                        duplicates=source.DUPLICATE_ENTRIES,
                        chosen=names is not None,
                    ),
                    PrepOptions(
                        k_core=k_core,
                        begin=dates["from"],
                        end=dates["to"],
                        repeats=repeats,
                        ties=ties,
                        valid_from=dates["valid-from"],
                        test_from=dates["test-from"],
                        max_users=max_users,
                        missing_text=missing_text,
                        keep_all_items=keep_all_items,
                        allow_sorted=allow_sorted,
                        seed=seed,
                    ),
                    log,
                )
            )

    command.__doc__ = f"{summary}\n\n    Example: {example}"
    app.command(name)(command)


_add_source(
    "jsonl",
    "Prepare events or sequences in JSON Lines.",
    "idgr prep jsonl sequences.jsonl.gz --meta meta.jsonl.gz -o data/beauty/",
)
_add_source(
    "amazon",
    "Prepare Amazon's reviews and metadata of 2014, 2018 or 2023.",
    "idgr prep amazon reviews_Beauty_5.json.gz --meta meta_Beauty.json.gz -o data/beauty/",
)
_add_source(
    "yelp",
    "Prepare Yelp's reviews and businesses.",
    "idgr prep yelp yelp_academic_dataset_review.json --meta yelp_academic_dataset_business.json "
    "--from 2019-01-01 --to 2020-01-01 -o data/yelp/",
)
_add_source(
    "movielens",
    "Prepare MovieLens ratings and movies (.dat or .csv).",
    "idgr prep movielens ml-1m/ratings.dat --meta ml-1m/movies.dat --min-rating 4 -o data/ml-1m/",
)


@app.command("demo")
def demo_command(
    output: Output,
    n_items: Annotated[int, typer.Option("--items", min=20, help="Items in the catalogue.")] = 1_200,
    n_users: Annotated[int, typer.Option("--users", min=1, help="Users.")] = 3_500,
    distracting: Annotated[
        bool, typer.Option("--distracting", help="Begin texts with words that say nothing.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make up a shop, its catalogue and its users' histories, and prepare them (leave-one-out, no k-core).

    Example: idgr prep demo --items 1200 --users 3500 --seed 0 -o data/demo/
    """
    _check_output(output)
    options = {"items": n_items, "users": n_users, "distracting": distracting}
    run = RunInfo("prep demo", options, {}, seed, outputs=[output])
    if not overwrite and _is_finished(output, run):
        return

    from idgr.corpus.demo import DemoOptions, events, metadata
    from idgr.corpus.events import from_rows
    from idgr.corpus.metadata import Entry, describe_items
    from idgr.corpus.preparation import PrepOptions, prepare

    shop = DemoOptions(n_items=n_items, n_users=n_users, seed=seed, distracting=distracting)
    with _folder(output, run) as write:
        entries = [Entry("demo", place, row["item_id"], row) for place, row in enumerate(metadata(shop), 1)]
        write(
            prepare(
                from_rows("demo", events(shop)),
                lambda wanted: describe_items(entries, wanted),
                PrepOptions(k_core=0, keep_all_items=True),
            )
        )


@app.command("fuse")
def fuse_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DATA…", help="Folders that `idgr prep` wrote.")],
    output: Output,
    max_users: Annotated[
        int | None, typer.Option(min=1, help="Of each set keep so many users, chosen at random, and their items.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Join prepared data sets into one, with keys such as `beauty/B0042XTB5G`.

    Example: idgr prep fuse data/sports/ data/office/ --max-users 30000 -o data/fused/
    """
    _check_output(output)
    if len(folders) < 2:
        raise UsageError("fuse needs two folders or more", "give another one")
    check_utf8("names in the output", *folders)
    options = {"max-users": max_users}
    run = RunInfo(
        "prep fuse",
        options,
        {f"data-{place}": folder for place, folder in enumerate(folders, 1)},
        seed,
        outputs=[output],
    )
    if not overwrite and _is_finished(output, run):
        return

    from idgr.corpus.fusion import fuse

    with _folder(output, run) as write:
        write(fuse(folders, max_users=max_users, seed=seed))


def _check_output(output: str) -> None:
    if output == STDOUT:
        raise UsageError("prep writes a folder, not standard output", "give the name of a folder to -o")


def _is_finished(output: str, run: RunInfo) -> bool:
    """Whether the data set is there, whole, and made with these options from these inputs; so nothing is to be done.

    Raises:
        IdgrError: what is there was made otherwise.
    """
    record = read_run(output) if Path(output).is_dir() else {}
    if not record:
        return False
    found = [differences(record, run.provenance())]
    if record.get("command") == run.command and record.get("seed") != run.seed:
        found.append(f"made with --seed {record.get('seed')}, not {run.seed}")
    if told := ", ".join(filter(None, found)):
        todo = "give the same, another folder to -o, or --overwrite to replace it"
        raise IdgrError(f"is there and was {told}", todo, where=output)
    if hash_output(output) == record.get("outputs"):
        log(f"{run.command}: {output} is finished, with these options and inputs; nothing to do")
        return True
    log(f"{run.command}: {output} is not as its run.json says, and is made again")
    return False


def _date(option: str, text: str | None) -> int | None:
    from idgr.corpus.times import parse_date

    try:
        return None if text is None else parse_date(text)
    except ValueError:
        raise UsageError(f"--{option} {text!r} is not a date", "write it like 2019-01-31 or 2019-01-31T12:00") from None


@contextmanager
def _folder(output: str, run: RunInfo) -> Iterator[Callable[[Prepared], None]]:
    """Make sure that the output can be written before work starts; give what writes a data set there."""
    from idgr.corpus.preparation import write_prepared

    stats: dict[str, Any] = {}
    with replace_folder(output, run.command, run.inputs.values()) as folder:

        def write(prepared: Prepared) -> None:
            write_prepared(folder, prepared)
            run.write(output, folder)
            stats.update(prepared.stats)

        yield write
    _show(output, stats)


def _show(output: str, stats: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    lengths = stats["sequence_length"]
    unseen = stats["test"]["unseen"]
    rows = [
        ("users", f"{stats['users']:,}"),
        (
            "items",
            f"{stats['items']:,}" + (f" of {stats['catalogue']:,}" if stats["catalogue"] != stats["items"] else ""),
        ),
        ("interactions", f"{stats['interactions']:,}"),
        ("density", f"{stats['density']:.3%}"),
        ("events per user", f"{lengths['min']} to {lengths['max']}, mean {lengths['mean']:.2f}"),
        ("users in valid, test", f"{stats['valid']['users']:,}, {stats['test']['users']:,}"),
        ("test targets unseen in training", "–" if unseen is None else f"{unseen:.2%}"),
    ]
    log(f"wrote {output}")
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, markup=False, highlight=False).print(table)
