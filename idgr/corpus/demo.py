"""A shop that does not exist: a seeded catalogue in words, and histories that follow rules of taste and of order.

An item is a kind of thing (such as a tent) in a line (a brand's range in one style), and its text names all three. A
shopper has two projects under way, each in a department, and works through its kinds of thing in order, mostly within
one line; lines in the shopper's favourite style are likelier, and so are popular ones. So the next purchase follows
from words in the history, while pairs of items say little: projects interleave. Some items arrive late, and only their
words tell whom they suit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from idgr.corpus.demo_words import BOILERPLATE, BRANDS, DEPARTMENTS, STYLES, SYLLABLES
from idgr.errors import UsageError

# How a shopper behaves: probabilities of each step.
_WHIM = 0.10  # buys anything popular, outside all projects
_SWITCH = 0.80  # turns to the other project rather than going on with the one just served
_NEXT_KIND = 0.75  # takes the very next kind; else skips one
_STAY_IN_LINE = 0.88  # stays in the line; else takes the kind from another line of the department
_FAVOURITE_STYLE = 0.6  # begins a project in the favourite style, where the department has it
_LATE_APPEAL = 0.5  # takes a late arrival of the line, once it is there

_LATE_SHARE = 0.03  # of the items
_LATE_FROM = 0.95  # of the time that the events span
_LINES_PER_BRAND = 3
_MIN_LENGTH, _MAX_LENGTH = 5, 20
_N_KINDS = len(DEPARTMENTS[0].kinds)  # alike in all departments
_START, _SPAN = 1_700_000_000, 2 * 365 * 86_400  # seconds


@dataclass(frozen=True)
class DemoOptions:
    """The size of the shop.

    Args:
        n_items: items in the catalogue, at least 20.
        n_users: shoppers, at least 1.
        seed: decides everything that is drawn.
        mean_length: purchases of a shopper on average, from 5 to 12; each has between 5 and 20.
        distracting: whether texts begin with words that say nothing.

    Raises:
        UsageError: a size is out of range.
    """

    n_items: int = 1_200
    n_users: int = 3_500
    seed: int = 0
    mean_length: float = 8.0
    distracting: bool = False

    def __post_init__(self) -> None:
        if self.n_items < 20:
            raise UsageError(f"a demo of {self.n_items} items is too small", "ask for 20 or more")
        if self.n_users < 1:
            raise UsageError(f"a demo of {self.n_users} users is too small", "ask for 1 or more")
        if not _MIN_LENGTH <= self.mean_length <= 12:
            raise UsageError(f"a mean length of {self.mean_length:g} is out of range", "ask for 5 to 12 purchases")
        if self.seed < 0:
            raise UsageError(f"the seed {self.seed} is negative", "give 0 or more")


@dataclass(frozen=True)
class Line:
    """A brand's range in one style: one item of each kind of its department."""

    department: int
    brand: str
    style: int


@dataclass(frozen=True)
class Shop:
    """What there is to buy. Item i is kind `kind[i]` of line `line[i]`; `weight` is how much it attracts, by itself."""

    lines: list[Line]
    keys: list[str]
    line: list[int]
    kind: list[int]
    late: list[bool]
    item_of: dict[tuple[int, int], int]
    lines_of_department: dict[int, list[int]]
    line_weight: np.ndarray[tuple[int], np.dtype[np.float64]]


def metadata(options: DemoOptions) -> list[dict[str, Any]]:
    """Raw metadata, one record an item: `item_id`, `title`, `brand`, `style`, `categories` (nested),
    `description`."""
    shop = _shop(options)
    rng = np.random.default_rng([options.seed, 1])
    records = []
    for item in range(options.n_items):
        line = shop.lines[shop.line[item]]
        department = DEPARTMENTS[line.department]
        kind = department.kinds[shop.kind[item]]
        adjective, colour, motif = STYLES[line.style]
        title = f"{line.brand} {adjective} {kind.title()}"
        look = f"{kind.capitalize()} in {colour} with {motif}"
        description = f"{look}, from the {adjective} range by {line.brand}, {department.use}."
        if options.distracting:
            first, second = rng.permutation(len(BOILERPLATE))[:2]
            title = f"{BOILERPLATE[first]} - {BOILERPLATE[second]} - {title}"
            description = f"{BOILERPLATE[second]}. {BOILERPLATE[first]}. {description}"
        records.append(
            {
                "item_id": shop.keys[item],
                "title": title,
                "brand": line.brand,
                "style": adjective,
                "categories": [[*department.path, kind.title()]],
                "description": description,
            }
        )
    return sorted(records, key=lambda record: record["item_id"])


def events(options: DemoOptions) -> list[dict[str, Any]]:
    """Raw events in the order of time: `user_id`, `item_id`, `timestamp` (seconds, strictly increasing per user)."""
    shop = _shop(options)
    rng = np.random.default_rng([options.seed, 2])
    rows = [
        (time, f"U{user:0{len(str(options.n_users - 1))}d}", shop.keys[item])
        for user in range(options.n_users)
        for item, time in _purchases(shop, options, rng)
    ]
    rows.sort()
    return [{"user_id": user, "item_id": item, "timestamp": time} for time, user, item in rows]


