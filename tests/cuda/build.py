"""Builds the stand-in for a CUDA device: once on a machine, for a PyTorch and a form of the source.

Imports no torch: the library has to be loaded before torch first asks whether there is a GPU.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
_COMPILERS = ("c++", "g++", "clang++")


class NoStandInError(Exception):
    """Why there is none on this machine."""


def library() -> Path:
    """The shared library, which is compiled where it is not there yet; takes 15 s of a processor.

    Raises:
        NoStandInError: there is no compiler here, PyTorch is built for a GPU, or its headers are other ones.
    """
    torch_version = version("torch")
    key = hashlib.sha256(SOURCE.read_bytes() + torch_version.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"idgr-cuda-stand-in-{os.getuid()}"
    found = folder / f"{key}.so"
    if found.exists():
        return found
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise NoStandInError("no C++ compiler")
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch = Path(spec.origin).parent
    if (torch / "lib" / "libtorch_cuda.so").exists():
        raise NoStandInError("PyTorch is built for CUDA, and would have two devices of one name")
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one compiles
        if not found.exists():
            made = folder / f"{key}.new"
            libraries = [f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", "-ltorch_cpu", "-lc10"]
            command = [compiler, "-shared", "-fPIC", "-O0", "-std=c++20", "-w", f"-I{torch}/include", str(SOURCE)]
            done = subprocess.run([*command, *libraries, "-o", str(made)], capture_output=True, text=True)
            if done.returncode:
                first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
                raise NoStandInError(f"does not compile against PyTorch {torch_version}: {first}")
            made.rename(found)
    return found
