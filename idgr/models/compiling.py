"""`torch.compile` and the few sizes that what it compiles is asked in.

A CUDA graph is recorded for one size of its inputs and played again for that size alone. So tensors are filled up to
sizes of a short list, the buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from idgr.errors import IdgrError

# What `torch.compile` compiles with; None for what it takes of its own accord. Tests put a quicker one here.
BACKEND: str | None = None
_NARROWEST, _STEP = 8, 64


def power_bucket(size: int, least: int = 1) -> int:
    """The first power of two from `size` and `least` on; `least` is a power of two itself."""
    return max(least, 1 << (size - 1).bit_length())


def width_bucket(width: int) -> int:
    """What a row of tokens is filled up to: 8, 16, 32, or a multiple of 64.

    Up to a width W there are 3 + W / 64 of them, rounded up, and from 64 on less than 64 tokens of a row are filling.
    """
    return power_bucket(width, _NARROWEST) if width <= _STEP else -(-width // _STEP) * _STEP


def compile_options(device: torch.device, *, graphs: bool = True) -> dict[str, Any]:
    """How `torch.compile` is called for a device: on a GPU with CUDA graphs, if they are wanted."""
    if BACKEND is not None:
        return {"backend": BACKEND}
    return {"mode": "reduce-overhead"} if graphs and device.type == "cuda" else {}


def begin_step(device: torch.device) -> None:
    """Tell CUDA graphs that what they gave before is not read any more, so that its memory may be taken again."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


@contextmanager
def compiling() -> Iterator[None]:
    """Tell what goes wrong inside `torch.compile`, such as that there is no compiler, as one line.

    Raises:
        IdgrError: it cannot compile here.
    """
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as fault:
        line = next((line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__)
        raise IdgrError(f"torch.compile does not work here ({line})", "leave --compile out") from None


class CompiledFunction:
    """A function of tensors, compiled once for any size and called in few.

    Args:
        function: takes tensors alone, in tuples, lists and dictionaries or not, or None, and changes none of them.
        device: where they are.
        most: so many sizes are compiled for; in further ones the function is called as it is, so that the memory of
            CUDA graphs and the time that they take to record have a bound.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, most: int) -> None:
        self.plain, self.device, self.most = function, device, most
        self.compiled = torch.compile(function, **compile_options(device))
        self.sizes: set[tuple[int, ...]] = set()

    def __call__(self, sizes: tuple[int, ...], *inputs: Any) -> Any:
        """
        Args:
            sizes: what tells calls of one size from those of another.
        """
        if sizes not in self.sizes:
            if len(self.sizes) >= self.most:
                return self.plain(*inputs)
            self.sizes.add(sizes)
        begin_step(self.device)
        # Two sizes that are the same by chance are not taken for one, or each other chance would be compiled for.
        with compiling(), torch.fx.experimental._config.patch(use_duck_shape=False):
            return self.compiled(*inputs)


def mark_sizes(tensor: torch.Tensor, *dimensions: int) -> torch.Tensor:
    """The tensor, of which these dimensions are compiled for any size."""
    torch._dynamo.maybe_mark_dynamic(tensor, list(dimensions))
    return tensor


def mark_weights(of: Any) -> None:
    """Let CUDA graphs read the tensors in an object, its lists and its fields where they lie, not copies of them."""
    if isinstance(of, torch.Tensor):
        torch._dynamo.mark_static_address(of)
    elif isinstance(of, (list, tuple)):
        for one in of:
            mark_weights(one)
    elif hasattr(of, "__dict__") and type(of).__module__.startswith("idgr."):
        mark_weights(list(vars(of).values()))
