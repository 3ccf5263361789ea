"""A training stage around its loop: run once, taken up where it stopped, written by one process, logged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from idgr.engine.checkpoint import CheckpointManager, check_same, checkpoint_folder, read_origin
from idgr.engine.distributed import ProcessGroup, destroy_process_group, init_process_group
from idgr.engine.task import TrainingContext
from idgr.engine.tracking import tracking
from idgr.errors import IdgrError, check_utf8
from idgr.formats.claims import check_folder, final_place
from idgr.formats.jsonl import STDIN, dump_line, is_stream, replace_folder
from idgr.formats.run_info import RunInfo, differences, hash_output, read_run
from idgr.progress import is_first_process, log

# The option by which a command goes on from a model that it has finished.
_GOES_ON = {"init-gen": "--model", "train-rec": "--model", "train-gen": "--gen"}


@dataclass(frozen=True)
class TrainingRun:
    """A training stage that runs.

    Attributes:
        folder: where the output is put together; None in processes that write nothing.
        device: this process's.
        context: for the loop.
        on_epoch: takes down an epoch's record, in `log.jsonl` and wherever the training is tracked.
    """

    folder: Path | None
    device: torch.device
    context: TrainingContext
    on_epoch: Callable[[dict[str, Any]], object]


def is_finished(output: str, run: RunInfo, *, overwrite: bool) -> bool:
    """Whether the output is there, whole, and made with these options from these inputs; so nothing is to be done.

    Raises:
        IdgrError: the output, or a checkpoint of it, was made otherwise, which `overwrite` allows.
        UsageError: the output has no name of its own.
    """
    final_place(output)
    if overwrite:
        return False
    now = run.provenance()
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
def training_run(
    output: str, run: RunInfo, device: str, *, overwrite: bool, checkpoint_minutes: float, track: str | None
) -> Iterator[TrainingRun]:
    """Join the other processes, and put the output together; it takes its name if the block ends well.

    The checkpoints go when it has. A stage that reads a stream has none, since that cannot be read again.

    Args:
        device: as on the command line.
        checkpoint_minutes: how often a checkpoint is written; 0 for only when a signal asks to stop.
        track: where the training is shown beside `log.jsonl`; see `idgr.engine.tracking`.
    """
    check_utf8("the place of a model", Path(output).absolute())
    check_folder(output, run.command, run.inputs.values())  # in all processes, before any waits for another
    processes, where = init_process_group(device)
    checkpoints = checkpoint_folder(output)
    if overwrite:
        _drop(checkpoints)
    processes.all_gather([])  # nobody looks for checkpoints before they are gone
    manager = None
    streams = [os.fspath(path) for path in run.inputs.values() if path is not None and is_stream(path)]
    if streams:
        name = "standard input" if streams[0] == STDIN else streams[0]
        log(f"{run.command}: reads {name}, so it cannot go on if it is stopped")
    else:
        manager = CheckpointManager(checkpoints, run.provenance(), checkpoint_minutes)
    with ExitStack() as stack:
        folder = (
            stack.enter_context(replace_folder(output, run.command, run.inputs.values())) if processes.is_main else None
        )
        yield stack.enter_context(_at_work(folder, processes, where, manager, output, run, track))
    _drop(checkpoints)
    destroy_process_group(processes)


@contextmanager
def _at_work(
    folder: Path | None,
    processes: ProcessGroup,
    device: torch.device,
    manager: CheckpointManager | None,
    output: str,
    run: RunInfo,
    track: str | None,
) -> Iterator[TrainingRun]:
    if folder is None:
        yield TrainingRun(None, device, TrainingContext(processes, manager), lambda record: None)
        return
    with (
        open(folder / "log.jsonl", "wb", buffering=0) as written,
        tracking(track, output, {"command": run.command, **run.options}, device) as tracker,
    ):

        def on_epoch(record: dict[str, Any]) -> None:
            written.write(dump_line(record))
            if tracker is not None:
                tracker.epoch(record)

        yield TrainingRun(
            folder, device, TrainingContext(processes, manager, tracker.steps if tracker else None), on_epoch
        )


def _drop(checkpoints: Path) -> None:
    if is_first_process() and checkpoints.exists():
        shutil.rmtree(checkpoints)
