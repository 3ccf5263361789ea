"""The subcommands: which stage each one runs, and what shows its result.

A module is imported when its command is asked for, since importing all would take longer than the help of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from idgr.cli.from_dataclass import as_command


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        stage: the module of the stage, with `run` and a class of options.
        options: the class of options.
        show: module and function of `idgr.cli.show`, given what the stage made and the options.
    """

    stage: str
    options: str = "Options"
    show: str | None = None


@dataclass(frozen=True)
class Group:
    """Subcommands with a name in common; `help` is shown above them, `example` below."""

    help: str
    example: str
    commands: dict[str, Command]


@dataclass(frozen=True)
class Legacy:  # TODO gone when all stages are there
    module: str
    name: str


# In the order of the data's flow.
COMMANDS: dict[str, Command | Group | Legacy] = {
    "prep": Legacy("idgr.cli.prep", "app"),
    "stats": Legacy("idgr.cli.stats", "stats"),
    "init-gen": Command("idgr.stages.init_gen"),
    "gen-ids": Command("idgr.stages.gen_ids"),
    "train-rec": Command("idgr.stages.train_rec", show="training.forecast"),
    "train-adapter": Command("idgr.stages.train_adapter", show="training.forecast"),
    "train-gen": Command("idgr.stages.train_gen"),
    "alternate": Command("idgr.stages.alternate", show="training.commands"),
    "train-sasrec": Command("idgr.stages.train_sasrec", show="training.forecast"),
    "train-two-tower": Command("idgr.stages.train_two_tower", show="training.forecast"),
    "recommend": Command("idgr.stages.recommend"),
    "blend": Command("idgr.stages.blend"),
    "eval": Command("idgr.stages.evaluate", show="metrics.evaluation"),
    "zeroshot": Command("idgr.stages.zeroshot", show="metrics.zeroshot"),
    "compare": Command("idgr.stages.compare", show="metrics.comparison"),
    "audit": Legacy("idgr.cli.audit", "audit"),
    "report": Legacy("idgr.cli.report", "report"),
    "ids": Legacy("idgr.cli.ids", "app"),
    "export": Legacy("idgr.cli.export", "export"),
    "import": Legacy("idgr.cli.import_run", "import_run"),
    "bench": Legacy("idgr.cli.bench", "app"),
}


def find_command(name: str) -> Any:
    """The command of Typer for a subcommand; None where there is none of that name."""
    found = COMMANDS.get(name)
    if found is None:
        return None
    group = typer.Typer(add_completion=False, no_args_is_help=isinstance(found, Group))
    if isinstance(found, Legacy):
        old = getattr(import_module(found.module), found.name)
        if isinstance(old, typer.Typer):
            group = old
        else:
            group.command(name)(old)
        made = get_command(group)
        made.name = name
        return made
    if isinstance(found, Group):
        group.callback(help=f"{found.help}\n\nExample: {found.example}")(lambda: None)
        for inner, one in found.commands.items():
            group.command(inner)(_function(one))
    else:
        group.command(name)(_function(found))
    command = get_command(group)
    command.name = name
    return command


def _function(command: Command) -> Any:
    stage = import_module(command.stage)
    show = None
    if command.show is not None:
        module, _, function = command.show.partition(".")
        show = getattr(import_module(f"idgr.cli.show.{module}"), function)
    return as_command(getattr(stage, command.options), stage.run, show)
