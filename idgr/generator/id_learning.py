"""The ID generator's training through a frozen recommender (IDGenRec, section 2.5.2).

For every training instance the recommender reads the history with soft IDs (`idgr.generator.soft_ids`) and is asked for
the target's ID; its loss gives the generator, and it alone, a gradient. A batch's distinct items pass through the
generator once, however many of its histories hold them; so neighbouring instances of a user, which share most of their
history, go into one batch. A causal recommender reads a user's window once, with soft IDs at the places of all items.

Legend: B instances, S prompt tokens, U distinct items of a batch, L text tokens, T ID tokens, N ID positions of the
distinct items end to end, V vocabulary, D width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.decoding.trie import build_trie
from idgr.engine.options import TrainingOptions
from idgr.engine.task import TrainingContext, TrainingTask, figure
from idgr.engine.trainer import run_epochs
from idgr.errors import IdgrError
from idgr.generator.answers import answer_states, read_texts
from idgr.generator.options import IdLearningOptions
from idgr.generator.soft_ids import (
    anchor_divergence,
    expected_embeddings,
    id_probabilities,
    plan_splice,
    prompt_embeddings,
    straight_through,
)
from idgr.ids.own_words import outside, own_words
from idgr.models.device import to_device
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import Prompt, PromptRenderer
from idgr.recommender.sequences import item_lengths, make_windows, window_costs, window_loss
from idgr.recommender.training import (
    Instances,
    instance_loss,
    make_instances,
    prefix_sequences,
    prompt_costs,
    sequence_names,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, T5ForConditionalGeneration

    from idgr.models.backbone import Backbone

Ints = npt.NDArray[np.int64]
Embed = Callable[[Sequence[Prompt], Tensor], Tensor]

# At most so many neighbouring instances of a user stay together: with all of them a batch might be one user's.
STRETCH = 6

# Items of similar text length pass through the generator together, so many at a time.
_ITEMS_AT_A_TIME = 64


def check_one_vocabulary(
    generator: PreTrainedTokenizerBase, recommender: PreTrainedTokenizerBase, gen: str, rec: str
) -> None:
    """Raise `IdgrError` unless both tokenizers give the same tokens the same numbers.

    A distribution over the generator's vocabulary is read with the recommender's embeddings, so a token must be the
    same in both.
    """
    if generator.get_vocab() != recommender.get_vocab():
        raise IdgrError(
            f"its vocabulary ({len(recommender)} tokens) is not that of the generator {gen} ({len(generator)} tokens)",
            f"train a recommender that shares it: `idgr train-rec … --model nano --tokenizer {gen}`",
            where=rec,
        )


def learn_ids(
    generator: Backbone,
    recommender: Backbone,
    renderer: PromptRenderer | HistoryRenderer,
    texts: Sequence[str],
    sequences: Sequence[Sequence[int]],
    objective: str,
    options: IdLearningOptions,
    loop: TrainingOptions,
    on_epoch: Callable[[dict[str, Any]], object],
    *,
    names: Sequence[str] | None = None,
    context: TrainingContext | None = None,
    run: Callable[..., dict[str, Any]] = run_epochs,
) -> dict[str, Any]:
    """Train the generator's model where it lies; the recommender's weights stay as they are, bit for bit.

    Args:
        renderer: for the recommender, with the current IDs of all items.
        texts: the plain text of each item, by item number.
        sequences: the training sequences, as item numbers, oldest first.
        objective: the recommender's own, "full" or "trie".
        loop: its batch size is about; batches are made of stretches of neighbouring instances, those of a causal
            recommender of windows, as in its training.
        on_epoch: is given each epoch's record: that of the loop, and with an anchor the mean divergence.
        names: what to call the user of each sequence in a message.
        context: where it runs; None for this process alone, without checkpoints. With an anchor, several processes
            differ a little from one: each takes the mean divergence over its own share of a batch's items.
        run: what is done with the task; `run_epochs` trains.

    Returns:
        The record of the last epoch, or what `run` returns.
    """
    model = recommender.model
    soft = SoftPrompts(generator, model, renderer.id_tokens, texts, options)
    if isinstance(renderer, HistoryRenderer):
        task = _window_task(model, renderer, sequences, objective, soft.embed, names)
    else:
        task, loop = _instance_task(model, renderer, sequences, objective, loop, soft.embed, names)

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        loss, n_terms = task.loss_of(batch, epoch)
        return loss + options.anchor * soft.divergence * n_terms, n_terms

    figures = {"divergence": soft.told} if options.anchor else {}
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    model.requires_grad_(False)
    try:
        return run(generator.model, replace(task, loss_of=loss_of, figures=figures), loop, context, on_epoch)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _instance_task(
    model: T5ForConditionalGeneration,
    renderer: PromptRenderer,
    sequences: Sequence[Sequence[int]],
    objective: str,
    loop: TrainingOptions,
    embed: Embed,
    names: Sequence[str] | None,
) -> tuple[TrainingTask, TrainingOptions]:
    """A T5's loss of stretches of instances, whose prompts are read as `embed` gives them; and how they are gone
    through."""
    trie = build_trie(renderer.id_tokens, renderer.end)
    instances = make_instances(sequences, renderer.max_history)
    of_instances = instance_loss(model, renderer, trie, instances, objective, loop.seed, embed=embed)
    begins = stretches(instances)

    def of_stretches(batch: Ints) -> Ints:
        return np.concatenate([np.arange(begins[stretch], begins[stretch + 1]) for stretch in batch])

    costs = np.add.reduceat(prompt_costs(instances, renderer), begins[:-1]) if len(begins) > 1 else begins[:-1]
    called = sequence_names(prefix_sequences(sequences), names)
    task = TrainingTask(
        "train-gen",
        costs,
        lambda batch, epoch: of_instances(of_stretches(batch), epoch),
        sizes=np.diff(begins),
        names=lambda batch: called(of_stretches(batch)),
    )
    return task, in_stretches(loop, begins)


def _window_task(
    model: LlamaForCausalLM,
    renderer: HistoryRenderer,
    sequences: Sequence[Sequence[int]],
    objective: str,
    embed: Embed,
    names: Sequence[str] | None,
) -> TrainingTask:
    """A Llama's loss of windows, in which the IDs of all items are read as `embed` gives them.

    A window is read once, so what is history for the next item is what the target's own later tokens are asked behind.
    """
    trie = build_trie(renderer.id_tokens, renderer.end)
    windows = make_windows(sequences, renderer.max_history, item_lengths(renderer.id_tokens), renderer.room)
    return TrainingTask(
        "train-gen",
        window_costs(windows, trie),
        window_loss(model, trie, windows, objective, leads=renderer.leads, embed=embed),
        sizes=windows.end - windows.first,
        names=sequence_names(windows.sequence, names),
    )


def stretches(instances: Instances, size: int = STRETCH) -> Ints:
    """[M + 1] M stretches of at most `size` neighbouring instances of a user: the i-th is those from i-th to next."""
    number = np.arange(len(instances.end))
    # Between two users a place is passed over: the first item of a sequence is no target.
    is_first = np.diff(instances.end, prepend=-1) != 1
    first = np.maximum.accumulate(np.where(is_first, number, 0))
    return np.append(number[(number - first) % size == 0], len(number))


def in_stretches(loop: TrainingOptions, begins: Ints) -> TrainingOptions:
    """The same options where the loop's instances are stretches: a batch and an epoch have about as many instances."""
    mean = int(begins[-1]) / max(len(begins) - 1, 1)
    return replace(
        loop,
        batch_size=max(1, round(loop.batch_size / STRETCH)),
        epoch_instances=math.ceil(loop.epoch_instances / max(mean, 1.0)),
    )


