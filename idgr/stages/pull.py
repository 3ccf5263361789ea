"""`idgr pull`: a model that `idgr push` put on the Hugging Face hub, as a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idgr.errors import IdgrError
from idgr.formats.claims import check_folder
from idgr.formats.inputs import RUN_FILE
from idgr.formats.jsonl import replace_folder
from idgr.formats.published import check_files_listed, check_listing, check_replaceable
from idgr.formats.rec_folder import (
    CONFIG,
    SASREC,
    TEXT_RANKER,
    TEXT_SASREC,
    TWO_TOWER,
    item_model_type,
    read_recommender_facts,
)
from idgr.formats.run_info import read_run
from idgr.options import RUN, Role, StageOptions, option, output_option
from idgr.progress import log
from idgr.stages.options import refuse_stream

_TODO = "give the name of a model that `idgr push` put there"


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Fetch a model that `idgr push` put on the Hugging Face hub.

    Only the files that its run.json lists are fetched, safetensors, JSON and texts; each must have the hash that stands
    there. The folder takes its name when it is whole. For private models, log in with `hf auth login` or set HF_TOKEN.

    Example: idgr pull me/office-idgr -o rec/
    """

    name: str = option("The model on the hub: USER/NAME.", positional=True, metavar="NAME", role=Role.RUN)
    output: str = output_option("The folder to write.")
    revision: str | None = option("A branch, tag or commit (default: main).", None, RUN, role=Role.RUN)


def run(options: Options) -> Path:
    """Fetch a model.

    Returns:
        Its folder.

    Raises:
        UsageError: the name is none of a model.
        IdgrError: the hub has none, does not show it or cannot be reached; or what it has is no folder of idgr.
    """
    from idgr.models.hub_repository import fetch, find_snapshot

    refuse_stream(options.output, "a folder")
    check_folder(options.output)
    check_replaceable(options.output)
    found = find_snapshot(options.name, options.revision)
    _check_names(options.name, found.names)
    with replace_folder(options.output) as folder:
        fetch(options.name, found.commit, [RUN_FILE], folder)
        record = read_run(folder)
        check_listing(record, options.name, _TODO)
        fetch(options.name, found.commit, [*record["outputs"]], folder)
        check_files_listed(folder, record, options.name)
        _check_readable(folder, str(record["command"]), options.name)
    log(f"pull: {options.name} at {found.commit[:12]} is in {options.output}, made by `idgr {record['command']}`")
    return Path(options.output)


def _check_names(name: str, names: list[str]) -> None:
    from idgr.models.weight_files import has_pickles, has_safetensors, pickled

    if has_pickles(names) and not has_safetensors(names):
        fault = pickled(name)
        raise fault
    if RUN_FILE not in names:
        raise IdgrError(f"has no {RUN_FILE} on the hub, so idgr did not make it", _TODO, where=name)


def _check_readable(folder: Path, command: str, name: str) -> None:
    """Raise `IdgrError` where a folder is none that the commands read, so far as its headers tell."""
    from idgr.models.weight_files import check_files, read_headers, read_object

    check_files(folder, name)
    read_object(folder / CONFIG, name)
    read_headers(folder, name)
    if command == "train-rec":
        read_recommender_facts(folder)
    kinds = {
        "train-sasrec": (SASREC, TEXT_SASREC),
        "train-two-tower": (TWO_TOWER,),
        "train-text-ranker": (TEXT_RANKER,),
    }
    if item_model_type(folder) not in kinds.get(command, (None,)):
        raise IdgrError(f"its {CONFIG} is not that of `idgr {command}`", _TODO, where=name)
