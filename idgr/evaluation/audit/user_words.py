"""Whether users' IDs were made from items that they should not know: a paired test of words.

The paper's published code makes a user's ID from the whole sequence, the test item included. Such an ID holds words of
that item which no shown item has. So the share of users with such a word is held against the share that the same users
would have with another user's test item. Only words that few items have are counted: a generator may well guess that
who bought shampoo needs conditioner, but not the name of a brand.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Words of at most this share of the items, and of this many items in any case, are counted.
RARE_SHARE, RARE_ITEMS = 0.005, 3
# Fewer users with a countable word of the target than this decide nothing.
MIN_USERS = 30
MAX_CHANCE = 1e-6
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class WordLeak:
    """What the test found.

    Attributes:
        n_users: users whose test item has a rare word that no shown item has.
        leaked: how many of their IDs hold such a word.
        by_chance: how many hold one of another user's test item.
        chance: how likely so large a difference would be without a leak (sign test, one-sided).
    """

    n_users: int
    leaked: int
    by_chance: int
    chance: float

    @property
    def is_leak(self) -> bool:
        return self.chance < MAX_CHANCE and self.leaked > 2 * self.by_chance

    @property
    def can_tell(self) -> bool:
        """Whether a leak in a tenth of the users would have been found."""
        return self.n_users >= MIN_USERS and sign_test(math.ceil(self.n_users / 10), 0) < MAX_CHANCE


def word_leak(
    sequences: Mapping[str, Sequence[str]], texts: Mapping[str, str], user_ids: Mapping[str, str], seed: int = 0
) -> WordLeak:
    """Compare users' IDs with the items that are held out for them.

    Args:
        sequences: each user's items, oldest first; the last one is the test item.
        texts: the items' texts.
        user_ids: the users' IDs, as text.
    """
    words = {item: set(_WORD.findall(text.casefold())) for item, text in texts.items()}
    spread = Counter(word for found in words.values() for word in found)
    most = max(RARE_ITEMS, RARE_SHARE * len(words))
    rare = {item: {word for word in found if spread[word] <= most} for item, found in words.items()}

    users = [user for user, items in sequences.items() if user in user_ids and len(items) > 1]
    targets = [sequences[user][-1] for user in users]
    order = np.random.default_rng(seed).permutation(len(users))
    # Along a random round, everyone gets the next one's test item.
    other = {int(place): targets[int(after)] for place, after in zip(order, np.roll(order, -1), strict=True)}
    n_users = leaked = by_chance = first_only = second_only = 0
    for place, user in enumerate(users):
        shown: set[str] = set().union(*(words.get(item, set()) for item in sequences[user][:-1]))
        own = rare.get(targets[place], set()) - shown
        if not own:
            continue
        held = set(_WORD.findall(user_ids[user].casefold()))
        has, would = bool(held & own), bool(held & (rare.get(other[place], set()) - shown))
        n_users += 1
        leaked += has
        by_chance += would
        first_only += has and not would
        second_only += would and not has
    return WordLeak(n_users, leaked, by_chance, sign_test(first_only, second_only))


def sign_test(first: int, second: int) -> float:
    """The chance that of `first + second` tosses of a coin at least `first` show heads."""
    n = first + second
    if not n:
        return 1.0
    terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(first, n + 1)
    ]
    largest = max(terms)
    return min(1.0, math.exp(largest) * sum(math.exp(term - largest) for term in terms))
