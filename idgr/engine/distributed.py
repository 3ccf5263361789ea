"""Several processes that train one model: who has which share, and how shares come together.

Started by `torchrun` or `accelerate launch`; accelerate connects them (gloo on CPUs, NCCL on GPUs). All hold the same
weights and take the same steps; only the first writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from idgr.errors import UsageError
from idgr.models.device import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training: this one's number, from 0, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of n things: every `size`-th, so that parts of sorted things are alike. May be empty."""
        return slice(self.rank, n, self.size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, which have one shape."""
        if self.size == 1:
            return tensor
        from accelerate.utils import reduce

        summed: Tensor = reduce(tensor, reduction="sum")
        return summed

    def all_gather(self, mine: Sequence[T]) -> list[list[T]]:
        """Every process's list, by its number."""
        if self.size == 1:
            return [list(mine)]
        from accelerate.utils import gather_object

        lists: list[list[T]] = gather_object([list(mine)])
        return lists

    def gather_shares(self, mine: Sequence[T], n: int) -> list[T]:
        """The n things in their order, of which every process holds its `share`."""
        whole: dict[int, T] = {}
        for rank, part in enumerate(self.all_gather(mine)):
            whole |= dict(zip(range(n)[ProcessGroup(rank, self.size).share(n)], part, strict=True))
        return [whole[place] for place in range(n)]


def n_processes() -> int:
    """How many processes the launcher has started for this command; 1 without one.

    Raises:
        UsageError: the launcher's variables are incomplete, or no numbers.
    """
    n = _number("WORLD_SIZE", 1)
    if n == 1:
        return 1
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE={n} is in the environment, but {', '.join(missing)} not",
            "start several processes with torchrun or accelerate launch, or unset WORLD_SIZE",
        )
    for name in ("RANK", "LOCAL_RANK"):
        if not 0 <= _number(name, 0) < n:
            raise UsageError(f"{name}={os.environ[name]} with WORLD_SIZE={n}", "give each process a number from 0")
    _number("MASTER_PORT", 0)
    return n


def _number(name: str, default: int) -> int:
    """A launcher's variable, a number of at most seven digits."""
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    if not re.fullmatch("[0-9]{1,7}", value) or (name == "WORLD_SIZE" and int(value) < 1):
        what = f"{name}={value[:40]} in the environment is not a number that a launcher sets"
        raise UsageError(what, f"unset {name}, or start idgr with torchrun or accelerate launch")
    return int(value)


def init_process_group(device: str) -> tuple[ProcessGroup, torch.device]:
    """Connect to the other processes, if there are any; and this process's device.

    Args:
        device: as on the command line; with several processes `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: there is no such device here, or one device was named for several processes.
    """
    where = pick_device(device)
    if n_processes() == 1:
        return ProcessGroup(), where
    if ":" in device:
        raise UsageError(f"--device {device} given to several processes", "choose auto, cpu or cuda")
    from accelerate import PartialState

    state = PartialState(cpu=where.type == "cpu")
    return ProcessGroup(state.process_index, state.num_processes), state.device


def destroy_process_group(processes: ProcessGroup) -> None:
    """Wait for the other processes, and end the process group."""
    if processes.size > 1:
        from accelerate import PartialState

        state = PartialState()
        state.wait_for_everyone()
        state.destroy_process_group()
