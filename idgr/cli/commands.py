"""The subcommands: which stage each one runs, and what shows its result.

A module is imported when its command is asked for, since importing all would take longer than the help of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from idgr.cli.from_dataclass import as_command


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        stage: the module of the stage, with its function and its class of options.
        options: the class of options.
        show: module and function of `idgr.cli.show`, given what the stage made and the options.
        run: the function, where the module has several.
    """

    stage: str
    options: str = "Options"
    show: str | None = None
    run: str = "run"

    def load(self, name: str) -> Any:
        """The class of options, or the function, of that name in the stage's module."""
        return getattr(import_module(self.stage), name)


@dataclass(frozen=True)
class Group:
    """Subcommands with a name in common; `help` is shown above them, `example` below."""

    help: str
    example: str
    commands: dict[str, Command]


# In the order of the data's flow.
COMMANDS: dict[str, Command | Group] = {
    "prep": Group(
        "Turn raw dumps into items, training sequences and held-out targets.",
        "idgr prep amazon reviews_Beauty_5.json.gz --meta meta_Beauty.json.gz -o data/beauty/",
        {
            "jsonl": Command("idgr.stages.prep", "JsonlOptions", "data.prepared"),
            "amazon": Command("idgr.stages.prep", "AmazonOptions", "data.prepared"),
            "yelp": Command("idgr.stages.prep", "YelpOptions", "data.prepared"),
            "movielens": Command("idgr.stages.prep", "MovielensOptions", "data.prepared"),
            "steam": Command("idgr.stages.prep", "SteamOptions", "data.prepared"),
            "amazon-m2": Command("idgr.stages.prep", "AmazonM2Options", "data.prepared"),
            "table": Command("idgr.stages.prep_table", "TableOptions", "data.prepared"),
            "demo": Command("idgr.stages.prep_made", "DemoOptions", "data.prepared", "run_demo"),
            "fuse": Command("idgr.stages.prep_made", "FuseOptions", "data.prepared", "run_fuse"),
        },
    ),
    "stats": Command("idgr.stages.stats", show="data.stats"),
    "init-gen": Command("idgr.stages.init_gen", show="training.forecast"),
    "gen-ids": Command("idgr.stages.gen_ids"),
    "train-rec": Command("idgr.stages.train_rec", show="training.forecast"),
    "train-adapter": Command("idgr.stages.train_adapter", show="training.forecast"),
    "train-gen": Command("idgr.stages.train_gen", show="training.forecast"),
    "alternate": Command("idgr.stages.alternate", show="training.commands"),
    "train-sasrec": Command("idgr.stages.train_sasrec", show="training.forecast"),
    "train-two-tower": Command("idgr.stages.train_two_tower", show="training.forecast"),
    "train-text-ranker": Command("idgr.stages.train_text_ranker", show="training.forecast"),
    "recommend": Command("idgr.stages.recommend"),
    "blend": Command("idgr.stages.blend"),
    "eval": Command("idgr.stages.evaluate", show="metrics.evaluation"),
    "zeroshot": Command("idgr.stages.zeroshot", show="metrics.zeroshot"),
    "compare": Command("idgr.stages.compare", show="metrics.comparison"),
    "audit": Command("idgr.stages.audit", show="audit.checks"),
    "report": Command("idgr.cli.report", "Options"),
    "ids": Group(
        "Look at IDs: what changed between two rounds, how pure prefixes are.",
        "idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl",
        {
            "diff": Command("idgr.stages.ids_diff", show="ids.changes"),
            "purity": Command("idgr.stages.ids_purity"),
        },
    ),
    "export": Command("idgr.stages.export"),
    "push": Command("idgr.stages.push"),
    "pull": Command("idgr.stages.pull"),
    "import": Command("idgr.stages.import_run"),
    "bench": Group(
        "Measure idgr beside other ways to do the same, in one run.",
        "idgr bench prep --rows 200000",
        {
            "prep": Command("idgr.bench.commands", "PrepOptions", run="run_prep"),
            "gen-ids": Command("idgr.bench.commands", "GenIdsOptions", run="run_gen_ids"),
            "train": Command("idgr.bench.commands", "TrainOptions", run="run_train"),
            "decode": Command("idgr.bench.commands", "DecodeOptions", run="run_decode"),
        },
    ),
}


def lazy(commands: Mapping[str, Command | Group]) -> type[TyperGroup]:
    """A group whose subcommands are imported one by one."""

    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return _built(cmd_name, commands[cmd_name]) if cmd_name in commands else None

    return Lazy


def _built(name: str, found: Command | Group) -> Any:
    """Typer's command for one of ours."""
    group = typer.Typer(add_completion=False)
    if isinstance(found, Group):
        text = f"{found.help}\n\nExample: {found.example}"
        group.callback(cls=lazy(found.commands), no_args_is_help=True, help=text)(lambda: None)
    else:
        group.command(name)(_function(found))
    command = get_command(group)
    command.name = name
    return command


def find_stage(path: Sequence[str]) -> Command | None:
    """What runs for the words of a subcommand, such as prep and demo; None where there is no such command."""
    found = COMMANDS.get(path[0]) if path else None
    if isinstance(found, Group):
        return found.commands.get(path[1]) if len(path) == 2 else None
    return found if len(path) == 1 else None


def _function(command: Command) -> Any:
    show = None
    if command.show is not None:
        module, _, function = command.show.partition(".")
        show = getattr(import_module(f"idgr.cli.show.{module}"), function)
    return as_command(command.load(command.options), command.load(command.run), show)
