"""`idgr init-gen`: a first ID generator where no pretrained one can be had."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idgr.cli.training_options import (
    UNSHAPING,
    CheckpointMinutes,
    Compile,
    Device,
    Ema,
    Lr,
    MaxTokensPerBatch,
    Overwrite,
    Seed,
    Track,
)
from idgr.corpus.catalogue import read_catalogue
from idgr.errors import IdgrError, UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.options import MOST_INT

if TYPE_CHECKING:
    from idgr.formats.records import Item

EPOCHS = 5
# A preset that took 1,000 steps on 3,308 items ended at a loss of 5.2, repeated a word in 90 % of its IDs and made 21 %
# of their words up; after 4,000 steps these were 1.4, 35 % and 8 %.
MIN_STEPS = 4000
MAX_LOSS = 3.0


def init_gen(
    items: Annotated[
        str, typer.Argument(help="items.jsonl of `idgr prep`, or raw metadata with item_id.", metavar="ITEMS")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the generator.")],
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", help="Pairs to learn from: item_id (or text) and id a line; else keyphrases."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Preset (nano, small), model folder, or name of a hub model.")
    ] = "nano",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder whose tokenizer a preset shares.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", max=MOST_INT, help="Bound of the vocabulary that a preset learns.")
    ] = None,
    max_text_tokens: Annotated[
        int, typer.Option("--max-text-tokens", max=MOST_INT, help="Tokens of a text that are read.")
    ] = 256,
    held_out: Annotated[float, typer.Option("--held-out", help="Share of pairs that only measures the loss.")] = 0.05,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", max=MOST_INT, help="Passes over the pairs: 5, or as many as make --min-steps."),
    ] = None,
    min_steps: Annotated[
        int, typer.Option("--min-steps", min=1, max=MOST_INT, help="Steps at least, where --epochs is not given.")
    ] = MIN_STEPS,
    max_loss: Annotated[
        float, typer.Option("--max-loss", help="Warn where the last epoch's loss is above this, in nats a token.")
    ] = MAX_LOSS,
    lr: Lr = 1e-3,
    batch_size: Annotated[int, typer.Option("--batch-size", max=MOST_INT, help="Pairs a batch.")] = 16,
    max_tokens_per_batch: MaxTokensPerBatch = 0,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, bf16 (products of matrices only), or auto: what is quicker here.")
    ] = "fp32",
    ema: Ema = 0.0,
    compile: Compile = False,
    device: Device = "auto",
    seed: Seed = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    track: Track = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a first ID generator, trained on pairs of an item's text and an ID.

    Example: idgr init-gen data/beauty/items.jsonl --pairs initial_ids.jsonl.gz -o gen/
    """
    given = dict(locals())
    if output == "-":
        raise UsageError("-o - cannot hold a model folder", "give the name of a folder to -o")
    if items == pairs == "-":
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    if max_text_tokens < 2:
        raise UsageError(f"--max-text-tokens {max_text_tokens}", "the paper's code has 256")
    if vocab_size is not None and vocab_size < 1:
        raise UsageError(f"--vocab-size {vocab_size}", "give a number of at least 1")
    if not 0 <= held_out < 1:
        raise UsageError(f"--held-out {held_out}", "give a share from 0 to below 1")
    if not 0 < max_loss < inf:
        raise UsageError(f"--max-loss {max_loss}", "give a number above 0")

    from idgr.engine.device import uses_bf16
    from idgr.engine.options import TrainingOptions
    from idgr.engine.run import is_finished, training_run
    from idgr.formats.run_info import RunInfo
    from idgr.generator.training import steps_an_epoch, train_generator
    from idgr.models.backbone import resolve_model, save_backbone
    from idgr.progress import log
    from idgr.prompts.templates import load_templates, template_words

    loop = TrainingOptions(
        epochs=EPOCHS if epochs is None else epochs,
        lr=lr,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        max_tokens_per_batch=max_tokens_per_batch,
        ema=ema,
        compile=compile,
    )
    paths = {"items": items, "pairs": pairs, "tokenizer": tokenizer}
    refuse_held_out(paths)
    shaping = {name: value for name, value in given.items() if name not in {*paths, *UNSHAPING}}
    run = RunInfo(
        "init-gen", shaping, {**paths, "model": model if Path(model).is_dir() else None}, seed, outputs=[output]
    )

    if is_finished(output, run, overwrite=overwrite):
        return
    with training_run(
        output, run, device, overwrite=overwrite, checkpoint_minutes=checkpoint_minutes, track=track
    ) as stage:
        catalogue = read_catalogue(items)
        taught = _read_pairs(pairs, catalogue) if pairs is not None else _keyphrase_pairs(catalogue)
        if epochs is None:
            loop = replace(loop, epochs=max(loop.epochs, ceil(min_steps / steps_an_epoch(len(taught), held_out, loop))))
        log(f"init-gen: {len(taught)} pairs, {len(catalogue)} items, {loop.epochs} epochs")
        # The recommender may share this vocabulary, so it knows the words of the prompts too.
        backbone = resolve_model(
            model,
            tokenizer=tokenizer,
            texts=lambda: [
                *(item.text for item in catalogue),
                *(textual for _, textual in taught),
                *template_words(load_templates()),
            ],
            vocab_size=vocab_size,
            seed=seed,
        )
        backbone.model.to(stage.device)
        run.inputs_read()
        last = train_generator(
            backbone,
            taught,
            loop,
            max_text_tokens=max_text_tokens,
            held_out=held_out,
            on_epoch=stage.on_epoch,
            context=stage.context,
        )
        if stage.folder is None:
            return
        loss = last["loss"]
        if loss > max_loss:
            log(
                f"init-gen: warning: the loss ends at {loss:.2f} nats a token, above --max-loss {max_loss:g}, so the "
                "IDs will hardly fit the texts; give more --epochs, --pairs, or take `idgr gen-ids --scheme shared`"
            )
        save_backbone(backbone, stage.folder)
        run.facts |= {"max_text_tokens": max_text_tokens, "bf16": uses_bf16(precision, stage.device)}
        run.facts |= {"epochs": loop.epochs, "final_loss": loss}
        run.write(output, stage.folder)


