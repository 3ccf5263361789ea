"""`idgr train-adapter`: train a low-rank adapter of a finished recommender, whose own weights stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError
from idgr.formats.held_out import refuse_held_out
from idgr.options import MODEL, TRAINING, Role, option, output_option
from idgr.recommender.options import RecommenderOptions, ValidationOptions
from idgr.stages.options import refuse_stream, run_info
from idgr.stages.recommender_training import Prepared, forecast_recommender, read_inputs
from idgr.stages.training import SequenceTraining, run_training, say_if_unvalidated, say_what_is_kept

if TYPE_CHECKING:
    import torch

    from idgr.engine.distributed import ProcessGroup
    from idgr.engine.run import TrainingRun
    from idgr.engine.task import TrainingTask
    from idgr.formats.rec_folder import RecommenderFacts


@dataclass(frozen=True)
class _Prepared(Prepared):
    """The recommender as it was read, by the hash of its weights, with what every training has."""

    base: str = ""


@dataclass(frozen=True, kw_only=True)
class Options(SequenceTraining, ValidationOptions):
    """Train a low-rank adapter of a causal recommender on recommendation alone, its own weights frozen (LLM-BS).

    Example: idgr train-adapter train.jsonl --rec rec/ --ids ids.jsonl --valid valid.jsonl --rank 8 -o adapter/
    """

    rec: str = option("The recommender, a folder of `idgr train-rec --arch causal`.", role=Role.INPUT)
    ids: str = option("The ids.jsonl that it was trained on.", role=Role.INPUT)
    output: str = output_option("Folder for the adapter.")
    rank: int = option("Rank of the updates of each projection.", 8, MODEL, at_least=1)
    epochs: int = 5
    batch_size: int = option("Sequences a batch.", 64, TRAINING, at_least=1)


def run(options: Options) -> dict[str, Any] | None:
    """Train an adapter, or with `dry_run` tell what that would take.

    Returns:
        The record of the epoch that was kept, or the forecast; None where the output was finished before.
    """
    from idgr.formats.rec_folder import read_recommender_facts
    from idgr.models.device import pick_device
    from idgr.models.lora import check_lora
    from idgr.recommender.item_head_file import refuse_told_items

    refuse_stream(options.output, "an adapter")
    info = run_info("train-adapter", options)
    refuse_held_out(info.inputs)
    check_lora("train-adapter")
    facts = read_recommender_facts(options.rec)
    if facts.arch != "causal":
        todo = "give one that `idgr train-rec --arch causal` wrote"
        raise IdgrError("is a T5, for which there are no adapters", todo, where=options.rec)
    refuse_told_items(options.rec, "give one trained without --tell-items, for which there are adapters")
    if options.dry_run:
        prepared = _prepare(options, facts, pick_device(options.device))
        return forecast_recommender(
            prepared,
            options,
            options,
            lambda n_users: _task(prepared, replace(options, valid_users=n_users), facts),
        )
    return run_training(
        info,
        options,
        lambda device: _prepare(options, facts, device),
        lambda prepared, running: _train(prepared, options, facts, running),
        lambda prepared, folder, kept: _save(prepared, options, folder, kept),
    )


def _prepare(options: Options, facts: RecommenderFacts, device: torch.device) -> _Prepared:
    from idgr.formats.adapter_folder import weights_hash
    from idgr.formats.rec_folder import check_ids_known
    from idgr.models.backbone import load_causal_backbone
    from idgr.models.llama import fit_item_slots
    from idgr.models.lora import add_lora
    from idgr.models.tokenizer import id_tokens
    from idgr.recommender.prompts import causal_renderer_of

    inputs = read_inputs(options.train, options.ids, options.valid)
    check_ids_known(facts, inputs.known, options.rec, options.ids, or_force=False)
    backbone = load_causal_backbone(options.rec)
    tokens = id_tokens(backbone.tokenizer, inputs.texts)
    fit_item_slots(backbone.model, tokens, new=False, separator=facts.separator)
    add_lora(backbone.model, options.rank, seed=options.seed)
    backbone.model.to(device)
    renderer = causal_renderer_of(facts, backbone.tokenizer, tokens)
    return _Prepared(inputs, backbone, renderer, base=weights_hash(options.rec))


def _task(
    prepared: Prepared, options: Options, facts: RecommenderFacts, processes: ProcessGroup | None = None
) -> TrainingTask:
    from idgr.recommender.training import recommender_task

    histories = prepared.inputs.histories
    task = recommender_task(
        prepared.backbone,
        prepared.renderer,
        histories.sequences,
        histories.valid,
        RecommenderOptions(
            objective=facts.objective,
            valid_users=options.valid_users,
            valid_beams=options.valid_beams,
            patience=options.patience,
        ),
        options.seed,
        names=histories.names,
        processes=processes,
    )
    return replace(task, label="train-adapter")


def _train(prepared: Prepared, options: Options, facts: RecommenderFacts, running: TrainingRun) -> dict[str, Any]:
    from idgr.engine.trainer import run_epochs

    say_if_unvalidated("train-adapter", prepared.inputs.histories.valid)
    task = _task(prepared, options, facts, running.context.processes)
    kept = run_epochs(prepared.backbone.model, task, options, running.context, running.on_epoch)
    say_what_is_kept("train-adapter", kept, options.epochs)
    return kept


def _save(prepared: _Prepared, options: Options, folder: Path, kept: dict[str, Any]) -> dict[str, Any]:
    from idgr.formats.records import ids_fingerprint
    from idgr.models.lora import save_adapter

    save_adapter(prepared.backbone.model, folder, options.rec)
    known = ids_fingerprint(prepared.inputs.known)
    return {"base": prepared.base, "ids_fingerprint": known, "kept": kept}
