"""Numbers as words of an ID, and the numbers that tell equals apart.

A code is a word of letters only, the first of which tells its level, such as "aar" for code 17 of the first level:
SentencePiece never joins letters and digits in one piece, so "a17" would always be two tokens and "aar" can be one. A
number in order is written by twos of digits, which a learnt vocabulary gives a token each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

_LETTERS = 26
LEAF = "z"  # the first letter of a word that no level of a path begins with
LEVELS = _LETTERS - 1


def width_of(count: int) -> int:
    """How many letters tell the numbers below `count` apart; at least one."""
    width = 1
    while _LETTERS**width < count:
        width += 1
    return width


def code_word(level: int | str, number: int, width: int) -> str:
    """A number at a level, as that level's letter and `width` letters that count as digits do, "a" for 0.

    Args:
        level: from 0; after `LEVELS` levels the letters begin again. Or a letter, such as `LEAF`.
        number: below 26 ** `width`.
    """
    letters = []
    for _ in range(width):
        number, place = divmod(number, _LETTERS)
        letters.append(chr(ord("a") + place))
    first = level if isinstance(level, str) else chr(ord("a") + level % LEVELS)
    return first + "".join(reversed(letters))


def by_twos(number: int, count: int) -> str:
    """A number below `count` in words of two digits, with zeros before it: 777 of 12,101 is "00 07 77"."""
    n_words = 1
    while 100**n_words < count:
        n_words += 1
    digits = f"{number:0{2 * n_words}d}"
    return " ".join(digits[place : place + 2] for place in range(0, len(digits), 2))


def among_equals(values: Iterable[Hashable]) -> list[int]:
    """For each value, how many equal ones stand before it."""
    seen: Counter[Hashable] = Counter()
    numbers = []
    for value in values:
        numbers.append(seen[value])
        seen[value] += 1
    return numbers
