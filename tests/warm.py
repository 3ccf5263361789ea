"""idgr's commands for shell scripts under test, each a fork of one process that has imported all that they need.

That takes five seconds of a processor, and a recipe starts dozens of commands. A script finds an `idgr` on its PATH
that hands its arguments, folder, environment and standard streams to the process here, and ends as the command did; a
signal that it gets goes to the command, which is killed if it is. So does a `python` that runs a file or a program of
`-c`. Nothing is shared but what was imported: the process itself computes nothing.
"""

from __future__ import annotations

import array
import ast
import gc
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# No site packages: this starts in a hundredth of a second.
_CLIENT = """
import _signal, _socket, array, os, sys
to = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
to.connect({place!r})
to.sendmsg([b"x"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
told = repr((sys.argv[1:], os.getcwd(), dict(os.environ))).encode()
to.sendall(len(told).to_bytes(8, "big") + told)
pid = int(to.recv(8))
for number in (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGUSR1):
    _signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(to.recv(8))
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
    running: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(place)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listening, *running.values()], [], [], 0.01)
            if listening in ready:
                asking, _ = listening.accept()
                running[_start(asking)] = asking
            for pid, asking in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    _tell(asking, os.waitstatus_to_exitcode(status))
                    running.pop(pid).close()
                elif asking in ready:  # who asked is gone, and nothing else is to be read
                    os.kill(pid, signal.SIGKILL)


def _start(asking: socket.socket) -> int:
    """The process of the command that is asked for."""
    fds = array.array("i")
    _, extra, _, _ = asking.recvmsg(1, socket.CMSG_LEN(3 * fds.itemsize))
    fds.frombytes(extra[0][2])
    stream: Any = asking.makefile("rb")
    words, folder, environment = ast.literal_eval(stream.read(int.from_bytes(stream.read(8), "big")).decode())
    child = os.fork()
    if child == 0:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os._exit(_run(words))
    for fd in fds:
        os.close(fd)
    _tell(asking, child)
    return child


def _tell(asking: socket.socket, number: int) -> None:
    """Of a command its process, and when it ends its code, as `subprocess` counts it."""
    with suppress(BrokenPipeError):  # who asked was killed
        asking.sendall(b"%8d" % number)


def _measure_here() -> None:
    """Let the contenders of `idgr bench` run in this process, so that they need not import torch each."""
    from idgr.bench import decode, gen_ids, processes, train_generator, train_recommender

    def measure(make: Any, *arguments: Any) -> processes.Measurement:
        return processes.Measurement(make()(*arguments), 1.0, 1.0, 1.0)

    for module in (decode, gen_ids, train_generator, train_recommender):
        module.measure = measure  # type: ignore[attr-defined]


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
    except Exception:  # as Python ends a program
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
