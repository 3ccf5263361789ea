"""`idgr report` as a command: the stage is told how commands are spelled, which only the command line knows."""

from __future__ import annotations

from pathlib import Path

from idgr.cli.reproduce import command_line
from idgr.stages import report
from idgr.stages.report import Options

__all__ = ["Options", "run"]


def run(options: Options) -> Path:
    """Write a report; see `idgr.stages.report.run`."""
    return report.run(options, lambda made: command_line(made.record, made.outputs))
