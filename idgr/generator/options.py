"""How the ID generator learns through a frozen recommender. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from idgr.options import TRAINING, Option, StageOptions

DEFAULT_LR, PAPER_LR = 3e-4, 1e-8


@dataclass(frozen=True, kw_only=True)
class IdLearningOptions(StageOptions):
    """How the generator's distributions reach the recommender.

    Attributes:
        anchor: of KL(starting generator || generator) per ID position, added to the loss.
    """

    temperature: Annotated[
        float, Option("Temperature of the softmax at each ID position.", panel=TRAINING, above=0)
    ] = 1.0
    straight_through: Annotated[
        bool, Option("Show the hard IDs, with the gradient of the soft ones.", panel=TRAINING)
    ] = False
    anchor: Annotated[
        float, Option("Weight of staying close to the starting generator.", panel=TRAINING, at_least=0)
    ] = 0.0
    max_text_tokens: Annotated[int, Option("Texts are cut behind so many tokens.", at_least=1)] = 256
