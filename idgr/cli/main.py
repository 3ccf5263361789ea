"""The `idgr` command: registers the subcommands, and turns every fault into one line and an exit code.

Imports no torch, transformers, numpy or polars; each command imports what it needs when it runs.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from idgr import __version__
from idgr.cli.commands import COMMANDS, lazy
from idgr.cli.process import SignalledError, guard_streams, stop_on_signals
from idgr.errors import DISK_FAULTS, IdgrError, one_line
from idgr.formats.streams import ReaderGoneError

_INTERRUPTED = 128 + signal.SIGINT

app = typer.Typer(
    name="idgr",
    cls=lazy(COMMANDS),
    help="Generative recommendation with learned textual item IDs: stages that exchange JSON Lines and model folders.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"idgr {__version__}")
        raise typer.Exit()


@app.callback()
def _global_options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    context.obj["debug"] = debug


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the data or a model is wrong, 2 the command line is wrong.

    128 and its number for a signal that asked to stop.
    """
    guard_streams()
    stop_on_signals()
    code = run(arguments)
    with suppress(ReaderGoneError, IdgrError):  # what a fault left unwritten; Python would tell of it again
        sys.stdout.flush()
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; every fault is told in one line on standard error."""
    told: dict[str, bool] = {}
    try:
        code = app(arguments, prog_name="idgr", standalone_mode=False, obj=told)
        if sys.stdout is not None:
            sys.stdout.flush()
        if code == _INTERRUPTED:  # Typer makes it of a KeyboardInterrupt, and says nothing
            return _fail("interrupted; run it again", code)
        return code if isinstance(code, int) else 0
    except TyperException as fault:
        context = getattr(fault, "ctx", None)
        path = context.command_path if context is not None else "idgr"
        message = fault.format_message().rstrip(".")
        # Typer raises without a message where it has just shown the help, for want of a subcommand.
        return _fail(f"{message}; see `{path} --help`", 2, fault, **told) if message else 2
    except IdgrError as fault:
        return _fail(str(fault), fault.exit_code, fault, **told)
    except ReaderGoneError:
        return 0  # the reader of our data has had enough (`| head`), which is no fault
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        # Typer makes `sys.exit(1)` of every broken pipe; this is none of ours.
        return _fail("a connection was closed from the other side; run it again", 1, stop.__context__, **told)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; run it again", _INTERRUPTED)
    except SignalledError as stop:
        return _fail(f"stopped by {signal.Signals(stop.number).name}; run it again", 128 + stop.number)
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno in DISK_FAULTS:
            what = f"{fault.filename or 'a file'}: cannot be read or written ({fault.strerror}); look after its disk"
            return _fail(what, 1, fault, **told)
        if isinstance(fault, OSError) and fault.errno == errno.ENAMETOOLONG:
            return _fail(
                f"{str(fault.filename)[:80]}…: is too long for a file's name; check the path", 1, fault, **told
            )
        name = type(fault).__name__
        what = f"{name}: {fault}; this is a fault in idgr: run again with `idgr --debug …` and report it"
        return _fail(what, 1, fault, **told)


def _fail(message: str, code: int, fault: BaseException | None = None, *, debug: bool = False) -> int:
    if fault is not None and debug:
        traceback.print_exception(fault)
    print(f"idgr: error: {one_line(message)}", file=sys.stderr)
    return code
