"""A training stage around its loop: run once, taken up where it stopped, written by one process, logged.

Knows outputs, their `run.json` and checkpoints; what is trained, the commands know.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from idgr.errors import IdgrError, check_utf8
from idgr.formats.claims import check_folder, final_place
from idgr.formats.jsonl import STDIN, dump_line, is_stream, replace_folder
from idgr.formats.run_info import RunInfo, differences, hash_output, read_run
from idgr.progress import is_first_process, log
from idgr.training.checkpoint import Keeper, check_same, checkpoint_folder, read_origin
from idgr.training.distributed import Team, join, part
from idgr.training.tracking import tracking
from idgr.training.work import Host

# The option by which a command goes on from a model that it has finished.
_GOES_ON = {"init-gen": "--model", "train-rec": "--model", "train-gen": "--gen"}


@dataclass(frozen=True)
class Stage:
    """A stage at work.

    Attributes:
        folder: where the output is put together; None in processes that write nothing.
        device: this process's.
        host: for the loop.
        tell: takes down an epoch's record, in `log.jsonl` and wherever the training is tracked.
    """

    folder: Path | None
    device: torch.device
    host: Host
    tell: Callable[[dict[str, Any]], object]


def is_finished(output: str, run: RunInfo, *, overwrite: bool) -> bool:
    """Whether the output is there, whole, and made with these options from these inputs; so nothing is to be done.

    Raises:
        IdgrError: the output, or a checkpoint of it, was made otherwise, which `overwrite` allows.
        UsageError: the output has no name of its own.
    """
    final_place(output)
    if overwrite:
        return False
    now = run.made_of()
    record = read_run(output) if Path(output).is_dir() else {}
    if record:
        if found := differences(record, now):
            goes_on = _GOES_ON.get(run.command)
            instead = " in place of --tokenizer" if "tokenizer" in now["inputs"] else ""
            way = f"to train it further, give {goes_on} {output}{instead} and another folder to -o; else "
            way = way if goes_on else ""
            todo = f"{way}give the same, another folder to -o, or --overwrite to begin anew"
            raise IdgrError(f"is there and was {found}", todo, where=output)
        if hash_output(output) == record.get("outputs"):
            log(f"{run.command}: {output} is finished, with these options and inputs; nothing to do")
            _drop(checkpoint_folder(output))
            return True
        log(f"{run.command}: {output} is not as its run.json says, and is made again")
    checkpoints = checkpoint_folder(output)
    if (origin := read_origin(checkpoints)) is not None:
        check_same(checkpoints, origin, now)
    return False


@contextmanager
def open_stage(
    output: str, run: RunInfo, device: str, *, overwrite: bool, checkpoint_minutes: float, track: str | None
) -> Iterator[Stage]:
    """Join the other processes, and put the output together; it takes its name if the block ends well.

    The checkpoints go when it has. A stage that reads a stream has none, since that cannot be read again.

    Args:
        device: as on the command line.
        checkpoint_minutes: how often a checkpoint is written; 0 for only when a signal asks to stop.
        track: where the training is shown beside `log.jsonl`; see `idgr.training.tracking`.
    """
    check_utf8("the place of a model", Path(output).absolute())
    check_folder(output, run.command, run.inputs.values())  # in all processes, before any waits for another
    team, where = join(device)
    checkpoints = checkpoint_folder(output)
    if overwrite:
        _drop(checkpoints)
    team.gather([])  # nobody looks for checkpoints before they are gone
    keeper = None
    streams = [os.fspath(path) for path in run.inputs.values() if path is not None and is_stream(path)]
    if streams:
        name = "standard input" if streams[0] == STDIN else streams[0]
        log(f"{run.command}: reads {name}, so it cannot go on if it is stopped")
    else:
        keeper = Keeper(checkpoints, run.made_of(), checkpoint_minutes)
    with ExitStack() as stack:
        folder = stack.enter_context(replace_folder(output, run.command, run.inputs.values())) if team.leads else None
        yield stack.enter_context(_at_work(folder, team, where, keeper, output, run, track))
    _drop(checkpoints)
    part(team)


@contextmanager
def _at_work(
    folder: Path | None,
    team: Team,
    device: torch.device,
    keeper: Keeper | None,
    output: str,
    run: RunInfo,
    track: str | None,
) -> Iterator[Stage]:
    if folder is None:
        yield Stage(None, device, Host(team, keeper), lambda record: None)
        return
    with (
        open(folder / "log.jsonl", "wb", buffering=0) as written,
        tracking(track, output, {"command": run.command, **run.options}, device) as tracker,
    ):

        def tell(record: dict[str, Any]) -> None:
            written.write(dump_line(record))
            if tracker is not None:
                tracker.epoch(record)

        yield Stage(folder, device, Host(team, keeper, tracker.steps if tracker else None), tell)


def _drop(checkpoints: Path) -> None:
    if is_first_process() and checkpoints.exists():
        shutil.rmtree(checkpoints)
