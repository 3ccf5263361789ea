"""How the ID generator learns through a frozen recommender. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass

from idgr.options import TRAINING, StageOptions, option

DEFAULT_LR, PAPER_LR = 3e-4, 1e-8


@dataclass(frozen=True, kw_only=True)
class IdLearningOptions(StageOptions):
    """How the generator's distributions reach the recommender.

    Attributes:
        anchor: of KL(starting generator || generator) per ID position, added to the loss.
    """

    temperature: float = option("Temperature of the softmax at each ID position.", 1.0, TRAINING, above=0)
    straight_through: bool = option("Show the hard IDs, with the gradient of the soft ones.", False, TRAINING)
    own_words: bool = option("Of a T5: soft IDs of the words of an item's own text alone.", False, TRAINING)
    anchor: float = option("Weight of staying close to the starting generator.", 0.0, TRAINING, at_least=0)
    max_text_tokens: int = option("Texts are cut behind so many tokens.", 256, at_least=1)
