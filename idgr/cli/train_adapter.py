"""`idgr train-adapter`: train a low-rank adapter of a finished recommender, whose own weights stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from idgr.cli.recommender_training import Prepared, print_forecast, read_inputs
from idgr.cli.training_options import (
    UNSHAPING,
    Accumulate,
    CheckpointMinutes,
    Clip,
    Compile,
    Device,
    DryRun,
    Ema,
    Lr,
    MaxTokensPerBatch,
    Overwrite,
    Patience,
    Precision,
    Schedule,
    Seed,
    Track,
    Warmup,
    WeightDecay,
    training_options,
)
from idgr.errors import IdgrError, UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.options import MOST_INT

if TYPE_CHECKING:
    import torch

    from idgr.engine.task import TrainingTask


def train_adapter(
    train: Annotated[str, typer.Argument(help="Training sequences, train.jsonl of `idgr prep`.", metavar="TRAIN")],
    rec: Annotated[str, typer.Option("--rec", help="The recommender, a folder of `idgr train-rec --arch causal`.")],
    ids: Annotated[str, typer.Option("--ids", help="The ids.jsonl that it was trained on.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the adapter.")],
    valid: Annotated[
        str | None, typer.Option("--valid", help="valid.jsonl; its HR and NDCG choose the epoch that is kept.")
    ] = None,
    rank: Annotated[
        int, typer.Option("--rank", min=1, max=MOST_INT, help="Rank of the updates of each projection.")
    ] = 8,
    epochs: Annotated[int, typer.Option("--epochs", max=MOST_INT, help="Passes over the training sequences.")] = 5,
    lr: Lr = 1e-3,
    batch_size: Annotated[int, typer.Option("--batch-size", max=MOST_INT, help="Sequences a batch.")] = 64,
    max_tokens_per_batch: MaxTokensPerBatch = 0,
    accumulate: Accumulate = 1,
    schedule: Schedule = "linear",
    warmup: Warmup = 0.05,
    weight_decay: WeightDecay = 0.01,
    clip: Clip = 1.0,
    dropout: Annotated[float | None, typer.Option("--dropout", help="Dropout; the model's own if not given.")] = None,
    epoch_instances: Annotated[
        int, typer.Option("--epoch-instances", max=MOST_INT, help="Instances drawn for each epoch; 0 for all.")
    ] = 0,
    valid_users: Annotated[
        int, typer.Option("--valid-users", max=MOST_INT, help="Users to validate on; 0 for all.")
    ] = 2000,
    valid_beams: Annotated[
        int, typer.Option("--valid-beams", max=MOST_INT, help="Beams of the search on validation.")
    ] = 20,
    patience: Patience = 0,
    precision: Precision = "fp32",
    ema: Ema = 0.0,
    compile: Compile = False,
    device: Device = "auto",
    seed: Seed = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    track: Track = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a low-rank adapter of a causal recommender on recommendation alone, its own weights frozen (LLM-BS).

    Example: idgr train-adapter train.jsonl --rec rec/ --ids ids.jsonl --valid valid.jsonl --rank 8 -o adapter/
    """
    given = dict(locals())
    if output == "-":
        raise UsageError("-o - cannot hold an adapter", "give the name of a folder to -o")
    if [train, ids, valid].count("-") > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")

    from dataclasses import replace

    from idgr.engine.device import uses_bf16
    from idgr.engine.run import is_finished, training_run
    from idgr.engine.trainer import run_epochs
    from idgr.formats.adapter_folder import weights_hash
    from idgr.formats.rec_folder import check_ids_known, read_recommender_facts
    from idgr.formats.records import ids_fingerprint
    from idgr.formats.run_info import RunInfo
    from idgr.models.backbone import load_causal_backbone
    from idgr.models.device import pick_device
    from idgr.models.llama import fit_item_slots
    from idgr.models.lora import add_lora, check_lora, save_adapter
    from idgr.models.tokenizer import id_tokens
    from idgr.progress import log
    from idgr.recommender.options import RecommenderOptions
    from idgr.recommender.prompts import causal_renderer_of
    from idgr.recommender.training import recommender_task

    paths = {"train": train, "rec": rec, "ids": ids, "valid": valid}
    refuse_held_out(paths)
    check_lora("train-adapter")
    facts = read_recommender_facts(rec)
    if facts.arch != "causal":
        todo = "give one that `idgr train-rec --arch causal` wrote"
        raise IdgrError("is a T5, for which there are no adapters", todo, where=rec)
    options = RecommenderOptions(
        objective=facts.objective, valid_users=valid_users, valid_beams=valid_beams, patience=patience
    )
    loop = training_options(given)
    shaping = {name: value for name, value in given.items() if name not in {*paths, *UNSHAPING}}
    run = RunInfo("train-adapter", shaping, {**paths}, seed, outputs=[output])

    def prepare(where: torch.device) -> Prepared:
        inputs = read_inputs(train, ids, valid)
        check_ids_known(facts, inputs.known, rec, ids, or_force=False)
        backbone = load_causal_backbone(rec)
        tokens = id_tokens(backbone.tokenizer, inputs.texts)
        fit_item_slots(backbone.model, tokens, new=False)
        add_lora(backbone.model, rank, seed=seed)
        backbone.model.to(where)
        return Prepared(inputs, backbone, causal_renderer_of(facts, backbone.tokenizer, tokens))

    def make_task(ready: Prepared, options: RecommenderOptions, **where: Any) -> TrainingTask:
        data = ready.inputs
        task = recommender_task(
            ready.backbone, ready.renderer, data.sequences, data.valid, options, seed, names=data.names, **where
        )
        return replace(task, label="train-adapter")

    if dry_run:
        tried = prepare(pick_device(device))
        print_forecast(tried, options, loop, lambda options: make_task(tried, options))
        return
    if is_finished(output, run, overwrite=overwrite):
        return
    with training_run(
        output, run, device, overwrite=overwrite, checkpoint_minutes=checkpoint_minutes, track=track
    ) as stage:
        ready, base = prepare(stage.device), weights_hash(rec)
        run.inputs_read()
        if not ready.inputs.valid:
            log("train-adapter: no --valid, so the last epoch is kept, not the best")
        model = ready.backbone.model
        task = make_task(ready, options, processes=stage.context.processes)
        best = run_epochs(model, task, loop, stage.context, stage.on_epoch)
        if stage.folder is None:
            return
        log(f"train-adapter: kept epoch {best['epoch']} of {loop.epochs}")
        save_adapter(model, stage.folder, rec)
        known = ids_fingerprint(ready.inputs.known)
        run.facts |= {"base": base, "ids_fingerprint": known, "kept": best}
        run.facts["bf16"] = uses_bf16(precision, stage.device)
        run.write(output, stage.folder)
