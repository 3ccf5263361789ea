"""From events and texts to a data set that stages can read: filter, order, split, describe, write."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idgr.corpus.events import Events
from idgr.corpus.filtering import in_window, k_core, of_items
from idgr.corpus.ordering import (
    Histories,
    drop_repeats,
    histories,
    is_grouped_by_item,
    sample_users,
    tied_share,
)
from idgr.corpus.removals import Removals, Tell
from idgr.corpus.splitting import NONE, Split, by_date, leave_one_out
from idgr.corpus.statistics import ascending_share, describe, is_sorted_by_key
from idgr.corpus.ties import tie_order
from idgr.corpus.times import LATE
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
            None shuffles where the file is grouped by item or more of these events are in order of item key than chance
            allows (`tie_order`), since its order is then one of items.
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


def prepare(events: Events, read_items: ReadItems, options: PrepOptions, tell: Tell = lambda note: None) -> Prepared:
    """Filter, order and split events, and find the text of every item.

    Args:
        tell: takes what a user should know, in words: what was left out and why, and how ties are ordered.

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
    read, grouped = len(events), is_grouped_by_item(events)
    _tell_late(events, tell)
    removals = Removals(events, tell)
    events, known, repeats = _chosen(events, read_items, options, removals, tell)
    k = options.k_core if options.k_core is not None else _usual_k_core(events)
    _tell_k_core(k, events, options, tell)
    if k > 1:
        kept, rounds = k_core(events.user, events.item, k)
        events = events.keep(kept)
        removals.note(f"k-core {k}, in {rounds:,} rounds", events)
    if not len(events):
        raise IdgrError(
            f"no interactions are left of {read:,}",
            f"lower --k-core (now {k}) or widen the choice of events",
            where=events.source,
        )
    whole, ties = _ordered(events, grouped, options, tell)
    if options.max_users is not None:
        sampled = sample_users(whole, options.max_users, options.seed)
        left = len(sampled), len(sampled.users), len(sampled.items)
        removals.note_left(f"not of the {options.max_users:,} users chosen", left)
        whole = sampled
    share, n_users = _refuse_sorted(whole, events.source, options)
    split = _split(whole, events.source, options)

    items = _catalogue(known, read_items, set(whole.items), events, options, tell)
    stats = describe(split)
    _tell_split(stats, options, tell)
    stats["catalogue"] = len(items)
    stats["read"] = {"events": read, "repeats_left_out": repeats}
    stats["removed"] = removals.rows()
    stats["k_core"] = k
    stats["timed"] = events.timed
    stats["ties"] = ties
    stats["ascending_key_order"] = {"share": share, "users": n_users}
    return Prepared(items, split, stats)


def _chosen(
    events: Events, read_items: ReadItems, options: PrepOptions, removals: Removals, tell: Tell
) -> tuple[Events, dict[str, Item] | None, int]:
    """The events in the window, without repeats, and of items with text if others are to go; and how many repeats."""
    if options.begin is not None or options.end is not None:
        events = events.keep(in_window(events.time, options.begin, options.end))
        removals.note("outside of --from and --to", events)
    before = len(events)
    events = drop_repeats(events, options.repeats)
    repeats = before - len(events)
    again = "the user had the item before" if options.repeats == "first" else "repeats of user, item and time"
    removals.note(again, events)
    known: dict[str, Item] | None = None
    if options.missing_text == "drop":
        used = [events.items[code] for code in np.unique(events.item).tolist()]
        found = read_items(_wanted(set(used), options))
        known = {name: item for name, item in found.items() if item.text}
        if missing := [name for name in used if name not in known]:
            tell(f"{_told_missing(missing, found)}; they are left out (--missing-text drop)")
        events = events.keep(of_items(events, known.keys()))
        removals.note("items without text in the metadata", events)
    return events, known, repeats


def _usual_k_core(events: Events) -> int:
    return 0 if events.sequences else 5


def _tell_k_core(k: int, events: Events, options: PrepOptions, tell: Tell) -> None:
    if options.k_core is not None:
        return
    if events.sequences:
        tell("k-core off, the default for sequences (--k-core 5 is that for single events, and gives the same items)")
    else:
        tell(f"k-core {k}, the default for events (--k-core 0 is that for sequences, and gives the same items)")


def _tell_late(events: Events, tell: Tell) -> None:
    if events.timed and (late := events.time >= LATE).any():
        at = int(late.argmax())
        path, line = events.place(int(events.line[at]))
        tell(f"{int(late.sum()):,} events are dated after 2100, the first of them in {path}:{line}")


