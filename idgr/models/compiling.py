"""`torch.compile` and the few sizes that what it compiles is asked in.

A CUDA graph is recorded for one size of its inputs and played again for that size alone. So tensors are filled up to
sizes of a short list, the buckets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from idgr.errors import IdgrError

# Names what `torch.compile` compiles with instead of its own choice, or is "none": sizes are filled up and nothing is
# compiled, which takes minutes that a trial need not wait for.
_BACKEND = "IDGR_COMPILE_BACKEND"
_NARROWEST, _STEP = 8, 64


def power_bucket(size: int, least: int = 1) -> int:
    """The first power of two from `size` and `least` on; `least` is a power of two itself."""
    return max(least, 1 << (size - 1).bit_length())


def width_bucket(width: int) -> int:
    """What a row of tokens is filled up to: 8, 16, 32, or a multiple of 64.

    Up to a width W there are 3 + W / 64 of them, rounded up, and from 64 on less than 64 tokens of a row are filling.
    """
    return power_bucket(width, _NARROWEST) if width <= _STEP else -(-width // _STEP) * _STEP


def filled_width(width: int) -> int:
    """The width of a batch's rows in a training: as it is, or inside `bucketed_widths` the bucket's."""
    return width_bucket(width) if _bucketed else width


_bucketed = False


@contextmanager
def bucketed_widths() -> Iterator[None]:
    """Fill rows of batches up to buckets inside the block."""
    global _bucketed
    before, _bucketed = _bucketed, True
    try:
        yield
    finally:
        _bucketed = before


def compile_options(device: torch.device, *, graphs: bool = True) -> dict[str, Any]:
    """How `torch.compile` is called for a device: on a GPU with CUDA graphs, if they are wanted."""
    if backend := os.environ.get(_BACKEND):
        return {"disable": True} if backend == "none" else {"backend": backend}
    return {"mode": "reduce-overhead"} if graphs and device.type == "cuda" else {}


@contextmanager
def compiled_step(device: torch.device) -> Iterator[None]:
    """Inside the block what is compiled is called. What CUDA graphs gave before is not read any more.

    Raises:
        IdgrError: `torch.compile` fails, as where there is no compiler.
    """
    if device.type == "cuda" and not os.environ.get(_BACKEND):
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
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
        # Two sizes that are the same by chance are not taken for one, or each other chance would be compiled for.
        duck = torch.fx.experimental._config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        with compiled_step(self.device), duck:
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
