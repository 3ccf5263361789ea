"""Histories as a causal model reads them: every item's ID behind an EOS, or one a line, without words around them."""

from __future__ import annotations

from collections.abc import Sequence

from idgr.errors import IdgrError
from idgr.prompts.rendering import Prompt


class HistoryRenderer:
    """Renders histories, given as item numbers, so that the next separator asks for the next item.

    Args:
        end: the token that ends each ID, and so stands before the next one.
        id_tokens: the tokens of each item's ID, without that, by item number.
        max_history: the newest so many items are shown.
        max_tokens: the length of a prompt; where it would be longer, the oldest items go.
        leads: whether such a token stands before the first item too, as EOS does; no newline does.

    Raises:
        IdgrError: the longest ID does not fit into `max_tokens`.
    """

    n_templates = 1

    def __init__(
        self,
        end: int,
        id_tokens: Sequence[Sequence[int]],
        max_history: int,
        max_tokens: int,
        *,
        leads: bool = True,
    ) -> None:
        self.end, self.leads = end, leads
        self.id_tokens = [list(row) for row in id_tokens]
        self.max_history, self.max_tokens = max_history, max_tokens
        longest = max(map(len, self.id_tokens), default=0) + 1
        if longest > max_tokens:
            raise IdgrError(
                f"a history of {max_tokens} tokens cannot hold the longest ID ({longest} tokens with its end)",
                "give a larger --max-prompt-tokens, or shorter IDs",
            )

    @property
    def room(self) -> int:
        """How many tokens the items of a history may take, each with its end."""
        return self.max_tokens

    def render(self, history: Sequence[int], template: int) -> Prompt:
        """The tokens of a history of item numbers, oldest first; none for an empty one."""
        room, first = self.max_tokens, len(history)
        least = max(0, len(history) - self.max_history)
        while first > least and (room := room - len(self.id_tokens[history[first - 1]]) - 1) >= 0:
            first -= 1
        tokens: list[int] = []
        spans = []
        for item in history[first:]:
            if tokens or self.leads:
                tokens.append(self.end)
            spans.append((item, len(tokens), len(tokens) + len(self.id_tokens[item])))
            tokens += self.id_tokens[item]
        return Prompt(tokens, spans)

    def render_all(self, histories: Sequence[Sequence[int]], templates: Sequence[int]) -> list[Prompt]:
        """The tokens of each history; `templates` are all 0, since there is one way to show a history."""
        return [self.render(history, template) for history, template in zip(histories, templates, strict=True)]
