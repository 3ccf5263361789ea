"""Trackers that show a training beside `log.jsonl`: TensorBoard, Trackio or Weights & Biases."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from idgr.errors import IdgrError

TRACKERS = ("tensorboard", "trackio", "wandb")
PROJECT = "idgr"


class Tracker:
    """Passes records on to a tracker of accelerate's."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator

    def steps(self, records: list[dict[str, float]]) -> None:
        """Show steps: their loss, learning rate and gradient norm."""
        for record in records:
            values = {f"step/{name}": value for name, value in record.items() if name != "step"}
            self.accelerator.log(values, step=int(record["step"]))

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Show an epoch's record, at its last step."""
        told = {name: value for name, value in record.items() if name != "step" and value is not None}
        values = {f"epoch/{name}": float(value) for name, value in told.items()}
        self.accelerator.log(values, step=int(record["step"]))


@contextmanager
def tracking(
    name: str | None, output: str, options: Mapping[str, Any], device: torch.device
) -> Iterator[Tracker | None]:
    """A tracker for the time of a training; None where no name is given.

    TensorBoard's files go into a folder `NAME.track` beside the output NAME; the others have places of their own.

    Args:
        name: one of `TRACKERS`.
        options: shown beside the curves.

    Raises:
        IdgrError: its package is not installed.
    """
    if name is None:
        yield None
        return
    check_tracker(name)
    from accelerate import Accelerator

    final = Path(output)
    accelerator = Accelerator(
        cpu=device.type == "cpu", log_with=name, project_dir=str(final.parent / f"{final.name}.track")
    )
    plain = {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in options.items()}
    with redirect_stdout(sys.stderr):  # some greet there
        accelerator.init_trackers(PROJECT, config=plain)
    try:
        yield Tracker(accelerator)
    finally:
        with redirect_stdout(sys.stderr):
            for tracker in accelerator.trackers:  # `end_training` would part this process from the others as well
                tracker.finish()


def check_tracker(name: str | None) -> None:
    """Raise `IdgrError` where the package of a tracker is not installed."""
    if name is None:
        return
    try:
        version(name)
    except PackageNotFoundError:
        todo = "pip install 'idgr[track]'"
        raise IdgrError(f"--track {name} needs {name}, which is not installed", todo) from None
