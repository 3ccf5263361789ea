"""A stand-in for a CUDA device, for programs that PyTorch finds no GPU for.

`python -m tests.cuda.stand_in train-rec … --device cuda` runs an idgr command on it, and tells on standard error how
often the command waited for the device, and for what. `device.cpp` tells what it is.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cuda.build import NoStandInError, library

Waits = dict[str, int]


def load() -> None:
    """Make this process have the device. Comes before the first import of torch."""
    if "torch" in sys.modules:
        raise RuntimeError("torch is imported already")
    ctypes.CDLL(str(library()), ctypes.RTLD_GLOBAL)
    import torch

    cuda: Any = torch.cuda
    ops = torch.ops.stand_in

    def seed(number: int) -> None:
        ops.seed(number - (number >> 63 << 64))  # of 64 bits, which the library reads with a sign

    def state(device: object = None) -> torch.Tensor:
        made: torch.Tensor = ops.random_state()
        return made

    answers = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "stand-in",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "synchronize": lambda device=None: ops.wait("synchronize"),
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": state,
        "set_rng_state": lambda new, device=None: ops.set_random_state(new),
    }
    for name, answer in answers.items():
        setattr(cuda, name, answer)


def take_waits() -> Waits:
    """How often the program has waited since it was last asked, by what for."""
    import torch

    told: str = torch.ops.stand_in.take_waits()
    return {why: int(count) for why, count in (one.split("=") for one in told.split(";") if one)}


@contextmanager
def little_memory(n_bytes: int) -> Iterator[None]:
    """Tensors of more than so many bytes do not fit on the device inside the block."""
    import torch

    torch.ops.stand_in.bound_memory(n_bytes)
    try:
        yield
    finally:
        torch.ops.stand_in.bound_memory(-1)


def main() -> int:
    try:
        load()
    except NoStandInError as why:
        print(f"no stand-in: {why}", file=sys.stderr)
        return 1
    from idgr.cli.main import run

    code = run(sys.argv[1:])
    print("waits:", take_waits(), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