class SoftPrompts:
    """Turns rendered prompts into what the recommender reads, with the generator's soft IDs in them.

    Attributes:
        divergence: of the last batch from the starting generator, where there is an anchor; else 0. The mean over its
            `n_positions`.
    """

    def __init__(
        self,
        generator: Backbone,
        recommender: T5ForConditionalGeneration | LlamaForCausalLM,
        ids: Sequence[Sequence[int]],
        texts: Sequence[str],
        options: IdLearningOptions,
    ) -> None:
        longest = max(map(len, ids)) + 1
        self.texts = read_texts(generator, texts, options.max_text_tokens, longest)
        self.ids = ids
        self.generator = generator.model
        self.allowed = _own_tokens(generator, texts, ids) if options.own_words else None
        self.start = copy.deepcopy(generator.model).eval().requires_grad_(False) if options.anchor else None
        self.n_tokens = min(len(generator.tokenizer), recommender.config.vocab_size)
        self.embedding_VD = recommender.get_input_embeddings().weight.detach()
        self.options = options
        self.divergence = torch.zeros((), device=recommender.device)
        self.n_positions = 0

    def told(self) -> Tensor:
        """The divergence for `TrainingTask.figures`, by the number of positions."""
        return figure(self.divergence * self.n_positions, self.n_positions)

    def embed(self, prompts: Sequence[Prompt], tokens_BS: Tensor) -> Tensor:
        """[B, S, D]; each distinct item of the prompts passes through the generator once."""
        splice = plan_splice(prompts, tokens_BS.shape[1])
        self.n_positions = sum(splice.rows)
        if not splice.items:
            return prompt_embeddings(tokens_BS, self.embedding_VD)
        texts = [self.texts[item] for item in splice.items]
        ids = [self.ids[item] for item in splice.items]
        logits_NV = id_logits(self.generator, texts, ids)
        left_out: Tensor | float = 0.0
        if self.allowed is not None:
            allowed = [tokens for item in splice.items for tokens in self.allowed[item]]
            left_out = outside(allowed, logits_NV.shape[1], logits_NV.device, logits_NV.dtype)
        logits_NV = logits_NV + left_out
        soft_ND = expected_embeddings(
            id_probabilities(logits_NV, self.n_tokens, self.options.temperature), self.embedding_VD
        )
        if self.options.straight_through:
            tokens_N = to_device(np.array([token for row in ids for token in row], dtype=np.int64), soft_ND.device)
            soft_ND = straight_through(soft_ND, F.embedding(tokens_N, self.embedding_VD))
        if self.start is not None:
            with torch.no_grad():
                start_NV = id_logits(self.start, texts, ids) + left_out
            self.divergence = anchor_divergence(logits_NV, start_NV, self.n_tokens)
        return prompt_embeddings(tokens_BS, self.embedding_VD, splice, soft_ND)


