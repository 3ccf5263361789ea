"""The warm start of an ID generator: from an item's plain text to its ID, by teacher forcing on given pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.engine.distributed import ProcessGroup
from idgr.engine.options import TrainingOptions
from idgr.engine.task import TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.errors import IdgrError, UsageError
from idgr.models.padding import decoder_inputs, pad_labels, pad_rows
from idgr.models.tokenizer import encode
from idgr.recommender.objectives import decoder_states, full_loss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

    from idgr.models.backbone import Backbone

Ints = npt.NDArray[np.int64]

_LONGEST_ID = 256  # tokens; the paper's have about ten


def generator_inputs(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_text_tokens: int) -> list[list[int]]:
    """What the generator reads for each plain text: at most `max_text_tokens` tokens, the last of them EOS."""
    return [[*row, tokenizer.eos_token_id] for row in encode(tokenizer, texts, max_tokens=max_text_tokens - 1)]


def train_generator(
    backbone: Backbone,
    pairs: Sequence[tuple[str, str]],
    loop: TrainingOptions,
    *,
    max_text_tokens: int,
    held_out: float,
    on_epoch: Callable[[dict[str, Any]], object],
    context: TrainingContext | None = None,
) -> dict[str, Any]:
    """Train the backbone's model where it lies on pairs of plain text and ID.

    Args:
        max_text_tokens: texts are cut to so many tokens, EOS included.
        held_out: the share of pairs, drawn from the seed, that is not trained on; its loss is told after each epoch.
        on_epoch: is given each epoch's record: that of the loop, with held_out_loss in nats a token.
        context: where it runs; None for this process alone, without checkpoints.

    Returns:
        The record of the last epoch.

    Raises:
        IdgrError: an ID has no tokens, or far more than an ID.
        UsageError: `held_out` is no share.
    """
    if not 0 <= held_out < 1:
        raise UsageError(f"--held-out {held_out}", "give a share from 0 to below 1")
    model, tokenizer = backbone.model, backbone.tokenizer
    sources = generator_inputs(tokenizer, [text for text, _ in pairs], max_text_tokens)
    targets = encode(tokenizer, [textual for _, textual in pairs])
    for number, row in enumerate(targets):
        if not row:
            raise IdgrError(f"the ID {pairs[number][1]!r} has no tokens", "give pairs whose IDs hold words")
        if len(row) > _LONGEST_ID:
            what = f"the ID {pairs[number][1][:40]!r}… has {len(row):,} tokens"
            raise IdgrError(what, f"give pairs whose IDs have at most {_LONGEST_ID}")
    labels = [[*row, tokenizer.eos_token_id] for row in targets]

    order = np.random.default_rng([loop.seed, len(pairs)]).permutation(len(pairs))
    n_held = int(held_out * len(pairs))
    held, train = order[:n_held], order[n_held:]
    lengths = np.fromiter((len(sources[i]) for i in train), dtype=np.int64, count=len(train))

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        return pair_loss(model, [sources[i] for i in train[batch]], [labels[i] for i in train[batch]])

    def measure() -> dict[str, float]:
        if not n_held:
            return {}
        processes = context.processes if context else ProcessGroup()
        mine = held[processes.share(n_held)]
        return {
            "held_out_loss": _mean_loss(
                model, [sources[i] for i in mine], [labels[i] for i in mine], loop.batch_size, processes
            )
        }

    def names(batch: Ints) -> list[str]:
        return [f"ID {pairs[i][1]!r}" for i in train[batch]]

    task = TrainingTask("init-gen", lengths, loss_of, names=names, measure=measure)
    return run_epochs(model, task, loop, context, on_epoch)


def steps_an_epoch(n_pairs: int, held_out: float, loop: TrainingOptions) -> int:
    """How many steps an epoch over so many pairs takes at least; a bound on tokens makes them more."""
    return max(1, -(-(n_pairs - int(held_out * n_pairs)) // (loop.batch_size * loop.accumulate)))


def pair_loss(
    model: T5ForConditionalGeneration, sources: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> tuple[Tensor, int]:
    """The summed cross-entropy of `labels` given `sources`, both ended by EOS, and the number of tokens."""
    source_BS, mask_BS = pad_rows(sources, model.config.pad_token_id, model.device)
    labels_BT = pad_labels(labels)
    hidden_BTD = decoder_states(model, source_BS, mask_BS, decoder_inputs(model, labels_BT))
    return full_loss(hidden_BTD, model.lm_head.weight, labels_BT)


@torch.inference_mode()
def _mean_loss(
    model: T5ForConditionalGeneration,
    sources: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    batch_size: int,
    processes: ProcessGroup,
) -> float:
    """Nats a token, over the pairs of all processes."""
    total, terms = 0.0, 0
    for begin in range(0, len(sources), batch_size):
        loss, n = pair_loss(model, sources[begin : begin + batch_size], labels[begin : begin + batch_size])
        total, terms = total + loss.item(), terms + n
    shares = processes.all_gather([(total, terms)])
    return sum(total for ((total, _),) in shares) / sum(terms for ((_, terms),) in shares)
