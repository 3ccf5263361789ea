"""idgr's commands for shell scripts under test, each a fork of one process that has torch and transformers imported.

Importing them takes four seconds of a processor, and a recipe starts dozens of commands. A script finds an `idgr` on
its PATH that hands its arguments, folder, environment and standard streams to the process here, and ends as the
command did; a signal that it gets goes to the command, which is killed if it is. Nothing is shared but what was
imported: the process itself computes nothing.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
_HEAVY = (
    "idgr.cli.main",
    "torch",
    "transformers.generation.utils",
    "transformers.models.t5.modeling_t5",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
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
        for name, words in (("idgr", f' -SE "{client}"'), ("python", "")):
            (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
            (commands / name).chmod(0o755)
        yield commands
    finally:
        server.kill()
        server.wait()


def _serve(place: str) -> NoReturn:
    from importlib import import_module

    for name in _HEAVY:
        import_module(name)
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
        arguments, folder, environment = json.loads(told)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os._exit(_run(arguments))
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


def _run(arguments: list[str]) -> int:
    from idgr.cli.main import main

    if os.environ.get("MEASURE_HERE"):
        _measure_here()
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