def _keyphrase_pairs(catalogue: list[Item]) -> list[tuple[str, str]]:
    """Pairs of each item's text with a phrase of its own words; items without words teach nothing."""
    from idgr.ids.keyphrase import keyphrase_ids

    texts = [item.text for item in catalogue]
    return [(text, phrase) for text, phrase in zip(texts, keyphrase_ids(texts, unique=False), strict=True) if phrase]


def _read_pairs(path: str, catalogue: list[Item]) -> list[tuple[str, str]]:
    """Pairs of text and ID: the text as given, or that of the item that `item_id` names.

    Pairs of items that are not in the catalogue, or have no text there, are left out and counted.
    """
    from idgr.formats.jsonl import read_jsonl
    from idgr.formats.records import key
    from idgr.progress import log

    texts = {item.item_id: item.text for item in catalogue}

    def parse(row: dict[str, Any]) -> tuple[str, str]:
        textual = row.get("id")
        if not isinstance(textual, str) or not textual.strip():
            raise ValueError('no "id" text; give each pair an ID')
        if "text" not in row:
            return texts.get(key(row, "item_id"), ""), textual
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise ValueError('"text" is not a text; give each pair one, or an item_id')
        return row["text"], textual

    read = list(read_jsonl(path, parse))
    found = [pair for pair in read if pair[0]]
    if not found:
        raise IdgrError("no pair is of an item in ITEMS", "give the pairs of this catalogue", where=path)
    if len(found) < len(read):
        log(f"init-gen: left out {len(read) - len(found)} pairs of items without text in ITEMS")
    return found
