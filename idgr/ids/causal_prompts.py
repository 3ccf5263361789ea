"""What a causal language model is asked for an item's ID, and what ends its answer.

A model with a chat template gets one message of a user; a base model gets three examples, which are made up, and
goes on where the name of a fourth product would stand. One that was taught to write IDs needs neither: it gets the
text. Texts are put in as tokens, so that no text can close a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from idgr.errors import IdgrError
from idgr.models.hub import told_as_unusable
from idgr.models.tokenizer import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HOLE = "THE-TEXT-OF-THE-PRODUCT"
_BESIDE = "THE-TEXTS-OF-THE-PRODUCTS-BESIDE-IT"
PLAIN = f"Text: {_HOLE}\nName:\n"
_REQUEST = f"""Write a short name, of 3 to 6 ordinary lower-case words, for the product with this text:
* {_HOLE}

Answer with the name alone, in words of the text, without punctuation."""
_EXAMPLES = f"""Products and short names for them, of 3 to 6 ordinary lower-case words.

Text: Rosewell Gentle Foaming Hand Soap with Aloe, 250 ml (Pack of 3); brand: Rosewell; categories: Bath, Soaps
Name: rosewell gentle foaming hand soap

Text: TRAILMATE 2-Person Tent - Waterproof, Green; brand: Trailmate; categories: Outdoors, Camping, Tents
Name: trailmate green two person tent

Text: Nordby Desk Lamp, Dimmable LED w/ USB Port; brand: Nordby; categories: Office, Lighting, Lamps
Name: nordby dimmable desk lamp

Text: {_HOLE}
Name:"""
_REQUEST_BESIDE = f"""Write a short name, of 3 to 6 ordinary lower-case words, for the product with this text:
* {_HOLE}

It is often bought together with these products:
* {_BESIDE}

Answer with the name alone, in words of the text, first those that fit these products too, without punctuation."""
_EXAMPLES_BESIDE = f"""Products, others often bought with them, and short names, of 3 to 6 ordinary lower-case words, \
first those that fit the others too.

Text: Rosewell Gentle Foaming Hand Soap with Aloe, 250 ml (Pack of 3); brand: Rosewell; categories: Bath, Soaps
Bought with: Lavender Hand Soap Refill Pouch; Shea Butter Hand Cream
Name: hand soap rosewell gentle foaming

Text: TRAILMATE 2-Person Tent - Waterproof, Green; brand: Trailmate; categories: Outdoors, Camping, Tents
Bought with: Camping Stove with Piezo Ignition; Foam Camping Mat
Name: camping tent trailmate green

Text: Nordby Desk Lamp, Dimmable LED w/ USB Port; brand: Nordby; categories: Office, Lighting, Lamps
Bought with: Oak Desk Organizer
Name: desk lamp nordby dimmable

Text: {_HOLE}
Bought with: {_BESIDE}
Name:"""
# Small models begin their answer with the label that a text begins with.
_LABEL = re.compile(r"^\s*(?:title|name): ", re.IGNORECASE)
# Some templates tell the day, and would tell another one tomorrow.
_DAY = "01 Jan 2024"


def causal_prompts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_text_tokens: int,
    beside: Sequence[Sequence[str]] | None = None,
    *,
    taught: bool = False,
) -> list[npt.NDArray[np.int32]]:
    """The tokens of the prompt for each text, of which the first `max_text_tokens` are shown, on one line and without
    a label of the title.

    Args:
        beside: for each text, short texts of what is often bought with it, which are shown too; where there are none,
            the prompt is the one without.
        taught: whether the model was taught to write IDs, behind the text alone.

    Raises:
        IdgrError: the tokenizer's chat template cannot be used.
    """
    before, after = _frame(tokenizer, PLAIN) if taught else _asking(tokenizer, _REQUEST, _EXAMPLES)
    # The space before a text is its first token's, unless the tokenizer sets one before every text.
    apart = encode(tokenizer, ["*", " a", "* a"])
    space = " " if apart[0] + apart[1] == apart[2] else ""
    rows = encode(tokenizer, [space + one_line(text) for text in texts], max_tokens=max_text_tokens)
    if beside is None or not any(beside):
        return [np.array([*before, *row, *after], dtype=np.int32) for row in rows]
    begin, between, end = _asking(tokenizer, _REQUEST_BESIDE, _EXAMPLES_BESIDE)
    others = encode(tokenizer, [space + "; ".join(short) for short in beside])
    return [
        np.array([*begin, *row, *between, *other, *end] if short else [*before, *row, *after], dtype=np.int32)
        for row, other, short in zip(rows, others, beside, strict=True)
    ]


def one_line(text: str) -> str:
    """A text on one line, without a label of the title."""
    return " ".join(_LABEL.sub("", text).split())


def _asking(tokenizer: PreTrainedTokenizerBase, request: str, examples: str) -> list[list[int]]:
    """The tokens around what is shown: of the chat template with `request`, or of `examples` where there is none."""
    n_holes = 1 + (_BESIDE in request)
    if not tokenizer.chat_template:
        return _frame(tokenizer, examples, n_holes)
    with told_as_unusable("chat template", tokenizer.name_or_path):
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True, date_string=_DAY
        )
    return _frame(tokenizer, rendered, n_holes, begins=True)


def _frame(
    tokenizer: PreTrainedTokenizerBase, rendered: str, n_holes: int = 1, *, begins: bool = False
) -> list[list[int]]:
    """The tokens before the holes of a wording, between them and behind them.

    Args:
        begins: whether the wording has the token that the tokenizer begins a text with, if there is one.
    """
    name = tokenizer.name_or_path
    begin: list[int] = []
    bos = tokenizer.bos_token_id
    if not begins and bos is not None and bos in tokenizer("a", verbose=False)["input_ids"]:
        begin = [bos]  # one that the tokenizer sets, and so one that the model has seen there
    parts = re.split(f"{_HOLE}|{_BESIDE}", rendered, maxsplit=n_holes)
    if len(parts) <= n_holes:
        todo = "mend chat_template in its tokenizer_config.json, or take it out to have the model shown examples"
        raise IdgrError("its chat template leaves out what a user says", todo, where=name)
    parts = [*(part.rstrip(" ") for part in parts[:-1]), parts[-1]]
    with told_as_unusable("tokenizer", name):
        rows = tokenizer(parts, add_special_tokens=False, verbose=False)["input_ids"]
    return [begin + rows[0], *rows[1:]]


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer, EOS first: all special ones, among them those that end a turn, and line ends."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special.update(tokenizer.all_special_ids)
    with told_as_unusable("tokenizer", tokenizer.name_or_path):
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    special.update(token for token, text in enumerate(texts) if "\n" in text)
    eos: int = tokenizer.eos_token_id
    return [eos, *sorted(special - {eos})]
