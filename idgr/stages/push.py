"""`idgr push`: a model's folder, with a card, to the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from idgr.errors import UsageError
from idgr.formats.inputs import RUN_FILE, hash_input
from idgr.formats.jsonl import STDIN, replace_folder
from idgr.formats.model_card import Evaluation, base_model_of, kept_epoch, model_card, read_evaluation
from idgr.formats.published import (
    CARD,
    check_files_listed,
    check_replaceable,
    dump,
    published_files,
    read_listing,
    without_places,
)
from idgr.formats.run_info import read_run
from idgr.options import RUN, Role, StageOptions, argument, option
from idgr.progress import log
from idgr.stages.options import refuse_stream

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Push a trained model, with a card of what it was made of, to the Hugging Face hub.

    The card, README.md, is made of the folder's run.json: hashes of the data, command, options, seed, versions and the
    figures of the epoch that was kept. What is pushed is the files that run.json lists, with every path cut to its last
    name; no checkpoints and no log. Who pushes is told by `hf auth login` or HF_TOKEN.

    Example: idgr push rec/ me/office-idgr --license apache-2.0 --metrics metrics.json

    Example: idgr push rec/ me/office-idgr --license apache-2.0 --to pushed/
    """

    folder: str = argument(
        "A folder of train-rec, train-sasrec, train-two-tower, train-text-ranker, init-gen or train-gen.", "FOLDER"
    )
    name: str = option("The model on the hub: USER/NAME.", positional=True, metavar="NAME", role=Role.RUN)
    license: str = option("Its licence as the hub names it, such as apache-2.0, cc-by-nc-4.0 or other.")
    metrics: list[str] | None = option(
        "Metrics for the card, which `idgr eval` wrote; may be repeated.", None, role=Role.INPUT
    )
    data_name: str = option("What the card calls the data set.", "own data")
    base_model: str | None = option(
        "The model on the hub that it was made of (default: as run.json tells, where it does).", None
    )
    to: str | None = option("Write the folder that would be pushed here, and push nothing.", None, role=Role.OUTPUT)
    public: bool = option("Let everybody see it; else it is private.", False, RUN, role=Role.RUN)
    revision: str | None = option("The branch, made if it is not there (default: main).", None, RUN, role=Role.RUN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _LICENSE.fullmatch(self.license):
            todo = "give one of https://huggingface.co/docs/hub/repositories-licenses, such as apache-2.0 or other"
            raise UsageError(f"--license {self.license!r} is no licence of the hub", todo)
        if STDIN in (self.metrics or ()):
            raise UsageError("--metrics - has no record beside it", "give the file that `idgr eval` wrote")
        if self.to is not None:
            refuse_stream(self.to, "a folder")


def run(options: Options) -> str:
    """Push a model, or with `to` write what would be pushed.

    Returns:
        The address of the commit, or the folder.

    Raises:
        UsageError: the name is none of a model, or it is public there and `public` is not given.
        IdgrError: the folder is none of a model or was changed since, metrics are not as `idgr eval` wrote them, or the
            hub refuses it or cannot be reached.
    """
    if options.to is not None:
        check_replaceable(options.to)
    contents = _contents(options)
    n_bytes = sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in contents.values())
    size = f"{len(contents)} files, {n_bytes / 2**20:,.1f} MiB"
    if options.to is not None:
        with replace_folder(options.to, None, [options.folder, *(options.metrics or ())]) as fresh:
            for name, source in contents.items():
                (fresh / name).write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        log(f"push: {size} in {options.to}; nothing was pushed")
        return options.to
    from idgr.models.hub_repository import push_files

    log(f"push: {size} to {options.name}")
    message = f"idgr {read_run(options.folder)['command']}"
    address, stale = push_files(options.name, contents, message, public=options.public, revision=options.revision)
    if stale:
        log(f"push: deleted there, since an earlier push left it: {', '.join(stale)}")
    log(f"push: done, {address}")
    return address


def _contents(options: Options) -> dict[str, Path | bytes]:
    """What is pushed, by name: the model's files, the card and the record, which lists them."""
    record = read_listing(options.folder)
    check_files_listed(Path(options.folder), record, options.folder)
    contents = published_files(options.folder, record)
    cleaned = without_places(record)
    evaluations = [read_evaluation(path) for path in options.metrics or ()]
    _warn(options)
    kept: Evaluation | None = kept_epoch(cleaned)
    card = model_card(
        options.name,
        cleaned,
        options.license,
        [*evaluations, *([kept] if kept is not None else [])],
        data_name=options.data_name,
        base_model=options.base_model or base_model_of(record),
    )
    contents[CARD] = card.encode()
    cleaned["outputs"] = {name: _digest(source, record["outputs"].get(name)) for name, source in contents.items()}
    contents[RUN_FILE] = dump(cleaned)
    return contents


def _digest(source: Path | bytes, known: str | None) -> str:
    """The SHA-256 of a file that goes as it is, which its record tells, or of bytes."""
    if isinstance(source, bytes) or known is None:
        from hashlib import sha256

        return sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()
    return known


def _warn(options: Options) -> None:
    """Say where metrics are of lists that another model made, so far as the records beside the lists tell."""
    ours = hash_input(options.folder)["sha256"]
    for path in options.metrics or ():
        recs = read_run(path).get("inputs", {}).get("recs", {}).get("path")
        made = read_run(recs).get("inputs", {}).get("rec", {}) if isinstance(recs, str) and Path(recs).is_file() else {}
        if made.get("sha256") not in (None, ours):
            log(f"push: {path} scores lists of {made['path']}, which is not {options.folder} as it is now")
