"""`idgr train-text-ranker`: train a ranker of texts on some platforms, for any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.engine.options import DryRun
from idgr.errors import IdgrError
from idgr.formats.held_out import refuse_held_out
from idgr.options import COMMON, MODEL, option
from idgr.progress import log
from idgr.recommender.options import Patience, ValidUsers
from idgr.stages.options import DataFolders, refuse_stream, run_info
from idgr.stages.training import TrainingStage, forecast_training, numbered, run_training, say_what_is_kept

if TYPE_CHECKING:
    import torch

    from idgr.engine.run import TrainingRun
    from idgr.engine.task import TrainingTask
    from idgr.item_models.text_ranker import RankerInstances, Users
    from idgr.models.text_ranker import TextRanker

_FILES = ("items", "train", "valid")


@dataclass(frozen=True, kw_only=True)
class Options(TrainingStage):
    """Train a ranker that knows items by the words of their texts alone, and so ranks those of any platform.

    Example: idgr train-text-ranker data/sports/ data/office/ -o ranker/
    """

    data: DataFolders
    candidates: int = option("Items of the likest texts that are ranked after a history.", 300, MODEL, at_least=2)
    width: int = option("Width of the hidden layer.", 32, MODEL, at_least=1)
    dropout: float = 0.1
    max_users: int = option(
        "Training users of each platform, drawn by the seed; 0 for all.", 10_000, COMMON, at_least=0
    )
    valid_users: ValidUsers = 2000
    patience: Patience = 0
    epochs: int = 6
    lr: float = 0.002
    weight_decay: float = 0.05
    dry_run: DryRun = False


@dataclass(frozen=True)
class _Prepared:
    """What is trained, and on what."""

    model: TextRanker
    train: list[RankerInstances]
    valid: list[RankerInstances]

    def task(self, patience: int = 0) -> TrainingTask:
        from idgr.item_models.text_ranker import ranker_task

        return ranker_task(self.model, self.train, self.valid, patience=patience)


def run(options: Options) -> dict[str, Any] | None:
    """Train a ranker of texts, or with `dry_run` tell what that would take.

    Returns:
        The record of the epoch that was kept, or the forecast; None where the output was finished before.

    Raises:
        IdgrError: a folder is no prepared data set, or no target is among the candidates.
    """
    from idgr.engine.trainer import run_epochs
    from idgr.models.device import pick_device
    from idgr.models.text_ranker import save_text_ranker

    refuse_stream(options.output, "a model folder")
    files = {name: [str(Path(folder) / f"{name}.jsonl") for folder in options.data] for name in _FILES}
    record = run_info("train-text-ranker", options, data=None, **files)
    for paths in zip(*files.values(), strict=True):
        refuse_held_out(dict(zip(_FILES, paths, strict=True)))

    def train(prepared: _Prepared, running: TrainingRun) -> dict[str, Any]:
        task = prepared.task(options.patience)
        kept = run_epochs(prepared.model, task, options, running.context, running.on_epoch)
        say_what_is_kept("train-text-ranker", kept, options.epochs)
        return kept

    def saved(prepared: _Prepared, folder: Path, kept: dict[str, Any]) -> dict[str, Any]:
        save_text_ranker(prepared.model, folder)
        return {"kept": kept}

    if options.dry_run:
        prepared = _prepare(options, pick_device(options.device))
        n_valid = sum(len(one.target_N) for one in prepared.valid)
        return forecast_training(prepared.model, prepared.task(), options, n_valid, n_valid)
    return run_training(record, options, lambda device: _prepare(options, device), train, saved)


def _prepare(options: Options, device: torch.device) -> _Prepared:
    from idgr.item_models.text_features import N_FEATURES, TextFeatures
    from idgr.item_models.text_ranker import ranker_instances
    from idgr.models.text_ranker import TextRankerConfig, new_text_ranker

    trained, valid = [], []
    platforms = [_read(Path(folder), options) for folder in options.data]
    for folder, (texts, users, valid_users) in zip(options.data, platforms, strict=True):
        features = TextFeatures(texts)
        instances = ranker_instances(features, users, options.candidates, "candidates")
        log(f"train-text-ranker: {instances.reached:.1%} of {len(users)} targets of {folder} are among the candidates")
        if not instances.reached:
            todo = "give more --candidates, or a platform whose texts say more"
            raise IdgrError("no target is among the items whose texts are likest to the history's", todo, where=folder)
        trained.append(instances.usable())
        valid.append(ranker_instances(features, valid_users, options.candidates, "validation"))
    config = TextRankerConfig(N_FEATURES, options.width, options.candidates, options.dropout)
    return _Prepared(new_text_ranker(config, options.seed).to(device), trained, valid)


def _read(folder: Path, options: Options) -> tuple[list[str], Users, Users]:
    """A platform's texts, the last items of its training sequences as targets, and its validation users."""
    import numpy as np

    from idgr.formats.records import read_items, read_queries, read_sequences
    from idgr.recommender.training import draw_users

    items, train, valid = (str(folder / f"{name}.jsonl") for name in _FILES)
    found = read_items(items)
    number = {item.item_id: place for place, item in enumerate(found)}
    queries = list(read_queries(valid, number, need_target=True))
    histories = numbered(train, list(read_sequences(train, number)), queries, number)
    long = [sequence for sequence in histories.sequences if len(sequence) > 1]
    if 0 < options.max_users < len(long):
        drawn = np.random.default_rng(options.seed).choice(len(long), options.max_users, replace=False)
        long = [long[place] for place in sorted(drawn.tolist())]
    tried = draw_users(len(histories.valid), options.valid_users)
    texts = [item.text for item in found]
    return texts, [(row[:-1], row[-1]) for row in long], [histories.valid[place] for place in tried]
