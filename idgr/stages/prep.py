"""`idgr prep jsonl`, `amazon`, `amazon-m2`, `yelp`, `steam` and `movielens`: raw dumps to records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import STDOUT, replace_folder
from idgr.formats.run_info import RunInfo, differences, hash_output, read_run
from idgr.options import RUN, Role, StageOptions, argument, option, output_option
from idgr.progress import log
from idgr.stages.options import run_info

if TYPE_CHECKING:
    from idgr.corpus.events import Events
    from idgr.corpus.preparation import Prepared, ReadItems

EVENTS, SPLIT = "Choice of events", "Split"  # panels of the help

Date = str | None


@dataclass(frozen=True, kw_only=True)
class DataSetOptions(StageOptions):
    """Options of every command that writes a data set."""

    output: str = output_option("The folder to write.")
    # It is a field of run.json by itself, not one of its options.
    seed: int = option("Seed of all that is random.", 0, RUN, role=Role.RUN, at_least=0)
    overwrite: bool = option("Replace a data set made of other inputs or options.", False, RUN, role=Role.RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output == STDOUT:
            raise UsageError("prep writes a folder, not standard output", "give the name of a folder to -o")


@dataclass(frozen=True, kw_only=True)
class EventOptions(DataSetOptions):
    """Which events stay, and how they are ordered and split."""

    k_core: int | None = option(
        "Events that each user and item keeps at least; 0 is off (default: 5 for events, off for sequences).",
        None,
        at_least=0,
    )
    min_rating: float | None = option("Leave out what is rated lower.", None, EVENTS)
    begin: Date = option("Leave out events before this date (UTC).", None, EVENTS, flags=("--from",), metavar="DATE")
    end: Date = option("Leave out events on and after this date (UTC).", None, EVENTS, flags=("--to",), metavar="DATE")
    repeats: Literal["keep", "first"] = option("A user's events on one item: all, or only the first.", "keep", EVENTS)
    ties: Literal["file", "shuffle"] | None = option(
        "Order of equal times (default: the file's; random where that is one of items).", None, EVENTS
    )
    split: Literal["leave-one-out", "temporal"] = option(
        "Hold out each user's last two items, or what comes after dates.", "leave-one-out", SPLIT
    )
    valid_from: Date = option("Where training ends (temporal, UTC).", None, SPLIT, metavar="DATE")
    test_from: Date = option("Where validation ends (temporal, UTC).", None, SPLIT, metavar="DATE")
    max_users: int | None = option("Keep so many users, chosen at random.", None, EVENTS, at_least=1)
    missing_text: Literal["error", "drop", "key"] = option(
        "Items without text: stop, leave them out, or take their key.", "error"
    )
    keep_all_items: bool = option("Keep items that no event names.", False)
    allow_sorted: bool = option("Go on where items are in order of their keys.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {self.split == "temporal", self.valid_from is not None, self.test_from is not None}
        if len(given) > 1:
            raise UsageError("--split temporal, --valid-from and --test-from belong together", "give all three or none")
        begin, end, valid_from, test_from = self.dates.values()
        for first, last, told in (
            (begin, end, "--from is not before --to"),
            (valid_from, test_from, "--valid-from is not before --test-from"),
        ):
            if first is not None and last is not None and first >= last:
                raise UsageError(told, "give the earlier date first")

    @property
    def dates(self) -> dict[str, int | None]:
        """In microseconds since 1970, by field."""
        flags = {"begin": "--from", "end": "--to", "valid_from": "--valid-from", "test_from": "--test-from"}
        return {name: _date(flag, getattr(self, name)) for name, flag in flags.items()}


@dataclass(frozen=True, kw_only=True)
class SourceOptions(EventOptions):
    """Options of every source: `source` names its module in `idgr.corpus.sources`, and its command."""

    source: ClassVar[str]

    events: str = argument("Who took what when; - is standard input.", "EVENTS")
    meta: str = option("Metadata of the items; - is standard input.", role=Role.INPUT)
    fields: str | None = option("Metadata keys that make the text, in this order.", None, metavar="A,B,C")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.field_names == []:
            raise UsageError("--fields names no key", "give names such as title,brand")

    @property
    def choice(self) -> dict[str, Any]:
        """Which events the source is to read."""
        return {"min_rating": self.min_rating}

    @property
    def field_names(self) -> list[str] | None:
        if self.fields is None:
            return None
        return [field.strip() for field in self.fields.split(",") if field.strip()]


class JsonlOptions(SourceOptions):
    """Prepare events or sequences in JSON Lines.

    Example: idgr prep jsonl sequences.jsonl.gz --meta meta.jsonl.gz -o data/beauty/
    """

    source = "jsonl"


class AmazonOptions(SourceOptions):
    """Prepare Amazon's reviews and metadata of 2014, 2018 or 2023.

    Example: idgr prep amazon reviews_Beauty_5.json.gz --meta meta_Beauty.json.gz -o data/beauty/
    """

    source = "amazon"


class YelpOptions(SourceOptions):
    """Prepare Yelp's reviews and businesses.

    Example: idgr prep yelp yelp_academic_dataset_review.json --meta yelp_academic_dataset_business.json
    --from 2019-01-01 --to 2020-01-01 -o data/yelp/
    """

    source = "yelp"


class MovielensOptions(SourceOptions):
    """Prepare MovieLens ratings and movies (.dat, .csv, or u.data and u.item).

    Example: idgr prep movielens ml-1m/ratings.dat --meta ml-1m/movies.dat --min-rating 4 -o data/ml-1m/
    """

    source = "movielens"


class SteamOptions(SourceOptions):
    """Prepare Steam's reviews and games, as UCSD has them; --min-rating is of hours played.

    Example: idgr prep steam steam_reviews.json.gz --meta steam_games.json.gz --missing-text drop -o data/steam/
    """

    source = "steam"


@dataclass(frozen=True, kw_only=True)
class AmazonM2Options(SourceOptions):
    """Prepare the sessions and products of Amazon-M2 (KDD Cup 2023).

    Example: idgr prep amazon-m2 sessions_train.csv --meta products_train.csv --locale UK --k-core 5 -o data/m2-uk/
    """

    source = "amazon_m2"

    locale: str | None = option("Take the sessions of this locale alone, such as UK.", None, EVENTS)

    @property
    def choice(self) -> dict[str, Any]:
        return super().choice | {"locale": self.locale}


def run(options: SourceOptions) -> dict[str, Any] | None:
    """Prepare a dump.

    Returns:
        The statistics of the data set, as in its stats.json; None where it was finished before.

    Raises:
        IdgrError: the dump is broken; nothing is left of it; or the output was made otherwise.
    """
    return write_data_set(f"prep {options.source.replace('_', '-')}", options, lambda: _prepared(options))


def write_data_set(command: str, options: DataSetOptions, make: Callable[[], Prepared]) -> dict[str, Any] | None:
    """Write a data set with its record, unless that is done already; `make` is called when nothing stands against it.

    Returns:
        Its statistics; None where it was finished before.
    """
    output, info = options.output, run_info(command, options)
    if not options.overwrite and _is_finished(output, info):
        return None
    from idgr.corpus.preparation import write_prepared

    with replace_folder(output, command, info.inputs.values()) as folder:
        prepared = make()
        write_prepared(folder, prepared)
        info.write(output, folder)
    log(f"wrote {output}")
    return prepared.stats


def _prepared(options: SourceOptions) -> Prepared:
    from importlib import import_module

    from idgr.corpus.metadata import describe_items

    source = import_module(f"idgr.corpus.sources.{options.source}")
    names = options.field_names
    return prepare_events(
        lambda: source.read_events(options.events, **options.choice),
        lambda wanted: describe_items(
            source.read_entries(options.meta),
            wanted,
            names or source.FIELDS,
            duplicates=source.DUPLICATE_ENTRIES,
            chosen=names is not None,
        ),
        options,
    )


def prepare_events(read: Callable[[], Events], read_items: ReadItems, options: EventOptions) -> Prepared:
    """Filter, order and split the events that are read, as the options say."""
    from idgr.corpus.preparation import PrepOptions, prepare

    def told() -> Events:
        events = read()
        log(f"read {len(events):,} events of {len(events.users):,} users on {len(events.items):,} items")
        return events

    how = {field.name: getattr(options, field.name) for field in fields(PrepOptions)} | options.dates
    # Under no name here, so that the events as they were read go when fewer are left.
    return prepare(told(), read_items, PrepOptions(**how), log)


def _date(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    from idgr.corpus.times import parse_date

    try:
        return parse_date(text)
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a date", "write it like 2019-01-31 or 2019-01-31T12:00") from None


def _is_finished(output: str, run: RunInfo) -> bool:
    """Whether a whole data set is there that was made with these options from these inputs.

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
