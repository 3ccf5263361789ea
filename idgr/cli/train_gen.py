"""`idgr train-gen`: train the ID generator through the frozen recommender."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from idgr.cli.training_options import (
    UNSHAPING,
    Accumulate,
    CheckpointMinutes,
    Clip,
    Compile,
    Device,
    Ema,
    MaxTokensPerBatch,
    Overwrite,
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

PAPER_LR = 1e-8


def train_gen(
    train: Annotated[str, typer.Argument(help="Training sequences, train.jsonl of `idgr prep`.", metavar="TRAIN")],
    items: Annotated[str, typer.Option("--items", help="The items' texts, items.jsonl of `idgr prep`.")],
    ids: Annotated[str, typer.Option("--ids", help="The current IDs, ids.jsonl of `idgr gen-ids`.")],
    rec: Annotated[str, typer.Option("--rec", help="The recommender trained on these IDs; it stays as it is.")],
    gen: Annotated[str, typer.Option("--gen", help="The ID generator to begin from.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the trained generator.")],
    objective: Annotated[
        str | None, typer.Option("--objective", help="full or trie; as the recommender was trained, if not given.")
    ] = None,
    templates: Annotated[
        str | None, typer.Option("--templates", help="Prompt templates; else those the recommender was trained with.")
    ] = None,
    max_history: Annotated[
        int | None,
        typer.Option("--max-history", min=1, max=MOST_INT, help="Newest history items shown; else as in its training."),
    ] = None,
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option("--max-prompt-tokens", max=MOST_INT, help="Length of a prompt; else as in its training."),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the softmax at each ID position.")] = 1.0,
    straight_through: Annotated[
        bool, typer.Option("--straight-through", help="Show the hard IDs, with the gradient of the soft ones.")
    ] = False,
    anchor: Annotated[float, typer.Option("--anchor", help="Weight of staying close to the starting generator.")] = 0.0,
    epochs: Annotated[int, typer.Option("--epochs", max=MOST_INT, help="Passes over the training instances.")] = 1,
    lr: Annotated[float | None, typer.Option("--lr", help="Highest learning rate (default: 3e-4).")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's learning rate, 1e-8.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", max=MOST_INT, help="Instances a batch.")] = 12,
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
    max_text_tokens: Annotated[
        int, typer.Option("--max-text-tokens", max=MOST_INT, help="Texts are cut behind so many.")
    ] = 256,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, or bf16 for products of matrices only.")
    ] = "fp32",
    ema: Ema = 0.0,
    compile: Compile = False,
    device: Device = "auto",
    seed: Seed = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    track: Track = None,
    overwrite: Overwrite = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take a recommender that was trained on other IDs, or on none.")
    ] = False,
) -> None:
    """Train the ID generator by what its IDs are worth to a recommender, which stays frozen.

    Example: idgr train-gen train.jsonl --items items.jsonl --ids ids.jsonl --rec rec/ --gen gen/ -o gen2/
    """
    given = dict(locals())
    if output == "-":
        raise UsageError("-o - cannot hold a model folder", "give the name of a folder to -o")
    if [train, items, ids, templates].count("-") > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    if paper and lr is not None:
        raise UsageError("--paper and --lr both tell the learning rate", "leave one of them out")

    from idgr.engine.run import is_finished, training_run
    from idgr.formats.rec_folder import RecommenderFacts, check_ids_known, read_recommender_facts
    from idgr.formats.records import read_ids, read_items, read_sequences
    from idgr.formats.run_info import RunInfo
    from idgr.generator.id_learning import DEFAULT_LR, IdLearningOptions, check_one_vocabulary, learn_ids
    from idgr.models.backbone import check_t5, load_backbone, save_backbone
    from idgr.models.tokenizer import id_tokens
    from idgr.prompts.templates import load_templates
    from idgr.recommender.prompts import renderer_of, user_ids_of

    OBJECTIVES = ("full", "trie")

    rate = PAPER_LR if paper else DEFAULT_LR if lr is None else lr
    options = IdLearningOptions(temperature, straight_through, anchor, max_text_tokens)
    loop = training_options({**given, "lr": rate})
    if objective is not None and objective not in OBJECTIVES:
        raise UsageError(f"--objective {objective}", f"choose {' or '.join(OBJECTIVES)}")
    inputs = ("train", "items", "ids", "rec", "gen", "templates")
    shaping = {name: value for name, value in given.items() if name not in {*inputs, *UNSHAPING, "paper"}}
    refuse_held_out({name: given[name] for name in inputs})
    run = RunInfo("train-gen", {**shaping, "lr": rate}, {name: given[name] for name in inputs}, seed, outputs=[output])

    for model in (gen, rec):
        check_t5(model, "train-gen")
    if is_finished(output, run, overwrite=overwrite):
        return
    with training_run(
        output, run, device, overwrite=overwrite, checkpoint_minutes=checkpoint_minutes, track=track
    ) as stage:
        wordings = load_templates(templates)
        facts = read_recommender_facts(rec, RecommenderFacts("full", wordings, 20, 512, "") if force else None)
        asked: dict[str, Any] = {"objective": objective, "templates": None if templates is None else wordings}
        asked |= {"max_history": max_history, "max_prompt_tokens": max_prompt_tokens}
        facts = replace(facts, **{name: value for name, value in asked.items() if value is not None})
        known = read_ids(ids)
        if not force:
            check_ids_known(facts, known, rec, ids)
        number = {record.item_id: i for i, record in enumerate(known)}
        histories = list(read_sequences(train, number))
        sequences = [[number[item] for item in row.items] for row in histories]
        if max(map(len, sequences)) < 2:
            raise IdgrError("no sequence has two items", "give longer training sequences", where=train)
        text_of = {item.item_id: item.text for item in read_items(items)}
        for record in known:
            if record.item_id not in text_of:
                raise IdgrError(
                    f"has no item {record.item_id!r}", f"give the items that {ids} was made for", where=items
                )
        generator, recommender = load_backbone(gen), load_backbone(rec)
        check_one_vocabulary(generator.tokenizer, recommender.tokenizer, gen, rec)
        rows = id_tokens(recommender.tokenizer, [record.id for record in known])
        # A user's ID stays as the starting generator makes it: only the items' IDs are learnt.
        named = (
            user_ids_of(facts, gen, items, list(number), recommender.tokenizer, stage.device, strange=force)
            if facts.user_ids != "none"
            else None
        )
        renderer = renderer_of(facts, recommender.tokenizer, rows, named)
        generator.model.to(stage.device)
        recommender.model.to(stage.device)
        texts = [text_of[record.item_id] for record in known]
        run.inputs_read()
        last = learn_ids(
            generator,
            recommender,
            renderer,
            texts,
            sequences,
            facts.objective,
            options,
            loop,
            stage.on_epoch,
            names=[row.user_id for row in histories],
            context=stage.context,
        )
        if stage.folder is None:
            return
        save_backbone(generator, stage.folder)
        run.facts |= {"last": last}
        run.write(output, stage.folder)
