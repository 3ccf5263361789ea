"""What a causal language model is asked for an item's ID, and what ends its answer.

A model with a chat template gets one message of a user; a base model gets three examples, which are made up, and
goes on where the name of a fourth product would stand. Texts are put in as tokens, so that no text can close a turn.
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
# Small models begin their answer with the label that a text begins with.
_LABEL = re.compile(r"^\s*(?:title|name): ", re.IGNORECASE)
# Some templates tell the day, and would tell another one tomorrow.
_DAY = "01 Jan 2024"


def causal_prompts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_text_tokens: int
) -> list[npt.NDArray[np.int32]]:
    """The tokens of the prompt for each text, of which the first `max_text_tokens` are shown, on one line and without
    a label of the title.

    Raises:
        IdgrError: the tokenizer's chat template cannot be used.
    """
    before, after = _frame(tokenizer)
    # The space before a text is its first token's, unless the tokenizer sets one before every text.
    apart = encode(tokenizer, ["*", " a", "* a"])
    space = " " if apart[0] + apart[1] == apart[2] else ""
    lines = [space + " ".join(_LABEL.sub("", text).split()) for text in texts]
    rows = encode(tokenizer, lines, max_tokens=max_text_tokens)
    return [np.array([*before, *row, *after], dtype=np.int32) for row in rows]


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens before a text and those behind it."""
    name = tokenizer.name_or_path
    begin: list[int] = []
    rendered = _EXAMPLES
    if tokenizer.chat_template:
        with told_as_unusable("chat template", name):
            rendered = tokenizer.apply_chat_template(
                [{"role": "user", "content": _REQUEST}], tokenize=False, add_generation_prompt=True, date_string=_DAY
            )
    elif tokenizer.bos_token_id is not None and tokenizer.bos_token_id in tokenizer("a", verbose=False)["input_ids"]:
        begin = [tokenizer.bos_token_id]  # one that the tokenizer sets, and so one that the model has seen there
    before, hole, after = rendered.partition(_HOLE)
    if not hole:
        todo = "mend chat_template in its tokenizer_config.json, or take it out to have the model shown examples"
        raise IdgrError("its chat template leaves out what a user says", todo, where=name)
    with told_as_unusable("tokenizer", name):
        rows = tokenizer([before.rstrip(" "), after], add_special_tokens=False, verbose=False)["input_ids"]
    return begin + rows[0], rows[1]


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer, EOS first: all special ones, among them those that end a turn, and line ends."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special.update(tokenizer.all_special_ids)
    with told_as_unusable("tokenizer", tokenizer.name_or_path):
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    special.update(token for token, text in enumerate(texts) if "\n" in text)
    eos: int = tokenizer.eos_token_id
    return [eos, *sorted(special - {eos})]