def _own_tokens(generator: Backbone, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """For each item and each position of its ID, the tokens that may stand there in an ID of its text's own words."""
    words = own_words(generator, texts)
    return [[one.following(row[:place]) for place in range(len(row))] for one, row in zip(words, ids, strict=True)]


def id_logits(
    model: T5ForConditionalGeneration | LlamaForCausalLM, texts: Sequence[Sequence[int]], ids: Sequence[Sequence[int]]
) -> Tensor:
    """The generator's logits at each position of the items' current IDs, teacher-forced on them [N, V].

    Args:
        texts: [U] what the generator reads of each item's text.
        ids: [U] the tokens of each item's ID, without EOS.
    """
    # Short texts do not wait for long ones: padding costs as much as text.
    order = sorted(range(len(texts)), key=lambda item: len(texts[item]))
    pieces: list[Tensor] = [torch.empty(0)] * len(texts)
    for begin in range(0, len(order), _ITEMS_AT_A_TIME):
        chunk = order[begin : begin + _ITEMS_AT_A_TIME]
        hidden_UTD = answer_states(model, [texts[item] for item in chunk], [ids[item] for item in chunk])
        for row, item in enumerate(chunk):
            pieces[item] = hidden_UTD[row, : len(ids[item])]
    return F.linear(torch.cat(pieces), model.lm_head.weight)
