"""The `idgr` command: registers the subcommands, and turns every fault into one line and an exit code.

Imports no torch, transformers, numpy or polars; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from idgr import __version__
from idgr.cli.alternate import alternate
from idgr.cli.bench import app as bench_app
from idgr.cli.eval import eval_command
from idgr.cli.gen_ids import gen_ids
from idgr.cli.ids import app as ids_app
from idgr.cli.init_gen import init_gen
from idgr.cli.prep import app as prep_app
from idgr.cli.recommend import recommend
from idgr.cli.train_gen import train_gen
from idgr.cli.train_rec import train_rec
from idgr.cli.zeroshot import zeroshot
from idgr.errors import IdgrError

app = typer.Typer(
    name="idgr",
    help="Generative recommendation with learned textual item IDs: stages that exchange JSON Lines and model folders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"idgr {__version__}")
        raise typer.Exit()


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if debug:
        os.environ["IDGR_DEBUG"] = "1"


app.command("gen-ids")(gen_ids)
app.command("init-gen")(init_gen)
app.command("train-rec")(train_rec)
app.command("train-gen")(train_gen)
app.command("alternate")(alternate)
app.command("recommend")(recommend)
app.command("eval")(eval_command)
app.command("zeroshot")(zeroshot)
app.add_typer(ids_app, name="ids")
app.add_typer(prep_app, name="prep")
app.add_typer(bench_app, name="bench")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the data or a model is wrong, 2 the command line is wrong."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; every fault is told in one line on standard error."""
    try:
        code = app(arguments, prog_name="idgr", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TyperException as fault:
        context = getattr(fault, "ctx", None)
        path = context.command_path if context is not None else "idgr"
        message = fault.format_message().rstrip(".")
        # Typer raises without a message where it has just shown the help, for want of a subcommand.
        return _fail(f"{message}; see `{path} --help`", 2, fault) if message else 2
    except IdgrError as fault:
        return _fail(str(fault), fault.exit_code, fault)
    except (BrokenPipeError, SystemExit) as stop:
        # Typer makes `sys.exit(1)` of a broken pipe.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        # The reader of our output has had enough (`| head`), which is no fault. Python would complain again
        # while closing standard output at exit, so give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except Exception as fault:
        name = type(fault).__name__
        return _fail(
            f"{name}: {fault}; this is a fault in idgr: run again with `idgr --debug …` and report it", 1, fault
        )


def _fail(message: str, code: int, fault: BaseException | None = None) -> int:
    if fault is not None and os.environ.get("IDGR_DEBUG"):
        traceback.print_exception(fault)
    print(f"idgr: error: {' '.join(message.split())}", file=sys.stderr)
    return code
