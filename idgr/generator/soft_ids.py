"""Item IDs as expected embeddings: the bridge over which a recommender's loss reaches the ID generator.

In place of an ID's tokens the recommender reads, at each of their positions, the mean of its own input embeddings under
the generator's distribution over the vocabulary there (IDGenRec, section 2.5.2). Pure functions of tensors and rendered
prompts: nothing here knows a model, a file or how a loss is computed.

Legend: B prompts, S prompt tokens, U distinct items of a batch, N ID positions of those items end to end, P ID
positions in the batch's prompts (an item that stands in several histories counts each time), V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.models.device import to_device
from idgr.prompts.rendering import Prompt


class Splice(NamedTuple):
    """Where the IDs of a batch's distinct items stand in its prompts.

    Attributes:
        items: [U] the distinct items, in the order in which the prompts first show them.
        rows: [U] how many of the N ID positions belong to each item: the length of its ID.
        place: [P] positions in the prompts, which lie end to end, each padded to S tokens.
        source: [P] which of the N ID positions belongs there.
    """

    items: list[int]
    rows: list[int]
    place: Tensor
    source: Tensor


def plan_splice(prompts: Sequence[Prompt], width: int) -> Splice:
    """Find each ID position of a batch once, and every place in the prompts where it stands.

    Args:
        prompts: B prompts, each of at most `width` tokens.
        width: S, the length to which all of them are padded.
    """
    first: dict[int, int] = {}
    rows: list[int] = []
    places: list[int] = []
    sources: list[int] = []
    n_rows = 0
    for row, prompt in enumerate(prompts):
        for item, start, end in prompt.spans:
            if item not in first:
                first[item] = n_rows
                rows.append(end - start)
                n_rows += end - start
            places.extend(range(row * width + start, row * width + end))
            sources.extend(range(first[item], first[item] + end - start))
    return Splice(list(first), rows, torch.tensor(places, dtype=torch.int64), torch.tensor(sources, dtype=torch.int64))


def id_probabilities(logits_NV: Tensor, n_tokens: int, temperature: float = 1.0) -> Tensor:
    """The generator's distribution over the tokenizer's tokens at each ID position.

    Args:
        logits_NV: the generator's logits; columns beyond the tokenizer's tokens (T5 has 28) are left out.
        n_tokens: the size of the tokenizer.
        temperature: above 1 flattens the distribution, below 1 sharpens it.

    Returns:
        [N, n_tokens], each row summing to 1.
    """
    return (logits_NV[:, :n_tokens].float() / temperature).softmax(-1)


def expected_embeddings(probabilities_NV: Tensor, embedding_VD: Tensor) -> Tensor:
    """The mean of the recommender's input embeddings at each ID position [N, D].

    Args:
        probabilities_NV: V may be smaller than the embedding's, whose rows beyond it belong to no token.
        embedding_VD: the recommender's input embeddings.
    """
    return probabilities_NV.to(embedding_VD.dtype) @ embedding_VD[: probabilities_NV.shape[1]]


def straight_through(soft_ND: Tensor, hard_ND: Tensor) -> Tensor:
    """The values of `hard_ND` with the gradient of `soft_ND` (Bengio, Léonard and Courville 2013)."""
    return soft_ND + (hard_ND - soft_ND).detach()


def prompt_embeddings(
    tokens_BS: Tensor, embedding_VD: Tensor, splice: Splice | None = None, soft_ND: Tensor | None = None
) -> Tensor:
    """What the recommender's encoder reads [B, S, D]: the tokens' embeddings, with soft IDs in place of hard ones.

    Hard and soft prompts have one layout, since both are made here of the same tokens.

    Args:
        tokens_BS: the padded prompts.
        embedding_VD: the recommender's input embeddings.
        splice: where IDs stand; None for hard prompts.
        soft_ND: the embedding for each of the N ID positions; None for hard prompts.
    """
    hard_BSD = F.embedding(tokens_BS, embedding_VD)
    if splice is None or soft_ND is None:
        return hard_BSD
    place_P, source_P = (to_device(one, tokens_BS.device) for one in (splice.place, splice.source))
    # Soft IDs may be a bf16 product, and CUDA's autocast does not promote what index_copy is given.
    soft_PD = soft_ND[source_P].to(hard_BSD.dtype)
    return hard_BSD.flatten(0, 1).index_copy(0, place_P, soft_PD).view_as(hard_BSD)


def anchor_divergence(logits_NV: Tensor, start_logits_NV: Tensor, n_tokens: int) -> Tensor:
    """KL(start || now) in nats, the mean over ID positions: how far the generator has left its starting point."""
    now = logits_NV[:, :n_tokens].float().log_softmax(-1)
    start = start_logits_NV[:, :n_tokens].float().log_softmax(-1)
    return F.kl_div(now, start, reduction="none", log_target=True).sum(-1).mean()
