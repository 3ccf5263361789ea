"""A trained recommender and its catalogue, asked for the best items after each history."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from idgr.decoding.beam import BeamSearch, Ranking, SearchOptions
from idgr.decoding.candidates import CandidateSearch, Second
from idgr.decoding.exact import ExactSearch
from idgr.decoding.kv_cache import Told
from idgr.decoding.prompt_memory import PromptMemory
from idgr.decoding.trie import Trie
from idgr.errors import UsageError
from idgr.formats.records import ItemId, Query, Recommendation
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idgr.models.backbone import Backbone
    from idgr.recommender.calibration import Calibration


# Beam search holds what it knows of a user's prefixes in tables of prefixes by prefixes.
_WIDEST = 256


class Recommender:
    """Ranks the catalogue for histories of item keys.

    Args:
        backbone: the model on its device, and its tokenizer.
        item_keys: the catalogue.
        renderer: for the backbone's tokenizer, with the IDs of the items in the same order.
        trie: the same IDs as a tree.
        options: how to search.
        template: the number of the template that histories are shown with.
        allowed: the keys of the items that may be returned; None for all.
        keep_history: whether items of a history may be returned to it.
        exact: whether to search until it is proven that no other item scores higher.
        batch_size: histories at a time.
        calibration: gives all items that the beams find other scores, of which the best are taken.
        second: a score of all items (`idgr.decoding.candidates`), which counts `weight` times beside that of the ID.
        told: what is added to the embeddings of histories.
        memory: of a causal model: keeps what was read of histories for longer ones; None for nothing.

    Raises:
        UsageError: there is no such template, or a second score for a search of the whole of a large catalogue.
    """

    def __init__(
        self,
        backbone: Backbone,
        item_keys: Sequence[str],
        renderer: PromptRenderer | HistoryRenderer,
        trie: Trie,
        options: SearchOptions,
        *,
        template: int = 0,
        allowed: Collection[str] | None = None,
        keep_history: bool = False,
        exact: bool = False,
        batch_size: int = 32,
        calibration: Calibration | None = None,
        second: Second | None = None,
        weight: float = 0.0,
        told: Told | None = None,
        memory: PromptMemory | None = None,
    ) -> None:
        if not 0 <= template < renderer.n_templates:
            raise UsageError(f"--template {template}: there are {renderer.n_templates} templates", "count them from 0")
        self.item_keys = list(item_keys)
        self.tokenizer, self.calibration = backbone.tokenizer, calibration
        self.number = {item: i for i, item in enumerate(self.item_keys)}
        self.renderer, self.template, self.keep_history, self.batch_size = renderer, template, keep_history, batch_size
        mask = None if allowed is None else np.array([item in allowed for item in self.item_keys], dtype=bool)
        # With room for all items, beam search drops nothing, so what it finds is what exact search proves, which needs
        # no memory for all of them at once.
        whole = options.beams >= len(self.item_keys) > _WIDEST
        self.search: BeamSearch | ExactSearch
        self.both, self.weight = None, weight
        if not (exact or whole):
            self.search = BeamSearch(backbone.model, trie, options, allowed=mask, told=told)
            self.both = CandidateSearch(self.search, trie, second) if second is not None and weight else None
        elif second is not None and weight:
            what = f"--beams {options.beams} follow the whole catalogue, for which there is no item head"
            raise UsageError(what, "give fewer --beams, or --item-head-weight 0")
        else:
            self.search = ExactSearch(backbone.model, trie, options, allowed=mask, told=told)
        if memory is not None:
            self.search.decoder.remember(memory)

    def prompt(self, query: Query) -> list[int]:
        """The tokens that the model reads for a history."""
        return self.renderer.render([self.number[item] for item in query.history], self.template).tokens

    def recommend(
        self, queries: Sequence[Query], advance: Callable[[int], object] | None = None, *, k: int | None = None
    ) -> list[Recommendation]:
        """The best items after each history, in the order given; the histories' items must be of the catalogue.

        Args:
            advance: told the number of histories of each batch that is done.
            k: how many items for each, of those in the catalogue; None for as many as the search was made for.

        Raises:
            UsageError: k is above the beams.
            IdgrError: the model's scores are not finite numbers.
            torch.OutOfMemoryError: the device has not the memory for a single history.
        """
        if k is not None:
            options, k = self.search.options, min(k, len(self.item_keys))
            beams = max(options.beams, k) if isinstance(self.search, ExactSearch) else options.beams
            self.search.options = replace(options, k=k, beams=beams)
        wanted = self.search.options
        if self.calibration is not None:
            self.search.options = replace(wanted, k=wanted.beams)
        excluded = [() if self.keep_history else {self.number[item] for item in query.history} for query in queries]
        histories = [[self.number[item] for item in query.history] for query in queries]
        prompts = self.renderer.render_all(histories, [self.template] * len(queries))
        tokens, rankings = [prompt.tokens for prompt in prompts], list[Ranking]()
        if self.both is not None:
            found = self.both.candidates(tokens, excluded, batch_size=self.batch_size, advance=advance)
            rankings = [one.best(self.weight, wanted.k) for one in found]
        else:
            rankings = self.search.search(tokens, excluded, batch_size=self.batch_size, advance=advance)
        if self.calibration is not None:
            self.search.options, rankings = wanted, self.calibration.rerank(rankings, wanted.k)
        return [
            Recommendation(query.user_id, [self.item_keys[item] for item in ranking.items], ranking.scores)
            for query, ranking in zip(queries, rankings, strict=True)
        ]


def catalogue_fingerprint(catalogue: Iterable[ItemId], tokenizer: PreTrainedTokenizerBase, end: int) -> str:
    """A hash of what a prefix tree depends on: items and IDs in their order, tokenizer, and the token that ends IDs."""
    digest = hashlib.sha256()
    for record in catalogue:
        digest.update(f"{len(record.item_id)} {record.item_id} {record.id}\n".encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    if end != tokenizer.eos_token_id:
        digest.update(f"\n{end}".encode())
    return digest.hexdigest()
