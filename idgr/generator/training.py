"""The warm start of an ID generator: from an item's plain text to its ID, by teacher forcing on given pairs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.engine.distributed import ProcessGroup
from idgr.engine.options import TrainingOptions
from idgr.engine.task import TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.errors import IdgrError, UsageError
from idgr.generator.answers import answer_states, read_texts
from idgr.generator.soft_ids import anchor_divergence
from idgr.models.padding import pad_labels
from idgr.models.tokenizer import encode
from idgr.recommender.objectives import full_loss, wanted_logits

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

    from idgr.models.backbone import Backbone

Ints = npt.NDArray[np.int64]

_LONGEST_ID = 256  # tokens; the paper's have about ten


def train_generator(
    backbone: Backbone,
    pairs: Sequence[tuple[str, str]],
    loop: TrainingOptions,
    *,
    max_text_tokens: int,
    held_out: float,
    anchor: float = 0.0,
    on_epoch: Callable[[dict[str, Any]], object],
    context: TrainingContext | None = None,
    run: Callable[..., dict[str, Any]] = run_epochs,
) -> dict[str, Any]:
    """Train the backbone's model where it lies on pairs of plain text and ID.

    Args:
        max_text_tokens: texts are cut to so many tokens; those of a T5 with EOS.
        held_out: the share of pairs, drawn from the seed, that is not trained on; its loss is told after each epoch.
        anchor: of KL(the model as it is || as it is trained) per token, added to the loss.
        on_epoch: is given each epoch's record: that of the loop, with held_out_loss in nats a token.
        context: where it runs; None for this process alone, without checkpoints.
        run: what is done with the task; `run_epochs` trains.

    Returns:
        The record of the last epoch, or what `run` returns.

    Raises:
        IdgrError: an ID has no tokens, or far more than an ID.
        UsageError: `held_out` is no share, or a Llama has no places for so long a text.
    """
    if not 0 <= held_out < 1:
        raise UsageError(f"--held-out {held_out}", "give a share from 0 to below 1")
    model, tokenizer = backbone.model, backbone.tokenizer
    targets = encode(tokenizer, [textual for _, textual in pairs])
    for number, row in enumerate(targets):
        if not row:
            raise IdgrError(f"the ID {pairs[number][1]!r} has no tokens", "give pairs whose IDs hold words")
        if len(row) > _LONGEST_ID:
            what = f"the ID {pairs[number][1][:40]!r}… has {len(row):,} tokens"
            raise IdgrError(what, f"give pairs whose IDs have at most {_LONGEST_ID}")
    labels = [[*row, tokenizer.eos_token_id] for row in targets]
    sources = read_texts(backbone, [text for text, _ in pairs], max_text_tokens, max(map(len, labels)))

    order = np.random.default_rng([loop.seed, len(pairs)]).permutation(len(pairs))
    n_held = int(held_out * len(pairs))
    held, train = order[:n_held], order[n_held:]
    lengths = np.fromiter((len(sources[i]) for i in train), dtype=np.int64, count=len(train))

    start = copy.deepcopy(model).eval().requires_grad_(False) if anchor else None

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        read, written = [sources[i] for i in train[batch]], [labels[i] for i in train[batch]]
        if start is None:
            return pair_loss(model, read, written)
        return anchored_loss(model, start, read, written, anchor, len(tokenizer))

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
    return run(model, task, loop, context, on_epoch)


def steps_an_epoch(n_pairs: int, held_out: float, loop: TrainingOptions) -> int:
    """How many steps an epoch over so many pairs takes at least; a bound on tokens makes them more."""
    return max(1, -(-(n_pairs - int(held_out * n_pairs)) // (loop.batch_size * loop.accumulate)))


def pair_loss(
    model: T5ForConditionalGeneration | LlamaForCausalLM,
    sources: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
) -> tuple[Tensor, int]:
    """The summed cross-entropy of `labels`, ended by EOS, given what `read_texts` gives, and the number of tokens."""
    return full_loss(answer_states(model, sources, labels), model.lm_head.weight, pad_labels(labels))


def anchored_loss(
    model: T5ForConditionalGeneration | LlamaForCausalLM,
    start: T5ForConditionalGeneration | LlamaForCausalLM,
    sources: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    anchor: float,
    n_tokens: int,
) -> tuple[Tensor, int]:
    """As `pair_loss`, with `anchor` · KL(start || model) at each token added.

    Args:
        n_tokens: of the tokenizer; rows of the head behind them stand for none.
    """
    wanted = pad_labels(labels)
    logits_PV, labels_P, _ = wanted_logits(answer_states(model, sources, labels), model.lm_head.weight, wanted)
    with torch.no_grad():
        start_PV, _, _ = wanted_logits(answer_states(start, sources, labels), start.lm_head.weight, wanted)
    loss = F.cross_entropy(logits_PV, labels_P, reduction="sum")
    return loss + anchor * len(labels_P) * anchor_divergence(logits_PV, start_PV, n_tokens), len(labels_P)


@torch.inference_mode()
def _mean_loss(
    model: T5ForConditionalGeneration | LlamaForCausalLM,
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
