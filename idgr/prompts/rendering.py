"""Prompts as tokens: the segments of a template and the IDs of a history, joined as token lists.

With user IDs, `user: ID;` stands before the template. For an encoder that is causal by item, each ID ends with EOS, and
the template's words behind the history, which would change with it, are left out.

Text is never tokenized again after joining, so an ID has the same tokens wherever it stands, and its place in the
prompt is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idgr.errors import IdgrError
from idgr.models.tokenizer import encode
from idgr.prompts.templates import split_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UserIds = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[int]]]

_WORD_START = "▁"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the recommender reads for one history.

    Attributes:
        tokens: token ids, ended by EOS.
        spans: (item, start, end) of each history item shown, oldest first: its ID is tokens[start:end].
    """

    tokens: list[int]
    spans: list[tuple[int, int, int]]


class PromptRenderer:
    """Renders histories, given as item numbers, with any of the templates.

    Args:
        tokenizer: the recommender's.
        templates: each holds `{history}` exactly once (see `idgr.prompts.templates`).
        id_tokens: the tokens of each item's ID, without EOS, by item number.
        max_history: the newest so many items are shown.
        max_tokens: the length of a prompt, EOS counted; where it would be longer, the oldest items go.
        user_ids: gives the tokens of the user's ID for each history of item numbers, exactly as it is shown; None for
            prompts without user IDs.
        user_room: a user's ID has at most so many tokens.
        show_history: whether the IDs of the history are shown, or the user's ID alone.
        causal_encoder: whether the recommender's encoder is causal by item.

    Raises:
        IdgrError: the longest ID does not fit into `max_tokens` beside the longest template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        templates: Sequence[str],
        id_tokens: Sequence[Sequence[int]],
        max_history: int = 20,
        max_tokens: int = 512,
        *,
        user_ids: UserIds | None = None,
        user_room: int = 0,
        show_history: bool = True,
        causal_encoder: bool = False,
    ) -> None:
        self.id_tokens = [list(row) for row in id_tokens]
        self.max_history = max_history
        self.max_tokens = max_tokens
        self.end: int = tokenizer.eos_token_id
        self.causal_encoder = causal_encoder
        self.separator = [self.end] if causal_encoder else _comma(tokenizer)
        halves = [split_template(template) for template in templates]
        self.before = encode(tokenizer, [before for before, _ in halves])
        after = ["" if causal_encoder else text for _, text in halves]
        self.after = [
            [*_without_word_start(tokenizer, row, text), self.end]
            for row, text in zip(encode(tokenizer, after), after, strict=True)
        ]
        self.user_ids, self.show_history = user_ids, show_history
        self.user_before, (self.user_after,) = encode(tokenizer, ["user:"])[0], encode(tokenizer, [";"])
        self.user_after = _without_word_start(tokenizer, self.user_after, ";")
        self.user_room = len(self.user_before) + user_room + len(self.user_after) if user_ids is not None else 0
        around = max(len(before) + len(after) for before, after in zip(self.before, self.after, strict=True))
        around += self.user_room
        # How many tokens the items of a history may take, each with what stands behind it, under any template.
        self.room = max_tokens - around + len(self.separator)
        longest = max(map(len, self.id_tokens), default=0)
        if around + longest > max_tokens:
            raise IdgrError(
                f"a prompt of {max_tokens} tokens cannot hold the longest template ({around} tokens) and the longest "
                f"ID ({longest} tokens)",
                "allow longer prompts, or use shorter templates or IDs",
            )

    @property
    def n_templates(self) -> int:
        return len(self.before)

    def render(self, history: Sequence[int], template: int) -> Prompt:
        """The prompt for a history of item numbers, oldest first; it may be empty."""
        return self.render_all([history], [template])[0]

    def render_all(self, histories: Sequence[Sequence[int]], templates: Sequence[int]) -> list[Prompt]:
        """The prompt for each history with its template; the IDs of all users are asked for together."""
        shown = [self._shown(history, template) for history, template in zip(histories, templates, strict=True)]
        users = self.user_ids(shown) if self.user_ids is not None else [()] * len(shown)
        return [self._join(*parts) for parts in zip(shown, templates, users, strict=True)]

    def _shown(self, history: Sequence[int], template: int) -> list[int]:
        """The newest items of a history that have room."""
        newest = list(history[-self.max_history :]) if self.max_history else []
        room = self.max_tokens - len(self.before[template]) - len(self.after[template]) - self.user_room
        first = len(newest)
        while first:
            room -= len(self.id_tokens[newest[first - 1]]) + (len(self.separator) if first < len(newest) else 0)
            if room < 0:
                break
            first -= 1
        return newest[first:]

    def _join(self, shown: Sequence[int], template: int, user: Sequence[int]) -> Prompt:
        tokens = [*self.user_before, *user, *self.user_after] if user else []
        tokens += self.before[template]
        spans: list[tuple[int, int, int]] = []
        for item in shown if self.show_history else ():
            if spans:
                tokens += self.separator
            start = len(tokens)
            tokens += self.id_tokens[item]
            spans.append((item, start, len(tokens)))
        tokens += self.after[template]
        return Prompt(tokens, spans)


def _comma(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a comma that directly follows a word. IDs begin with the tokenizer's own mark for a space."""
    known = tokenizer.get_vocab().get(",")
    return [known] if known is not None else encode(tokenizer, [","])[0]


def _without_word_start(tokenizer: PreTrainedTokenizerBase, row: list[int], text: str) -> list[int]:
    """Take away the space that tokenizers put before any text, where the text does not begin with one (`{history}?`)"""
    if not row or text.startswith(" "):
        return row
    piece = str(tokenizer.convert_ids_to_tokens(row[0]))
    if piece == _WORD_START:
        return row[1:]
    inner = tokenizer.get_vocab().get(piece.removeprefix(_WORD_START))
    return row if inner is None else [inner, *row[1:]]
