"""Where a model computes, and whether in bf16."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"--device {name} is not available", "choose auto or cpu") from None
    return device


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether products of matrices are made in bf16; `auto`: where the device does that."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def to_device(values: npt.NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """An array, or a tensor on the CPU, as a tensor there, without waiting for what a GPU still has to do.

    A GPU takes memory that is not pinned only when its stream has come so far; so that a training goes on, the values
    go through pinned memory, which PyTorch keeps as long as the copy needs it.
    """
    here = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
