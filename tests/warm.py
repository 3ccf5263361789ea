"""idgr's commands for shell scripts under test, each a fork of one process that has imported all that they need.

That takes five seconds of a processor, and a recipe starts dozens of commands. A script finds an `idgr` on its PATH
that hands its arguments, folder, environment and standard streams to the process here, and ends as the command did; a
signal that it gets goes to the command, which is killed if it is. So does a `python` that runs a file or a program of
`-c`. Nothing is shared but what was imported: the process itself computes nothing.
"""

from __future__ import annotations

import array
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# No site packages: this starts in a hundredth of a second.
_CLIENT = """
import array, json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to:
    to.connect({place!r})
    fds = array.array("i", [0, 1, 2])
    to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    to.sendall(len(told).to_bytes(8, "big") + told)
    answers = to.makefile()
    pid = int(answers.readline())
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    code = int(answers.readline())
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""
# What idgr imports late, beside its own modules.
_HEAVY = (
    "torch",
    "transformers.generation.utils",
    "transformers.models.t5.modeling_t5",
    "transformers.models.t5.tokenization_t5",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
    "scipy.stats",
    "rich.table",
    "typer._adapters",
)


@contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """A folder to put first on a PATH, with `idgr` and `python`; the process behind it ends with the block."""
    place, commands = folder / "socket", folder / "bin"
    commands.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(place)], stdout=subprocess.PIPE, env=environment, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        client = folder / "client.py"
        client.write_text(_CLIENT.format(place=str(place)))
        for name, these in (("idgr", "*"), ("python", "*.py | -c")):
            ask = f'case $1 in {these}) set -- -SE "{client}" {name} "$@" ;; esac'
            (commands / name).write_text(f'#!/bin/sh\n{ask}\nexec "{sys.executable}" "$@"\n')
            (commands / name).chmod(0o755)
        yield commands
    finally:
        server.kill()
        server.wait()


def _serve(place: str) -> NoReturn:
    import idgr

    own = [module.name for module in pkgutil.walk_packages(idgr.__path__, "idgr.")]
    for name in (*_HEAVY, *own):
        if not name.endswith("__main__"):
            import_module(name)
    gc.collect()
    gc.freeze()  # else a command's collector copies the pages of all that is imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(place)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            asking, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _attend(asking)
            asking.close()


def _attend(asking: socket.socket) -> NoReturn:
    """Run a command in a process of its own, and tell how it ended, as `subprocess` counts it."""
    fds = array.array("i")
    _, extra, _, _ = asking.recvmsg(1, socket.CMSG_LEN(3 * fds.itemsize))
    fds.frombytes(extra[0][2])
    stream: Any = asking.makefile("rb")
    told = stream.read(int.from_bytes(stream.read(8), "big"))
    child = os.fork()
    if child == 0:
        words, folder, environment = json.loads(told)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os._exit(_run(words))
    with suppress(BrokenPipeError):
        asking.sendall(f"{child}\n".encode())
    threading.Thread(target=_kill_with, args=(asking, child), daemon=True).start()
    _, status = os.waitpid(child, 0)
    with suppress(BrokenPipeError):  # who asked was killed
        asking.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _measure_here() -> None:
    """Let the contenders of `idgr bench` run in this process, so that they need not import torch each."""
    from idgr.bench import decode, gen_ids, processes, train_generator, train_recommender

    def measure(make: Any, *arguments: Any) -> processes.Measurement:
        return processes.Measurement(make()(*arguments), 1.0, 1.0, 1.0)

    for module in (decode, gen_ids, train_generator, train_recommender):
        module.measure = measure  # type: ignore[attr-defined]


def _kill_with(asking: socket.socket, child: int) -> None:
    """Kill the command when who asked for it is gone."""
    if not asking.recv(1):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _run(words: list[str]) -> int:
    """The exit code of `idgr ARGUMENTS`, `python FILE ARGUMENTS` or `python -c PROGRAM ARGUMENTS`."""
    from idgr.cli.main import main

    if os.environ.get("MEASURE_HERE"):
        _measure_here()
    try:
        if words[0] == "idgr":
            sys.argv = words
            main(words[1:])
        sys.argv = words[1:]
        if words[1] == "-c":
            exec(sys.argv.pop(1), {"__name__": "__main__"})  # noqa: S102
        else:
            sys.path[0] = str(Path(words[1]).parent)
            runpy.run_path(words[1], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return 1 if isinstance(end.code, str) else int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
