"""How the IDs of the textual scheme are searched for. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from idgr.errors import UsageError
from idgr.ids.schedule import Schedule
from idgr.ids.schemes.options import TEXTUAL, SchemeOption
from idgr.options import RUN, Role, StageOptions

_search = partial(SchemeOption, schemes=(TEXTUAL,))


@dataclass(frozen=True)
class BeamOptions(StageOptions):
    """The shape of the search.

    Attributes:
        groups: of equal size.
        length_penalty: the length counts EOS; to the power of 10 it is a number that float32 can hold.
    """

    beams: Annotated[int, _search("Beams of the diverse beam search.", at_least=1, at_most=1000)] = 5
    groups: Annotated[int, _search("Groups that the beams are divided into.", at_least=1)] = 5
    length_penalty: Annotated[
        float, _search("A sequence's score is divided by its length to this power.", at_least=-10, at_most=10)
    ] = 1.0
    no_repeat_ngram: Annotated[
        int, _search("No run of so many tokens stands twice in an ID; 0 for no rule.", at_least=0)
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beams % self.groups:
            raise UsageError(
                f"--beams {self.beams} does not divide into --groups {self.groups}", "give a multiple of --groups"
            )


@dataclass(frozen=True, kw_only=True)
class GenerationOptions(BeamOptions, Schedule):
    """How IDs are generated.

    Attributes:
        max_text_tokens: EOS included.
    """

    exhausted: Annotated[
        Literal["number", "error"], _search("After the last attempt: add a number to the first candidate, or stop.")
    ] = "number"
    own_words: Annotated[
        bool, _search("Of a T5: IDs of the words of an item's text alone, as far as there are enough.")
    ] = False
    max_text_tokens: Annotated[int, _search("Tokens of an item's text that the generator reads.", at_least=2)] = 256
    batch_size: Annotated[
        int, _search("Items at once; the IDs do not depend on it.", role=Role.RUN, panel=RUN, at_least=1)
    ] = 64
