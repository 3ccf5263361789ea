"""`idgr train-sasrec`: train a SASRec on item sequences, as a rival that knows no textual IDs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import UsageError
from idgr.formats.jsonl import is_stream
from idgr.options import MODEL, TRAINING, Role, option
from idgr.stages.item_training import ItemTraining, MaxHistory, Width, run_item_training

if TYPE_CHECKING:
    from idgr.models.sasrec import Sasrec


@dataclass(frozen=True, kw_only=True)
class Options(ItemTraining):
    """Train a SASRec with the full cross-entropy over all items.

    Example: idgr train-sasrec data/beauty/train.jsonl --items data/beauty/items.jsonl
    --valid data/beauty/valid.jsonl -o sasrec/
    """

    width: Width = 64
    layers: int = option("Layers of the Transformer.", 2, MODEL, at_least=1)
    heads: int = option("Attention heads; they divide the width.", 2, MODEL, at_least=1)
    max_history: MaxHistory = 50
    text_vectors: str | None = option(
        "Folder of a model that reads texts: know items by those of --items alone, and so any catalogue (UniSRec).",
        None,
        MODEL,
        role=Role.INPUT,
    )
    epochs: int = 60
    batch_size: int = option("Sequences a batch at most.", 1024, TRAINING, at_least=1)
    max_tokens_per_batch: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise UsageError(
                f"--heads {self.heads} does not divide --width {self.width}", "give a number of heads that does"
            )
        if self.text_vectors is not None and (self.items is None or is_stream(self.items)):
            raise UsageError("--text-vectors needs --items", "give items.jsonl, a file")


def run(options: Options) -> dict[str, Any] | None:
    """Train a SASRec, or with `dry_run` tell what that would take.

    Returns:
        The record of the epoch that was kept, or the forecast; None where the output was finished before.
    """
    from idgr.item_models.sasrec import sasrec_task
    from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec

    if options.text_vectors is not None:
        return _of_texts(options, options.text_vectors)

    def new_model(n_items: int) -> Sasrec:
        shape = (options.width, options.layers, options.heads, options.max_history, options.dropout)
        return new_sasrec(SasrecConfig(n_items, *shape), options.seed)

    return run_item_training("train-sasrec", options, new_model, sasrec_task, save_sasrec)


def _of_texts(options: Options, encoder: str) -> dict[str, Any] | None:
    from idgr.item_models.sasrec import sasrec_task
    from idgr.models.text_sasrec import TextSasrec, TextSasrecConfig, new_text_sasrec, save_text_sasrec
    from idgr.stages.catalogue_texts import read_catalogue_texts, text_source

    source = text_source(encoder)

    def new_model(n_items: int) -> TextSasrec:
        _, vectors_IT = read_catalogue_texts(str(options.items), encoder)
        shape = (options.width, options.layers, options.heads, options.max_history, options.dropout)
        model = new_text_sasrec(TextSasrecConfig(n_items, *shape, text_width=vectors_IT.shape[1]), options.seed)
        model.take_catalogue(vectors_IT)
        return model

    def save(model: TextSasrec, keys: Sequence[str], folder: Path) -> None:
        save_text_sasrec(model, source, folder)

    return run_item_training("train-sasrec", options, new_model, sasrec_task, save)
