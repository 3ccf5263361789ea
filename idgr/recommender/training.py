"""The recommender's training (IDGenRec, section 2.5.1): from a prompt of history IDs to the ID of the next item.

Every prefix of a training sequence is an instance; a causal model takes those of a sequence together
(`idgr.recommender.sequences`), and so does a T5 whose encoder is causal by item (`idgr.recommender.prefixes`).
Validation ranks all items by constrained beam search, and the weights of the best epoch are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from idgr.decoding.beam import BeamSearch, Ranking, SearchOptions, beam_search
from idgr.decoding.candidates import CandidateSearch, prompt_states
from idgr.decoding.trie import Trie, build_trie
from idgr.engine.distributed import ProcessGroup
from idgr.engine.options import TrainingOptions
from idgr.engine.task import TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.evaluation.metrics import hit_rate, ndcg, target_ranks
from idgr.models.compiling import filled_width
from idgr.models.padding import IGNORED, decoder_inputs, pad_rows
from idgr.progress import Progress, log
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import Prompt, PromptRenderer
from idgr.prompts.templates import draw_templates
from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions, make_tasks, with_tasks
from idgr.recommender.contrast import Contrast, beside
from idgr.recommender.item_head import LAMBDAS, ItemObjective
from idgr.recommender.kept_states import KeepStates
from idgr.recommender.objectives import (
    branch_targets,
    decoder_states,
    find_branches,
    full_loss,
    target_tokens,
    trie_loss,
)
from idgr.recommender.options import VALID_K, RecommenderOptions
from idgr.recommender.prefixes import prefix_loss
from idgr.recommender.sequences import Windows, item_lengths, make_windows, window_costs, window_loss
from idgr.recommender.two_names import two_names_loss

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

    from idgr.models.backbone import Backbone

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Instances:
    """Every prefix of every training sequence with the item that follows, as flat arrays.

    Attributes:
        items: the sequences end to end, as item numbers.
        begin: [N] the place of an instance's oldest shown item in `items`.
        end: [N] the place of its target; the history is items[begin:end].
    """

    items: Ints
    begin: Ints
    end: Ints


def make_instances(sequences: Sequence[Sequence[int]], max_history: int) -> Instances:
    """The training instances of sequences of item numbers, oldest first, showing the newest `max_history` items."""
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    items = np.fromiter((item for row in sequences for item in row), dtype=np.int64, count=int(lengths.sum()))
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.arange(len(items))
    end = places[places > starts]
    return Instances(items, np.maximum(starts[end], end - max_history), end)


def windows_of(instances: Instances, renderer: HistoryRenderer) -> Windows:
    """Each instance as a window of its own, whose only target is its last item, its history as long as the renderer
    shows it; of no sequence."""
    end = instances.end
    before = np.concatenate([[0], np.cumsum(item_lengths(renderer.id_tokens)[instances.items])])
    begin = np.maximum(instances.begin, np.searchsorted(before, before[end] - renderer.room))
    return Windows(instances.items, begin, end, end + 1, np.full_like(end, -1))


def train_recommender(
    backbone: Backbone,
    renderer: PromptRenderer | HistoryRenderer,
    sequences: Sequence[Sequence[int]],
    valid: Sequence[tuple[Sequence[int], int]],
    options: RecommenderOptions,
    loop: TrainingOptions,
    on_epoch: Callable[[dict[str, Any]], object],
    *,
    names: Sequence[str] | None = None,
    context: TrainingContext | None = None,
    tasks: AuxiliaryTaskOptions | None = None,
    contrast: Contrast | None = None,
    item_head: ItemObjective | None = None,
    old_ids: Sequence[Sequence[int]] | None = None,
    keep_states: KeepStates | None = None,
) -> dict[str, Any]:
    """Train the backbone's model where it lies; at the end it has the weights of the best epoch, in evaluation mode.

    Args:
        renderer: for the backbone's tokenizer, with the IDs of all items.
        sequences: the training sequences, as item numbers, oldest first.
        valid: (history, target) of each validation user; without any, the last epoch's weights are kept.
        on_epoch: is given each epoch's record: that of the loop, with hr@10 and ndcg@10 on validation.
        names: what to call the user of each sequence in a message.
        context: where it runs; None for this process alone, without checkpoints.
        tasks, contrast: of a causal model, what it is taught beside recommending, and what it is drawn towards.
        item_head: of a causal model, the head over items beside it, which validation ranks with too.
        old_ids: the tokens of other IDs, by which items are named too (`idgr.recommender.two_names`).
        keep_states: of a causal model with frozen layers, what keeps the states behind them, if anything shall.

    Returns:
        The record of the epoch whose weights were kept.
    """
    processes = context.processes if context else ProcessGroup()
    task = recommender_task(
        backbone,
        renderer,
        sequences,
        valid,
        options,
        loop.seed,
        names=names,
        processes=processes,
        tasks=tasks,
        contrast=contrast,
        item_head=item_head,
        old_ids=old_ids,
        keep_states=keep_states,
    )
    with beside(backbone.model, contrast, item_head):
        kept = run_epochs(backbone.model, task, loop, context, on_epoch)
        if item_head is None or item_head.head.near is None or not valid:
            return kept
        chosen = [valid[user] for user in draw_users(len(valid), options.valid_users)]
        return mix_near_items(backbone.model, renderer, chosen, options, item_head, kept)


def recommender_task(
    backbone: Backbone,
    renderer: PromptRenderer | HistoryRenderer,
    sequences: Sequence[Sequence[int]],
    valid: Sequence[tuple[Sequence[int], int]],
    options: RecommenderOptions,
    seed: int,
    *,
    names: Sequence[str] | None = None,
    processes: ProcessGroup | None = None,
    tasks: AuxiliaryTaskOptions | None = None,
    contrast: Contrast | None = None,
    item_head: ItemObjective | None = None,
    old_ids: Sequence[Sequence[int]] | None = None,
    keep_states: KeepStates | None = None,
) -> TrainingTask:
    """What the loop needs to train a recommender; the arguments are those of `train_recommender`."""
    model = backbone.model
    trie = build_trie(renderer.id_tokens, renderer.end)
    users = draw_users(len(valid), options.valid_users)
    chosen = [valid[user] for user in users]
    measure = validation(model, renderer, trie, chosen, options, processes, item_head) if valid else None
    best_by = "ndcg@10" if valid else None
    lengths_I = item_lengths(renderer.id_tokens, old_ids)
    if isinstance(renderer, HistoryRenderer):
        windows = make_windows(sequences, renderer.max_history, lengths_I, renderer.room)
        costs = window_costs(windows, trie)
        read = (target_tokens(trie), windows.items, windows.begin, windows.end)
        task = TrainingTask(
            "train-rec",
            costs,
            window_loss(
                model,
                trie,
                windows,
                options.objective,
                contrast,
                item_head,
                leads=renderer.leads,
                reorder=options.reorder,
                seed=seed,
                kept=keep_states(costs - (not renderer.leads), read) if keep_states else None,
                old_trie=None if old_ids is None else build_trie(old_ids, renderer.end),
            ),
            sizes=windows.end - windows.first,
            figures={name: told for one in (contrast, item_head) if one for name, told in one.figures().items()},
            names=sequence_names(windows.sequence, names),
            measure=measure,
            best_by=best_by,
            patience=options.patience,
        )
        taught = make_tasks(backbone, trie, windows, options.objective, tasks or AuxiliaryTaskOptions(), seed)
        return with_tasks(task, taught)
    if renderer.causal_encoder:
        windows = make_windows(sequences, renderer.max_history, lengths_I, renderer.room)
        return TrainingTask(
            "train-rec",
            window_costs(windows, trie),
            prefix_loss(model, renderer, windows, options.objective, seed, old_ids),
            sizes=windows.end - windows.first,
            names=sequence_names(windows.sequence, names),
            measure=measure,
            best_by=best_by,
            patience=options.patience,
        )
    instances = make_instances(sequences, renderer.max_history)
    return TrainingTask(
        "train-rec",
        prompt_costs(instances, renderer),
        instance_loss(model, renderer, trie, instances, options.objective, seed)
        if old_ids is None
        else two_names_loss(model, renderer, old_ids, instances, options.objective, seed),
        names=sequence_names(prefix_sequences(sequences), names),
        measure=measure,
        best_by=best_by,
        patience=options.patience,
    )


def prefix_sequences(sequences: Sequence[Sequence[int]]) -> Ints:
    """[N] the number of the sequence that each instance of `make_instances` is of."""
    return np.repeat(np.arange(len(sequences)), [max(len(row) - 1, 0) for row in sequences])


def sequence_names(sequence: Ints, users: Sequence[str] | None) -> Callable[[Ints], list[str]]:
    """What gives, for the numbers of training instances, the name of the user whom each is of.

    Args:
        sequence: [N] the number of the sequence that each instance is of.
        users: the user of each sequence.
    """

    def names(batch: Ints) -> list[str]:
        rows = sequence[batch].tolist()
        return [f"user {users[row]}" if users is not None else f"sequence {row + 1}" for row in rows]

    return names


def instance_loss(
    model: T5ForConditionalGeneration,
    renderer: PromptRenderer,
    trie: Trie,
    instances: Instances,
    objective: str,
    seed: int,
    embed: Callable[[Sequence[Prompt], Tensor], Tensor] | None = None,
) -> Callable[[Ints, int], tuple[Tensor, int]]:
    """The summed loss of instances in an epoch, as the loop wants it.

    Args:
        embed: given a batch's prompts and their tokens [B, S], what the encoder reads, [B, S, D]; None for the
            model's own embeddings of the tokens.
    """
    tokens_IL = target_tokens(trie)
    branches = find_branches(trie) if objective == "trie" else None
    lengths = (tokens_IL != IGNORED).sum(axis=1) if branches is None else branches.decoder_lengths()

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        templates = draw_templates(len(renderer.before), seed, epoch, batch)
        begins, ends, targets = instances.begin[batch], instances.end[batch], instances.items[instances.end[batch]]
        histories = [
            instances.items[begin:end].tolist() for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]
        prompts = renderer.render_all(histories, templates.tolist())
        rows = [prompt.tokens for prompt in prompts]
        prompt_BS, mask_BS = pad_rows(rows, model.config.pad_token_id, model.device)
        read_BSD = None if embed is None else embed(prompts, prompt_BS)
        labels_BT = tokens_IL[targets, : filled_width(int(lengths[targets].max()))]
        hidden_BTD = decoder_states(model, prompt_BS, mask_BS, decoder_inputs(model, labels_BT), read_BSD)
        head_VD = model.lm_head.weight
        if branches is None:
            return full_loss(hidden_BTD, head_VD, labels_BT)
        return trie_loss(hidden_BTD, head_VD, branch_targets(branches, targets, model.device), n_instances=len(batch))

    return loss_of


def prompt_costs(instances: Instances, renderer: PromptRenderer) -> Ints:
    """[N] about how many prompt tokens each instance has, but for its template."""
    id_lengths = np.fromiter(map(len, renderer.id_tokens), dtype=np.int64) + len(renderer.separator)
    before = np.concatenate([[0], np.cumsum(id_lengths[instances.items])])
    costs: Ints = np.minimum(before[instances.end] - before[instances.begin], renderer.max_tokens)
    return costs


def draw_users(n: int, size: int) -> list[int]:
    """`size` of n users, drawn at random, in ascending order; all of them where `size` is 0 or too large.

    The draw is the same for every seed of a training, so that figures on validation can be compared.
    """
    if not size or size >= n:
        return list(range(n))
    return sorted(np.random.default_rng([0, n]).choice(n, size=size, replace=False).tolist())


def validation(
    model: T5ForConditionalGeneration | LlamaForCausalLM,
    renderer: PromptRenderer | HistoryRenderer,
    trie: Trie,
    users: Sequence[tuple[Sequence[int], int]],
    options: RecommenderOptions,
    processes: ProcessGroup | None = None,
    item_head: ItemObjective | None = None,
) -> Callable[[], dict[str, float]]:
    """What gives, whenever called, hr@10 and ndcg@10 on users as (history, target), the history left out.

    With an item head they are those of the weight λ of its scores that does best on these users, "lambda".

    Each process of a team ranks for its share of the users; all get the figures of all users.
    """
    processes = processes or ProcessGroup()
    search = SearchOptions(k=VALID_K, beams=options.valid_beams, normalize=options.objective)
    mine = users[processes.share(len(users))]
    prompts = [prompt.tokens for prompt in renderer.render_all([history for history, _ in mine], [0] * len(mine))]
    seen = [set(history) for history, _ in mine]

    def figures_of(rankings: Sequence[Ranking]) -> dict[str, float]:
        found = target_ranks([ranking.items for ranking in rankings], [target for _, target in mine])
        ranks = np.array(processes.gather_shares(found.tolist(), len(users)), dtype=np.int64)
        return {"hr@10": hit_rate(ranks, VALID_K), "ndcg@10": ndcg(ranks, VALID_K)}

    def validate() -> dict[str, float]:
        with Progress("validation", total=len(mine), unit="histories") as shown:
            if item_head is None:
                return figures_of(beam_search(model, trie, prompts, search, excluded=seen, advance=shown.advance))
            causal: Any = model
            both = CandidateSearch(
                BeamSearch(causal, trie, search, told=item_head.told_items()), trie, item_head.scores(causal)
            )
            found = both.candidates(prompts, seen, advance=shown.advance)
        told = [figures_of([one.best(weight, VALID_K) for one in found]) | {"lambda": weight} for weight in LAMBDAS]
        return max(told, key=lambda figures: figures["ndcg@10"])

    return validate


def mix_near_items(
    model: T5ForConditionalGeneration | LlamaForCausalLM,
    renderer: PromptRenderer | HistoryRenderer,
    users: Sequence[tuple[Sequence[int], int]],
    options: RecommenderOptions,
    item_head: ItemObjective,
    kept: dict[str, Any],
) -> dict[str, Any]:
    """Give a trained head the mixture that suits these users, if it ranks better for them than the head without.

    Args:
        users: (history, target) of each validation user.
        kept: the record of the epoch whose weights the model has.

    Returns:
        The record, with the figures of the mixture where it stays, and its "near_share".
    """
    causal: Any = model
    trie = build_trie(renderer.id_tokens, renderer.end)
    search = BeamSearch(causal, trie, SearchOptions(normalize=options.objective), told=item_head.told_items())
    histories, targets = [history for history, _ in users], [target for _, target in users]
    prompts = [prompt.tokens for prompt in renderer.render_all(histories, [0] * len(users))]
    mixture = item_head.mix(causal, prompt_states(search, prompts), histories, targets)
    if not mixture.is_finite:
        item_head.head.mixture = None
        log(f"train-rec: {len(users)} validation users are too few to mix near items in")
        return kept
    figures = validation(model, renderer, trie, users, options, None, item_head)()
    told = f"train-rec: near items mixed in, share {mixture.share:.2f}: ndcg@10 {figures['ndcg@10']:.4f}"
    if figures["ndcg@10"] > kept["ndcg@10"]:
        log(f"{told}, lambda {figures['lambda']}")
        return kept | figures | {"near_share": mixture.share}
    item_head.head.mixture = None
    log(f"{told}, no more than without: left out")
    return kept
