"""Where a model computes."""

from __future__ import annotations

import torch

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
