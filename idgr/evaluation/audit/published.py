"""Checks of data in the layout that the paper's authors published.

`user_sequence.txt` has a user and its items on a line, the last one held out for test; `item_plain_text.txt` an item
and its text; `user_generative_index_phase_0.txt` a user and the words of its ID, `item_generative_indexing_phase_0.txt`
an item and those of its own. Fields are separated by spaces.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, Check, judged, skipped
from idgr.evaluation.audit.id_texts import id_text_checks
from idgr.evaluation.audit.sequences import not_sorted_by_key
from idgr.evaluation.audit.user_words import word_leak
from idgr.formats.jsonl import Lines
from idgr.formats.records import ItemId

SEQUENCES, TEXTS = "user_sequence.txt", "item_plain_text.txt"
USER_IDS, ITEM_IDS = "user_generative_index_phase_0.txt", "item_generative_indexing_phase_0.txt"

Rows = list[tuple[int, str, str]]


def is_published(folder: Path) -> bool:
    return (folder / SEQUENCES).is_file()


def read_rows(path: Path) -> Rows:
    """Line number, first word and the rest of every line. Raises `IdgrError` where a line is not UTF-8."""
    rows = []
    for number, line in Lines(path):
        try:
            key, _, rest = line.decode().partition(" ")
        except UnicodeDecodeError as fault:
            what = f"not valid UTF-8 ({fault.reason})"
            raise IdgrError(what, "save the file as UTF-8", where=path, line=number) from None
        rows.append((number, key, rest.strip()))
    return rows


def published_checks(folder: Path) -> list[Check]:
    """All checks that such a folder allows. Raises `IdgrError` where a file cannot be read."""
    path = folder / SEQUENCES
    rows = read_rows(path)
    sequences = {user: rest.split() for _, user, rest in rows}
    checks = [
        not_sorted_by_key(list(sequences.values()), path),
        users_once(rows, path),
        _targets_new(sequences, path),
        _long_enough(rows, path),
    ]
    texts: dict[str, str] | None = None
    if (folder / TEXTS).is_file():
        texts = {item: text for _, item, text in read_rows(folder / TEXTS)}
        checks.append(_described(sequences, texts, folder / TEXTS))
    else:
        checks.append(skipped("every item has a text", folder, f"there is no {TEXTS}"))
    if (folder / ITEM_IDS).is_file():
        ids = [(number, ItemId(item, text)) for number, item, text in read_rows(folder / ITEM_IDS)]
        checks += id_text_checks(ids, folder / ITEM_IDS)
    else:
        checks.append(skipped("IDs are unique", folder, f"there is no {ITEM_IDS}"))
    checks.append(_user_ids(folder, sequences, texts))
    return checks


def users_once(rows: Rows, path: Path) -> Check:
    """Whether every user has one line."""
    counts = Counter(user for _, user, _ in rows)
    faults = [f"line {number}: user {user!r} again" for number, user, _ in _repeated(rows)]
    return judged("users stand once", path, faults, f"{len(counts):,} users on {len(rows):,} lines")


def _repeated(rows: Rows) -> Rows:
    seen: set[str] = set()
    again = []
    for row in rows:
        if row[1] in seen:
            again.append(row)
        seen.add(row[1])
    return again


def _long_enough(rows: Rows, path: Path) -> Check:
    short = [f"line {number}: user {user!r} has {len(rest.split())} items" for number, user, rest in rows
             if len(rest.split()) < 3]  # fmt: skip
    return judged("users have three items or more", path, short, "leave-one-out holds two of them out")


def _targets_new(sequences: dict[str, list[str]], path: Path) -> Check:
    faults = [f"user {user!r}: {items[-1]!r}" for user, items in sequences.items() if items and items[-1] in items[:-1]]
    return judged(
        "test items are not in the user's own history", path, faults, f"none of {len(sequences):,} users' test items is"
    )


def _described(sequences: dict[str, list[str]], texts: dict[str, str], path: Path) -> Check:
    items = dict.fromkeys(item for row in sequences.values() for item in row)
    faults = [f"item {item!r} has none" for item in items if not texts.get(item)]
    return judged("every item has a text", path, faults, f"{len(items):,} items")


def _user_ids(folder: Path, sequences: dict[str, list[str]], texts: dict[str, str] | None) -> Check:
    name, path = "user IDs tell nothing of the test item", folder / USER_IDS
    if not path.is_file() or texts is None:
        missing = TEXTS if texts is None else USER_IDS
        return skipped(name, folder, f"there is no {missing}")
    found = word_leak(sequences, texts, {user: rest for _, user, rest in read_rows(path)})
    if not found.n_users:
        return skipped(name, path, "no user's test item has a rare word that the items before it lack")
    told = (
        f"of {found.n_users:,} users whose test item has a rare word that no item before it has, "
        f"{found.leaked / found.n_users:.1%} have such a word in their ID, "
        f"and {found.by_chance / found.n_users:.1%} with another user's test item in its place "
        f"(sign test: p {'= ' + format(found.chance, '.1g') if found.chance > 1e-300 else '< 1e-300'})"
    )
    if found.is_leak:
        return Check(name, str(path), FAIL, f"{told}: the IDs were made from the whole sequence")
    if not found.can_tell:
        return skipped(name, path, f"too few users to tell: {told}")
    return Check(name, str(path), PASS, told)
