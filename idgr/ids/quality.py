"""Whether generated IDs say something of their items: repeated words, words from elsewhere, further attempts.

A generator that has learnt nothing, or has unlearnt it, writes IDs such as `polymaker polymaker polymaker`, of words
that no text has, and needs many attempts until they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idgr.formats.records import ItemId
from idgr.ids.spelling import clean_id

# Of the first IDs that the paper's authors published for Beauty and Sports, 11 and 10 % repeat a word, and 11 and 0 %
# of the words are not in the item's text; 11 % of the IDs of the paper's fusion set needed a second attempt. More than
# twice as much is doubtful, and where most IDs repeat themselves or most words are made up, they are junk.
DOUBTFUL = 0.25
JUNK = 0.5
MIN_IDS = 100  # of fewer the shares are off by a tenth and more, which decides nothing


@dataclass(frozen=True, slots=True)
class IdQuality:
    """What is wrong with IDs, as shares; 0 is best.

    Attributes:
        n_ids: how many IDs were looked at.
        repeating: the share of IDs that hold a word twice, whatever its case.
        strange_words: the share of the IDs' words that the item's text has not, of items with a text.
        second_attempts: the share of IDs for which the first attempt was not enough, of items with a text; 0 where the
            IDs do not tell their attempts.
    """

    n_ids: int
    repeating: float
    strange_words: float
    second_attempts: float

    @property
    def told(self) -> str:
        return (
            f"of {self.n_ids:,} IDs {self.repeating:.1%} repeat a word and {self.second_attempts:.1%} needed a second "
            f"attempt; {self.strange_words:.1%} of their words are not in the item's text"
        )

    @property
    def is_doubtful(self) -> bool:
        """Whether something is more than twice as frequent as in IDs that were found good."""
        return max(self.repeating, self.strange_words, self.second_attempts) > DOUBTFUL

    @property
    def is_junk(self) -> bool:
        """Whether most IDs, or words, say nothing. Attempts alone do not show it: equal texts need them too."""
        return self.n_ids >= MIN_IDS and max(self.repeating, self.strange_words) > JUNK


def id_quality(ids: Sequence[ItemId], texts: Mapping[str, str]) -> IdQuality:
    """Measure textual IDs.

    Args:
        ids: at least one.
        texts: the items' texts by their keys. Items that are missing, or have no text, are not held against one.
    """
    with_attempts = any(record.attempt is not None for record in ids)
    repeating = strange = n_words = further = described = 0
    for record in ids:
        words = record.id.casefold().split()
        repeating += len(set(words)) < len(words)
        text = texts.get(record.item_id)
        if not text:
            continue
        described += 1
        further += with_attempts and record.attempt != 1
        if record.attempt is None and len(words) > 1 and words[-1].isdigit():
            words.pop()  # the number that makes an ID unique
        n_words += len(words)
        strange += _strange(words, clean_id(text).casefold())
    return IdQuality(len(ids), repeating / len(ids), strange / max(1, n_words), further / max(1, described))


def _strange(words: Sequence[str], text: str) -> int:
    known = set(text.split())
    # Scripts without spaces have no words: there an ID holds pieces of the text.
    return sum(word not in known and (word.isascii() or word not in text) for word in words)
