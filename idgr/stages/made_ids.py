"""What `idgr gen-ids` looks at in the IDs that it has made, and says of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError
from idgr.formats.records import Item, ItemId
from idgr.formats.run_info import RunInfo
from idgr.progress import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_spelling(texts: list[str], rec_tokenizer: str) -> None:
    """Raise `IdgrError` where a recommender's tokenizer does not read IDs back as they are."""
    from idgr.ids.spelling import can_spell
    from idgr.models.tokenizer import load_tokenizer

    can = can_spell(load_tokenizer(rec_tokenizer), texts)
    wrong = [text for text, right in zip(texts, can, strict=True) if not right]
    if wrong:
        raise IdgrError(
            f"the tokenizer does not read back {len(wrong)} of {len(texts)} IDs, such as {wrong[0]!r}",
            "give another --rec-tokenizer or none: train-rec then learns its vocabulary from the IDs",
            where=rec_tokenizer,
        )


def warn_of_junk(ids: list[ItemId], catalogue: list[Item]) -> None:
    """Say so where a generator's IDs repeat words, make words up, or need many attempts."""
    from idgr.ids.quality import id_quality

    found = id_quality(ids, {item.item_id: item.text for item in catalogue})
    if found.is_doubtful:
        log(
            f"gen-ids: warning: {found.told}; train the generator longer, give it pairs, try --no-repeat-ngram 2, or "
            "take --scheme shared"
        )


def tell(
    ids: list[ItemId], recommender: PreTrainedTokenizerBase, length_step: int, run: RunInfo, facts: dict[str, Any]
) -> None:
    """The summary, on standard error and in run.json."""
    from idgr.ids.generation import summarize

    figures = summarize(ids, recommender, length_step)
    run.facts["summary"] = asdict(figures) | facts
    line = f"gen-ids: {figures.items} items, {figures.mean_tokens:.1f} tokens an ID, at most {figures.max_tokens}"
    if facts:
        close = facts["close_searches"] / max(1, facts["searches"])
        line += (
            f"; second attempts {figures.second_attempts:.2%}, longer IDs {figures.longer:.2%}, "
            f"from no attempt {figures.without_attempt:.2%}; close searches made again {close:.2%}"
        )
    log(line)