def _shop(options: DemoOptions) -> Shop:
    rng = np.random.default_rng([options.seed, 0])
    n_lines = math.ceil(options.n_items / _N_KINDS)
    brands = _brand_names(math.ceil(n_lines / _LINES_PER_BRAND) + len(DEPARTMENTS), rng)
    lines: list[Line] = []
    styles_left: dict[str, list[int]] = {}
    for place in range(n_lines):
        department = place % len(DEPARTMENTS)
        # A department's lines go to its brands in threes, each in a style of its own.
        brand = brands[place // len(DEPARTMENTS) // _LINES_PER_BRAND * len(DEPARTMENTS) + department]
        left = styles_left.setdefault(brand, rng.permutation(len(STYLES)).tolist())
        lines.append(Line(department, brand, left.pop()))

    digits = len(str(options.n_items - 1))
    keys = [f"D{number:0{digits}d}" for number in rng.permutation(options.n_items).tolist()]
    line = [item // _N_KINDS for item in range(options.n_items)]
    kind = [item % _N_KINDS for item in range(options.n_items)]
    late = (rng.random(options.n_items) < _LATE_SHARE).tolist()
    lines_of_department: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(lines):
        lines_of_department[one.department].append(place)
    weight = 1.0 / np.sqrt(1.0 + rng.permutation(n_lines))
    item_of = {(line[item], kind[item]): item for item in range(options.n_items)}
    return Shop(lines, keys, line, kind, late, item_of, dict(lines_of_department), weight)


def _brand_names(count: int, rng: np.random.Generator) -> list[str]:
    """Distinct invented names: those of the list in an order of the seed's, then ever longer ones of syllables."""
    names = dict.fromkeys(rng.permutation(BRANDS).tolist()[:count])
    onsets, vowels, ends = SYLLABLES
    parts = 1
    while len(names) < count:
        for _ in range((len(onsets) * len(vowels)) ** parts):
            begin = "".join(str(rng.choice(onsets)) + str(rng.choice(vowels)) for _ in range(parts))
            names[(begin + str(rng.choice(ends))).capitalize()] = None
            if len(names) == count:
                break
        parts += 1
    return list(names)


def _purchases(shop: Shop, options: DemoOptions, rng: np.random.Generator) -> list[tuple[int, int]]:
    """One shopper's items with their times, oldest first."""
    extra = rng.geometric(1.0 / (options.mean_length - _MIN_LENGTH + 1.0)) - 1
    length = min(_MIN_LENGTH + int(extra), _MAX_LENGTH, len(shop.keys) // 2)
    begin = rng.uniform(0.0, 0.6)
    moments = np.sort(rng.uniform(begin, 1.0, size=length))
    times = (_START + moments * _SPAN).astype(np.int64) + np.arange(length)

    favourite = int(rng.integers(len(STYLES)))
    departments = rng.permutation(sorted(shop.lines_of_department))[:2].tolist()
    projects = [_begin(shop, department, favourite, rng) for department in departments]
    bought: dict[int, None] = {}
    now = int(rng.integers(len(projects)))
    for moment in moments.tolist():
        if rng.random() < _WHIM:
            item = _whim(shop, bought, moment, rng)
        else:
            if rng.random() < _SWITCH:
                now = (now + 1) % len(projects)
            item, projects[now] = _go_on(shop, projects[now], bought, moment, favourite, rng)
        bought[item] = None
    return list(zip(bought, times.tolist(), strict=True))


def _begin(shop: Shop, department: int, favourite: int, rng: np.random.Generator) -> tuple[int, int]:
    """A new project as (line, the kind before the first one to buy)."""
    lines = shop.lines_of_department[department]
    suiting = [line for line in lines if shop.lines[line].style == favourite]
    if suiting and rng.random() < _FAVOURITE_STYLE:
        lines = suiting
    return _popular(shop, lines, rng), int(rng.integers(-1, 5))


def _go_on(
    shop: Shop,
    project: tuple[int, int],
    bought: dict[int, None],
    moment: float,
    favourite: int,
    rng: np.random.Generator,
) -> tuple[int, tuple[int, int]]:
    """The next item of a project, and the project after it."""
    line, kind = project
    department = shop.lines[line].department
    if moment >= _LATE_FROM and rng.random() < _LATE_APPEAL:
        for other in range(_N_KINDS):
            item = shop.item_of.get((line, other))
            if item is not None and shop.late[item] and item not in bought:
                return item, (line, kind)
    kind += 1 if rng.random() < _NEXT_KIND else 2
    stays = rng.random() < _STAY_IN_LINE
    place = line if stays else _popular(shop, shop.lines_of_department[department], rng)
    for later in range(kind, _N_KINDS):
        item = shop.item_of.get((place, later))
        if item is not None and _buyable(shop, item, bought, moment):
            return item, (line, later)
    # The line is complete: a loyal shopper turns to another line of the brand, if there is one with anything left.
    brand = [
        other for other in shop.lines_of_department[department] if shop.lines[other].brand == shop.lines[line].brand
    ]
    for other in rng.permutation([one for one in brand if one != line]).tolist():
        for first in range(_N_KINDS):
            item = shop.item_of.get((other, first))
            if item is not None and _buyable(shop, item, bought, moment):
                return item, (other, first)
    return _whim(shop, bought, moment, rng), _begin(shop, department, favourite, rng)


def _whim(shop: Shop, bought: dict[int, None], moment: float, rng: np.random.Generator) -> int:
    """Any item of a popular line. Ends, since a shopper buys at most half of the shop and few items are late."""
    while True:
        place = _popular(shop, range(len(shop.lines)), rng)
        item = shop.item_of.get((place, int(rng.integers(_N_KINDS))))
        if item is not None and _buyable(shop, item, bought, moment):
            return item


def _popular(shop: Shop, lines: Sequence[int], rng: np.random.Generator) -> int:
    weight = shop.line_weight[lines]
    return lines[int(rng.choice(len(lines), p=weight / weight.sum()))]


def _buyable(shop: Shop, item: int, bought: dict[int, None], moment: float) -> bool:
    return item not in bought and (moment >= _LATE_FROM or not shop.late[item])
