"""`idgr init-gen`: a first ID generator where no pretrained one can be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.corpus.catalogue import read_catalogue
from idgr.engine.options import DryRun
from idgr.errors import IdgrError
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import read_jsonl
from idgr.formats.records import Item, key
from idgr.options import MODEL, TRAINING, UNSET, Role, argument, option
from idgr.progress import log
from idgr.stages.options import local_model, refuse_stream, run_info
from idgr.stages.training import TrainingStage, forecast_task, run_training

if TYPE_CHECKING:
    import torch

    from idgr.engine.run import TrainingRun
    from idgr.models.backbone import Backbone

EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class Options(TrainingStage):
    """Make a first ID generator, a T5 or a Llama, trained on pairs of an item's text and an ID.

    Example: idgr init-gen data/beauty/items.jsonl --pairs initial_ids.jsonl.gz -o gen/

    Example: idgr init-gen data/beauty/items.jsonl --model smollm2/ --lr 1e-4 -o gen/
    """

    items: str = argument("items.jsonl of `idgr prep`, or raw metadata with item_id.", "ITEMS")
    pairs: str | None = option(
        "Pairs to learn from: item_id (or text) and id a line; else keyphrases.", None, role=Role.INPUT
    )
    model: str = option("Preset (nano, small, nano-causal), model folder, GGUF file, or name of a hub model.", "nano")
    tokenizer: str | None = option("Folder whose tokenizer a preset shares.", None, MODEL, role=Role.INPUT)
    vocab_size: int | None = option("Bound of the vocabulary that a preset learns.", None, MODEL, at_least=1)
    max_text_tokens: int = option("Tokens of a text that are read.", 256, at_least=2)
    held_out: float = option("Share of pairs that only measures the loss.", 0.05, TRAINING, at_least=0, below=1)
    epochs: int = option("Passes over the pairs: 5, or as many as make --min-steps.", UNSET, TRAINING, at_least=1)
    # A preset that took 1,000 steps on 3,308 items ended at a loss of 5.2, repeated a word in 90 % of its IDs and made
    # 21 % of their words up; after 4,000 steps these were 1.4, 35 % and 8 %.
    min_steps: int = option("Steps at least, where --epochs is not given.", 4000, TRAINING, at_least=1)
    anchor: float = option("Weight of staying close to the --model it begins from.", 0.0, TRAINING, at_least=0)
    max_loss: float = option("Warn where the last epoch's loss is above this, in nats a token.", 3.0, TRAINING, above=0)
    batch_size: int = 16
    dry_run: DryRun = False


@dataclass(frozen=True)
class _Prepared:
    """What is trained, on which pairs of text and ID, and how: with the number of epochs settled."""

    backbone: Backbone
    pairs: list[tuple[str, str]]
    options: Options


def run(options: Options) -> dict[str, Any] | None:
    """Train a first ID generator, or with `dry_run` tell what that would take.

    Returns:
        The record of the last epoch, or the forecast; None where the output was finished before.

    Raises:
        IdgrError: an input is malformed, no pair is of an item, or the output is something else.
    """
    refuse_stream(options.output, "a model folder")
    info = run_info("init-gen", options, model=local_model(options.model))
    refuse_held_out({name: path for name, path in info.inputs.items() if name != "model"})

    def prepare(device: torch.device) -> _Prepared:
        return _prepare(options, device)

    def save(prepared: _Prepared, folder: Path, last: dict[str, Any]) -> dict[str, Any]:
        from idgr.models.backbone import TAUGHT, save_backbone

        _warn_of_loss(last["loss"], options.max_loss)
        save_backbone(prepared.backbone, folder)
        return {
            "max_text_tokens": options.max_text_tokens,
            "epochs": prepared.options.epochs,
            "final_loss": last["loss"],
            **(TAUGHT if prepared.backbone.arch == "causal" else {}),
        }

    if options.dry_run:
        from idgr.models.device import pick_device

        return _learn(prepare(pick_device(options.device)), lambda record: None, run=forecast_task)
    return run_training(info, options, prepare, _train, save)


def _prepare(options: Options, device: torch.device) -> _Prepared:
    from idgr.generator.training import steps_an_epoch
    from idgr.ids.causal_prompts import PLAIN
    from idgr.models.backbone import arch_of, resolve_model
    from idgr.prompts.templates import load_templates, template_words

    catalogue = read_catalogue(options.items)
    pairs = _read_pairs(options.pairs, catalogue) if options.pairs is not None else _keyphrase_pairs(catalogue)
    if not pairs:
        raise IdgrError("no text of an item has words", "give --pairs of texts and IDs", where=options.items)
    if options.epochs is UNSET:
        enough = ceil(options.min_steps / steps_an_epoch(len(pairs), options.held_out, options))
        options = replace(options, epochs=max(EPOCHS, enough))
    log(f"init-gen: {len(pairs)} pairs, {len(catalogue)} items, {options.epochs} epochs")
    # The recommender may share this vocabulary, so it knows the words of the prompts too.
    arch = arch_of(options.model)
    backbone = resolve_model(
        options.model,
        arch=arch,
        tokenizer=options.tokenizer,
        texts=lambda: [
            *(item.text for item in catalogue),
            *(textual for _, textual in pairs),
            *template_words(load_templates()),
            *([PLAIN] * 2 if arch == "causal" else []),  # once is too seldom for a token
        ],
        vocab_size=options.vocab_size,
        seed=options.seed,
    )
    backbone.model.to(device)
    return _Prepared(backbone, pairs, options)


def _train(prepared: _Prepared, running: TrainingRun) -> dict[str, Any]:
    return _learn(prepared, running.on_epoch, context=running.context)


def _learn(prepared: _Prepared, on_epoch: Callable[..., object], **how: Any) -> dict[str, Any]:
    from idgr.generator.training import train_generator

    return train_generator(
        prepared.backbone,
        prepared.pairs,
        prepared.options,
        max_text_tokens=prepared.options.max_text_tokens,
        held_out=prepared.options.held_out,
        anchor=prepared.options.anchor,
        on_epoch=on_epoch,
        **how,
    )


def _warn_of_loss(loss: float, most: float) -> None:
    if loss > most:
        log(
            f"init-gen: warning: the loss ends at {loss:.2f} nats a token, above --max-loss {most:g}, so the "
            "IDs will hardly fit the texts; give more --epochs, --pairs, or take `idgr gen-ids --scheme shared`"
        )


def _keyphrase_pairs(catalogue: list[Item]) -> list[tuple[str, str]]:
    """Pairs of each item's text with a phrase of its own words; items without words teach nothing."""
    from idgr.ids.keyphrase import keyphrase_ids

    texts = [item.text for item in catalogue]
    return [(text, phrase) for text, phrase in zip(texts, keyphrase_ids(texts, unique=False), strict=True) if phrase]


def _read_pairs(path: str, catalogue: list[Item]) -> list[tuple[str, str]]:
    """Pairs of text and ID: the text as given, or that of the item that `item_id` names.

    Pairs of items that are not in the catalogue, or have no text there, are left out and counted.
    """

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
