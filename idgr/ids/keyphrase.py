"""IDs by a rule, with no model: the words of an item's text that tell it from the other items, in the text's order.

A telling word is rare enough to discriminate and common enough to be a word: inverse document frequency, less for words
that no other item has, for numbers and codes, for function words of English, and for words far behind. Names of fields
are no words.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from idgr.formats.item_text import FIELD_NAME
from idgr.ids.assignment import assign
from idgr.ids.spelling import clean_id, fold

WORDS = 4
MOST_WORDS = 6
_SWAPS = 8  # further words that may take the place of the least telling one
_FAR = 20  # words after which a word counts half
_LONGEST_UNSPACED = 6
_PIECE = 2
_LONGEST = 40  # letters; what is longer is no word of any language, and would make an ID that no prompt can hold

_FUNCTION_WORDS = frozenset(
    """a an and are as at be by for from in is it of on or s that the this to with your""".split()  # noqa: SIM905
)

# Scripts that put no spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def keyphrase_ids(
    texts: Sequence[str],
    *,
    unique: bool = True,
    can_spell: Callable[[Sequence[str]], list[bool]] | None = None,
    places: Sequence[int] | None = None,
    taken: Iterable[str] = (),
) -> list[str]:
    """A short phrase of each item's own words.

    Args:
        texts: the items' plain texts, `key: value; key: value`.
        unique: whether to make phrases differ, also in case: with more words, with others, at last with a number.
            Without it a phrase may repeat, and is empty where a text has no words.
        can_spell: whether each text is spelled by the tokenizer that is to read the IDs; words that are not are left
            out.
        places: of which texts, in this order; None for all. The others tell which words are rare.
        taken: phrases that other texts have already.

    Returns:
        A phrase for each text asked for, of `WORDS` words where the text has them and at most `MOST_WORDS` and a
        number.
    """
    frequency = Counter(word for text in texts for word in set(words_of(text)))
    vocabulary = list(frequency)
    spelled = (
        set(vocabulary)
        if can_spell is None
        else {word for word, right in zip(vocabulary, can_spell(vocabulary), strict=True) if right}
    )

    def phrases(text: str) -> list[str]:
        words = [word for word in words_of(text) if word in spelled]
        return _phrases(words, frequency, len(texts))

    asked = range(len(texts)) if places is None else places
    if not unique:
        return [next(iter(phrases(texts[place])), "") for place in asked]

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        found = [phrases(texts[place]) for place, _ in wanted]
        if can_spell is None:
            return found
        right = iter(can_spell([phrase for candidates in found for phrase in candidates]))
        return [[phrase for phrase in candidates if next(right)] for candidates in found]

    everything = can_spell or (lambda ids: [True] * len(ids))
    return [chosen.text for chosen in assign(asked, propose, 1, everything, taken=taken)]


def keyphrase_candidates(texts: Sequence[str]) -> list[list[str]]:
    """What `keyphrase_ids` chooses from for each text: phrases of its own words, in the order of preference."""
    frequency = Counter(word for text in texts for word in set(words_of(text)))
    return [_phrases(list(words_of(text)), frequency, len(texts)) for text in texts]


def words_of(text: str) -> Iterator[str]:
    """The words of a plain text that an ID may hold, in order, without the names of fields and what is overlong."""
    for word in clean_id(FIELD_NAME.sub(" ; ", text)).split():
        if len(word) > _LONGEST_UNSPACED and _UNSPACED.search(word):
            yield from _pieces(word)
        elif len(word) <= _LONGEST:
            yield word


def _pieces(word: str) -> Iterator[str]:
    """A long run of a script without spaces, cut into short pieces, never before a combining mark."""
    start = end = 0
    while start < len(word):
        letters = 0
        while end < len(word) and (letters < _PIECE or unicodedata.category(word[end])[0] == "M"):
            letters += unicodedata.category(word[end])[0] != "M"
            end += 1
        yield word[start:end]
        start = end


def _phrases(words: list[str], frequency: Counter[str], n_texts: int) -> list[str]:
    """Phrases from the most telling words, in the order of preference."""
    best = most_telling(words, frequency, n_texts, WORDS + _SWAPS)
    if not best:
        return []

    def phrase(chosen: list[tuple[int, str]]) -> str:
        return " ".join(word for _, word in sorted(chosen))

    choices = [best[:count] for count in range(min(WORDS, len(best)), min(MOST_WORDS, len(best)) + 1)]
    choices += [[*best[: WORDS - 1], other] for other in best[WORDS:]]
    return list(dict.fromkeys(phrase(chosen) for chosen in choices))


def most_telling(words: Sequence[str], frequency: Mapping[str, int], n_texts: int, count: int) -> list[tuple[int, str]]:
    """The `count` words of a text that tell most, each once whatever its case, as its first place and spelling.

    Args:
        words: all words of the text, in order.
        frequency: of so many of the `n_texts` texts each word is a part.
    """
    first: dict[str, tuple[int, str]] = {}
    for place, word in enumerate(words):
        first.setdefault(fold(word), (place, word))
    ranked = heapq.nsmallest(
        count, ((-telling(word, place, frequency, n_texts), place, word) for place, word in first.values())
    )
    return [(place, word) for _, place, word in ranked]


def telling(word: str, place: int, frequency: Mapping[str, int], n_texts: int) -> float:
    """How well a word tells its text from others, by the rule of this module.

    Args:
        place: how many words of the text stand before it.
        frequency: in how many texts each word stands.
    """
    weight = math.log((1 + n_texts) / frequency[word])
    if frequency[word] == 1:
        weight *= 0.6
    if any(character.isdigit() for character in word):
        weight *= 0.5
    if (len(word) == 1 and word.isascii()) or word in _FUNCTION_WORDS:
        weight *= 0.3
    return weight / (1 + place / _FAR)
