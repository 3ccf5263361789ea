"""From events and texts to a data set that stages can read: filter, order, split, describe, write.

Knows the order of these steps and what is refused; not the sources, nor the options on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idgr.corpus.events import Events
from idgr.corpus.filtering import in_window, k_core, of_items
from idgr.corpus.ordering import drop_repeats, histories, is_grouped_by_item, sample_users, tied_share
from idgr.corpus.splitting import NONE, Split, by_date, leave_one_out
from idgr.corpus.statistics import ascending_share, describe, is_sorted_by_key
from idgr.errors import IdgrError
from idgr.formats.jsonl import write_json, write_jsonl
from idgr.formats.records import Item

# The items whose keys are given (None: all that are known) with their texts, in the order of the metadata.
ReadItems = Callable[[Container[str] | None], dict[str, Item]]


@dataclass(frozen=True)
class PrepOptions:
    """How events become a data set.

    Attributes:
        k_core: users and items keep at least so many events; None: 5 for events, 0 (off) for sequences.
        begin, end: only events at or after `begin` and before `end`, in microseconds since 1970.
        repeats: "keep" or "first", see `drop_repeats`.
        ties: events of a user at the same time keep the order of the "file", or are put in random order ("shuffle");
            None shuffles where the file is grouped by item, since its order is then one of items.
        valid_from, test_from: both given: split by date, in microseconds since 1970; else leave-one-out.
        max_users: a random choice of so many users, after the k-core.
        missing_text: what to do about items without text: "error", "drop" (before the k-core), or "key" (the item's key
            is its text).
        keep_all_items: keep items of the metadata that no event names.
        allow_sorted: go on where sequences are in order of item key.
        seed: of the random order of ties and choice of users.
    """

    k_core: int | None = None
    begin: int | None = None
    end: int | None = None
    repeats: str = "keep"
    ties: str | None = None
    valid_from: int | None = None
    test_from: int | None = None
    max_users: int | None = None
    missing_text: str = "error"
    keep_all_items: bool = False
    allow_sorted: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """A data set: the catalogue, the split, and what `stats.json` says of them."""

    items: list[Item]
    split: Split
    stats: dict[str, Any]


def prepare(events: Events, read_items: ReadItems, options: PrepOptions) -> Prepared:
    """Filter, order and split events, and find the text of every item.

    Raises:
        IdgrError: nothing is left; items lack text; dates are asked for where there are none; or the sequences are in
            order of item key.
    """
    if not events.timed and (options.begin, options.end, options.valid_from, options.test_from) != (None,) * 4:
        raise IdgrError(
            "the sequences have no times to choose or split by",
            'give "times" or split leave-one-out',
            where=events.source,
        )
    read = len(events)
    shuffle_ties = options.ties == "shuffle" or (options.ties is None and is_grouped_by_item(events))
    if options.begin is not None or options.end is not None:
        events = events.keep(in_window(events.time, options.begin, options.end))
    in_time = len(events)
    events = drop_repeats(events, options.repeats)
    repeats = in_time - len(events)
    known: dict[str, Item] | None = None
    if options.missing_text == "drop":
        known = {name: item for name, item in read_items(_wanted(set(events.items), options)).items() if item.text}
        events = events.keep(of_items(events, known.keys()))
    k = options.k_core if options.k_core is not None else (0 if events.sequences else 5)
    if k > 1:
        events = events.keep(k_core(events.user, events.item, k))
    if not len(events):
        raise IdgrError(
            f"no interactions are left of {read:,}",
            f"lower --k-core (now {k}) or widen the choice of events",
            where=events.source,
        )
    whole = histories(events, shuffle_ties=shuffle_ties, seed=options.seed)
    if options.max_users is not None:
        whole = sample_users(whole, options.max_users, options.seed)

    share, n_users = ascending_share(whole)
    if is_sorted_by_key(share, n_users) and not options.allow_sorted:
        raise IdgrError(
            f"{share:.0%} of {n_users:,} users have their items in ascending order of item key, where chance gives "
            "less than 5%: the data are sorted by key, not by time, so a user's last item is not the newest",
            "give events with timestamps or sequences oldest first; --allow-sorted goes on all the same",
            where=events.source,
        )
    if options.valid_from is not None and options.test_from is not None:
        split = by_date(whole, options.valid_from, options.test_from)
    else:
        split = leave_one_out(whole)

    for part, empty in (("training", not split.train_end.any()), ("test", not (split.test_at != NONE).any())):
        if empty:
            raise IdgrError(
                f"the split leaves nothing for {part}",
                "leave-one-out needs users with 3 events or more, a split by date events on both sides of each date",
                where=events.source,
            )

    items = _catalogue(known, read_items, set(whole.items), events, options)
    stats = describe(split)
    stats["catalogue"] = len(items)
    stats["read"] = {"events": read, "repeats_left_out": repeats}
    stats["k_core"] = k
    stats["timed"] = events.timed
    stats["ties"] = {
        "share": tied_share(whole) if events.timed else 0.0,
        "order": "shuffle" if shuffle_ties else "file",
    }
    stats["ascending_key_order"] = {"share": share, "users": n_users}
    return Prepared(items, split, stats)


def write_prepared(folder: Path, prepared: Prepared) -> None:
    """Write `items.jsonl`, `train.jsonl`, `valid.jsonl`, `test.jsonl` and `stats.json` into a folder."""
    write_jsonl(folder / "items.jsonl", (item.row() for item in prepared.items))
    write_jsonl(folder / "train.jsonl", (sequence.row() for sequence in prepared.split.train()))
    write_jsonl(folder / "valid.jsonl", (query.row() for query in prepared.split.valid()))
    write_jsonl(folder / "test.jsonl", (query.row() for query in prepared.split.test()))
    write_json(folder / "stats.json", prepared.stats)


def _wanted(items: set[str], options: PrepOptions) -> set[str] | None:
    return None if options.keep_all_items else items


def _catalogue(
    known: dict[str, Item] | None, read_items: ReadItems, used: set[str], events: Events, options: PrepOptions
) -> list[Item]:
    """The items in the order of the metadata; those without text, if their key is to do, after them."""
    if known is None:
        known = read_items(_wanted(used, options))
    listed = {name: item for name, item in known.items() if options.keep_all_items or name in used}
    # An item that no event names can be left out without a loss, so its missing text stops nothing.
    bare = [name for name, item in listed.items() if not item.text and name not in used]
    missing = [name for name in events.items if name in used and not (name in listed and listed[name].text)]
    if missing and options.missing_text != "key":
        first = missing[0]
        line = int(events.line[(events.item == events.items.index(first)).argmax()])
        others = f", and so have {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise IdgrError(
            f"item {first!r} has no text in the metadata{others}",
            "add metadata, or give --missing-text drop (without these items) or key (their key as text)",
            where=events.source,
            line=line,
        )
    for name in bare if options.missing_text != "key" else []:
        del listed[name]
    for name in [*missing, *bare] if options.missing_text == "key" else []:
        listed[name] = Item(name, f"item: {name.lower()}")
    return list(listed.values())