def _ordered(events: Events, grouped: bool, options: PrepOptions, tell: Tell) -> tuple[Histories, dict[str, Any]]:
    """Every user's sequence, and what `stats.json` says of events of equal time."""
    shuffle = options.ties == "shuffle" or (options.ties is None and grouped)
    whole = histories(events, shuffle_ties=shuffle, seed=options.seed)
    if not events.timed:
        return whole, {"share": 0.0, "order": "shuffle" if shuffle else "file"}
    ties: dict[str, Any] = {"share": tied_share(whole)}
    if shuffle:
        if options.ties is None and ties["share"]:
            tell("ties: the file is grouped by item, so events of equal time are put in seeded random order (--ties)")
        return whole, ties | {"order": "shuffle"}
    found = tie_order(whole)
    ties |= {"order": "file", "key_order": found.row()}
    if found.by_key and options.ties is None:
        tell(f"ties: {found.told()}; they are put in seeded random order (--ties file keeps them)")
        whole = histories(events, shuffle_ties=True, seed=options.seed)
        ties["order"] = "shuffle"
    elif found.by_key:
        tell(f"ties: {found.told()}, and --ties file keeps them: `idgr audit` fails that")
    return whole, ties


def _refuse_sorted(whole: Histories, source: str, options: PrepOptions) -> tuple[float, int]:
    """The share of users whose items ascend by key, and of how many."""
    share, n_users = ascending_share(whole)
    if is_sorted_by_key(share, n_users) and not options.allow_sorted:
        raise IdgrError(
            f"{share:.0%} of {n_users:,} users have their items in ascending order of item key, where chance gives "
            "less than 5%: the data are sorted by key, not by time, so a user's last item is not the newest",
            "give events with timestamps or sequences oldest first; --allow-sorted goes on all the same",
            where=source,
        )
    return share, n_users


def _split(whole: Histories, source: str, options: PrepOptions) -> Split:
    if options.valid_from is not None and options.test_from is not None:
        split = by_date(whole, options.valid_from, options.test_from)
    else:
        split = leave_one_out(whole)
    for part, empty in (("training", not split.train_end.any()), ("test", not (split.test_at != NONE).any())):
        if empty:
            raise IdgrError(
                f"the split leaves nothing for {part}",
                "leave-one-out needs users with 3 events or more, a split by date events on both sides of each date",
                where=source,
            )
    return split


def _tell_split(stats: dict[str, Any], options: PrepOptions, tell: Tell) -> None:
    if without := stats["users"] - stats["test"]["users"]:
        why, theirs = "fewer than 3 events", "what is theirs"
        if options.test_from is not None:
            why, theirs = "no event on both sides of --test-from", "what is theirs from before --valid-from"
        tell(f"{without:,} of {stats['users']:,} users have no test target ({why}); {theirs} is for training")
    for name in ("valid", "test"):
        if again := stats[name]["in_history"]:
            tell(
                f"{again:,} of {stats[name]['users']:,} {name} targets stand in the user's own history: a ranking that "
                "leaves the history out never hits them (--repeats first makes no such targets; recommend "
                "--keep-history ranks them)"
            )


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
    known: dict[str, Item] | None,
    read_items: ReadItems,
    used: set[str],
    events: Events,
    options: PrepOptions,
    tell: Tell,
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
        path, line = events.place(int(events.line[(events.item == events.items.index(first)).argmax()]))
        others = f", and so have {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise IdgrError(
            f"item {first!r} has no text in the metadata{others}",
            "add metadata, or give --missing-text drop (without these items) or key (their key as text)",
            where=path,
            line=line,
        )
    if missing:
        tell(f"{_told_missing(missing, known)}; their key is their text (--missing-text key)")
    for name in bare if options.missing_text != "key" else []:
        del listed[name]
    for name in [*missing, *bare] if options.missing_text == "key" else []:
        listed[name] = Item(name, f"item: {name.lower()}")
    return list(listed.values())


def _told_missing(missing: Sequence[str], known: Container[str]) -> str:
    """Which items have no text, and how many of them are not in the metadata at all."""
    absent = [item for item in missing if item not in known]
    return (
        f"{len(missing):,} items have no text, such as {(absent or missing)[0]!r}; "
        f"{len(absent):,} of them are not in the metadata at all"
    )
