"""`idgr train-rec`: train the recommender on histories told in textual IDs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idgr.cli.causal_options import (
    CausalOptions,
    ContrastBehavior,
    ContrastSemantic,
    ItemVectors,
    Preference,
    Reconstruction,
    TextVectors,
    contrast_of,
    tasks_of,
)
from idgr.cli.recommender_defaults import Paper, defaults
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
    MaxTokensPerBatch,
    Overwrite,
    Patience,
    Precision,
    Schedule,
    Seed,
    Track,
    Warmup,
    training_options,
)
from idgr.errors import UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.options import MOST_INT

if TYPE_CHECKING:
    import torch

    from idgr.engine.task import TrainingTask
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer


def train_rec(
    train: Annotated[str, typer.Argument(help="Training sequences, train.jsonl of `idgr prep`.", metavar="TRAIN")],
    ids: Annotated[str, typer.Option("--ids", help="Textual IDs, ids.jsonl of `idgr gen-ids`.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the trained model.")],
    valid: Annotated[
        str | None, typer.Option("--valid", help="valid.jsonl; its HR and NDCG choose the epoch that is kept.")
    ] = None,
    arch: Annotated[
        Literal["t5", "causal"] | None,
        typer.Option("--arch", help="t5, or causal, a Llama that reads all prefixes at once; as --model is, else t5."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Preset (nano, small; nano-causal), model folder, or name of a hub model."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder whose tokenizer a preset shares, such as GEN/.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", max=MOST_INT, help="Bound of the vocabulary that a preset learns.")
    ] = None,
    word_tokens: Annotated[
        bool, typer.Option("--word-tokens", help="Every word of the IDs becomes one token, such as the index word aar.")
    ] = False,
    lora: Annotated[
        int | None,
        typer.Option(
            "--lora",
            min=1,
            help="Train low-rank updates of this rank and the rows of new tokens only; "
            "needs --arch causal and the extra `lora` of idgr.",
        ),
    ] = None,
    paper: Paper = False,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="Softmax over the valid children (trie, the default) or all tokens (full)."),
    ] = None,
    templates: Annotated[
        str | None, typer.Option("--templates", help="Prompt templates, one a line, with {history}; else idgr's ten.")
    ] = None,
    max_history: Annotated[
        int | None,
        typer.Option("--max-history", max=MOST_INT, help="Newest history items that are shown: 20; causal 50."),
    ] = None,
    max_prompt_tokens: Annotated[
        int, typer.Option("--max-prompt-tokens", max=MOST_INT, help="Length of a prompt; the oldest items go.")
    ] = 512,
    user_ids: Annotated[
        Literal["none", "history"],
        typer.Option("--user-ids", help="Whether prompts begin with the user's ID, made of the history shown."),
    ] = "none",
    history: Annotated[
        Literal["shown", "none"], typer.Option("--history", help="none: the user's ID stands for the history.")
    ] = "shown",
    gen: Annotated[str | None, typer.Option("--gen", help="For --user-ids: the ID generator.")] = None,
    items: Annotated[
        str | None,
        typer.Option("--items", help="items.jsonl, for what reads texts: --user-ids, tasks, --contrast-semantic."),
    ] = None,
    reconstruction: Reconstruction = 0.0,
    preference: Preference = 0.0,
    contrast_semantic: ContrastSemantic = 0.0,
    contrast_behavior: ContrastBehavior = 0.0,
    text_vectors: TextVectors = "tfidf",
    item_vectors: ItemVectors = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", max=MOST_INT, help="Passes over the training instances: 10; causal 8.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate: 1e-3; causal 2e-3.")] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", max=MOST_INT, help="Instances a batch; with --arch causal, sequences.")
    ] = 64,
    max_tokens_per_batch: MaxTokensPerBatch = 0,
    accumulate: Accumulate = 1,
    schedule: Schedule = "linear",
    warmup: Warmup = 0.05,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="AdamW's weight decay: .01; causal .05.")
    ] = None,
    clip: Clip = 1.0,
    dropout: Annotated[
        float | None, typer.Option("--dropout", help="Dropout; if not given, the model's own, with a causal one .2.")
    ] = None,
    reorder: Annotated[
        float | None, typer.Option("--reorder", help="causal: places by which an item is moved, anew each epoch.")
    ] = None,
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
    """Train a recommender that reads a history as textual IDs and writes the next item's ID.

    Example: idgr train-rec data/beauty/train.jsonl --ids ids.jsonl --valid data/beauty/valid.jsonl --tokenizer gen/
    -o rec/
    """
    arch = arch or _arch(model)
    model = model or {"t5": "nano", "causal": "nano-causal"}[arch]
    if arch != "causal" and reorder:
        raise UsageError("--reorder is for --arch causal", "leave it out")
    usual = defaults(arch, paper=paper)
    objective = objective or usual.objective
    max_history = usual.max_history if max_history is None else max_history
    epochs = usual.epochs if epochs is None else epochs
    lr = usual.lr if lr is None else lr
    weight_decay = usual.weight_decay if weight_decay is None else weight_decay
    dropout = usual.dropout if dropout is None else dropout
    reorder = usual.reorder if reorder is None else reorder
    given = dict(locals())
    if output == "-":
        raise UsageError("-o - cannot hold a model folder", "give the name of a folder to -o")
    if [train, ids, valid, templates, items].count("-") > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    if history == "none" and user_ids == "none":
        raise UsageError("--history none without --user-ids leaves prompts empty", "add --user-ids history")
    if arch == "causal" and (templates is not None or user_ids != "none"):
        raise UsageError("--arch causal has no prompts", "leave --templates and --user-ids out")
    causal = CausalOptions(
        reconstruction, preference, contrast_semantic, contrast_behavior, items, text_vectors, item_vectors
    )
    causal.check(arch)
    if lora is not None and arch != "causal":
        raise UsageError("--lora is for --arch causal", "leave it out")
    if max_history < 1:
        raise UsageError(f"--max-history {max_history}", "give a number of at least 1")
    if vocab_size is not None and vocab_size < 1:
        raise UsageError(f"--vocab-size {vocab_size}", "give a number of at least 1")

    from idgr.engine.device import uses_bf16
    from idgr.engine.run import is_finished, training_run
    from idgr.formats.rec_folder import RecommenderFacts, read_seen_tokens, write_seen_tokens
    from idgr.formats.records import ids_fingerprint
    from idgr.formats.run_info import RunInfo, hash_input
    from idgr.models.backbone import CAUSAL_PRESETS, PRESETS, resolve_model, save_backbone
    from idgr.models.device import pick_device
    from idgr.models.llama import fit_item_slots
    from idgr.models.lora import add_lora, check_lora, merge_lora
    from idgr.models.tokenizer import id_tokens
    from idgr.models.word_tokens import add_word_tokens
    from idgr.progress import log
    from idgr.prompts.templates import load_templates, template_words
    from idgr.recommender.options import RecommenderOptions
    from idgr.recommender.prompts import causal_renderer_of, renderer_of, user_ids_of
    from idgr.recommender.training import recommender_task, train_recommender

    if lora is not None:
        if model in CAUSAL_PRESETS:
            raise UsageError(f"--lora with --model {model}, whose weights are random", "give --model a trained model")
        check_lora("--lora")
    options = RecommenderOptions(
        objective=objective, valid_users=valid_users, valid_beams=valid_beams, patience=patience, reorder=reorder
    )
    loop = training_options(given)
    wordings = load_templates(templates) if arch == "t5" else []
    user_gen = hash_input(gen)["sha256"] if gen is not None and user_ids != "none" else None
    facts = RecommenderFacts(
        objective,
        wordings,
        max_history,
        max_prompt_tokens,
        "",
        user_ids=user_ids,
        user_gen=user_gen,
        history=history,
        arch=arch,
    )
    paths = {"train": train, "ids": ids, "valid": valid, "tokenizer": tokenizer, "templates": templates}
    paths |= {"gen": gen, "items": items, **causal.folders()}
    refuse_held_out(paths)
    shaping = {name: value for name, value in given.items() if name not in {*paths, *UNSHAPING, "usual", "paper"}}
    run = RunInfo(
        "train-rec", shaping, {**paths, "model": model if Path(model).is_dir() else None}, seed, outputs=[output]
    )

    def prepare(where: torch.device) -> Prepared:
        inputs = read_inputs(train, ids, valid)
        texts = inputs.texts
        tasks = tasks_of(causal, inputs.keys)
        backbone = resolve_model(
            model,
            arch=arch,
            tokenizer=tokenizer,
            texts=lambda: [*texts, *template_words(wordings), *tasks.words()],
            vocab_size=vocab_size,
            seed=seed,
        )
        fresh = model in {*PRESETS, *CAUSAL_PRESETS}
        added = add_word_tokens(backbone, texts, seed=seed, new=fresh) if word_tokens else []
        told = None if causal.reads_items else items
        named = user_ids_of(facts, gen, told, inputs.keys, backbone.tokenizer, where)
        tokens = id_tokens(backbone.tokenizer, texts)
        renderer: PromptRenderer | HistoryRenderer
        if arch == "causal":
            fit_item_slots(backbone.model, tokens, new=fresh)
            renderer = causal_renderer_of(facts, backbone.tokenizer, tokens)
        else:
            renderer = renderer_of(facts, backbone.tokenizer, tokens, named)
        if lora is not None:
            add_lora(backbone.model, lora, seed=seed, tokens=added)
        backbone.model.to(where)
        return Prepared(inputs, backbone, renderer, tasks, contrast_of(causal, backbone.model, inputs.keys, seed))

    if dry_run:
        tried = prepare(pick_device(device))

        def make_task(options: RecommenderOptions) -> TrainingTask:
            return recommender_task(
                tried.backbone,
                tried.renderer,
                tried.inputs.sequences,
                tried.inputs.valid,
                options,
                loop.seed,
                tasks=tried.tasks,
                contrast=tried.contrast,
            )

        print_forecast(tried, options, loop, make_task)
        return
    if is_finished(output, run, overwrite=overwrite):
        return
    with training_run(
        output, run, device, overwrite=overwrite, checkpoint_minutes=checkpoint_minutes, track=track
    ) as stage:
        ready = prepare(stage.device)
        seen_before = read_seen_tokens(model) or set()
        run.inputs_read()
        backbone, renderer, inputs = ready.backbone, ready.renderer, ready.inputs
        if not inputs.valid:
            log("train-rec: no --valid, so the last epoch is kept, not the best")
        best = train_recommender(
            backbone,
            renderer,
            inputs.sequences,
            inputs.valid,
            options,
            loop,
            stage.on_epoch,
            names=inputs.names,
            context=stage.context,
            tasks=ready.tasks,
            contrast=ready.contrast,
        )
        if stage.folder is None:
            return
        log(f"train-rec: kept epoch {best['epoch']} of {loop.epochs}")
        if lora is not None:
            merge_lora(backbone.model)
        save_backbone(backbone, stage.folder)
        seen = {token for row in inputs.sequences for item in row for token in renderer.id_tokens[item]}
        write_seen_tokens(stage.folder, seen | seen_before)
        run.facts |= asdict(facts) | {"ids_fingerprint": ids_fingerprint(inputs.known), "kept": best}
        run.facts["eos_token_id"] = backbone.model.config.eos_token_id
        run.facts["bf16"] = uses_bf16(precision, stage.device)
        run.write(output, stage.folder)


def _arch(model: str | None) -> Literal["t5", "causal"]:
    """The architecture of what --model names."""
    if model is None:
        return "t5"
    from idgr.models.backbone import arch_of

    return "causal" if arch_of(model) == "causal" else "t5"
