"""What stages do with their options: a record of the run, and what no stage accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from idgr.errors import UsageError
from idgr.formats.jsonl import STDIN, STDOUT
from idgr.formats.run_info import RunInfo
from idgr.options import Option, Role, StageOptions

OutputFile = Annotated[str, Option("File to write; - for standard output.", flags=("-o", "--output"), role=Role.OUTPUT)]
K = Annotated[int, Option("Items for each user.", flags=("-k",), at_least=1)]
DataFolders = Annotated[
    list[str], Option("Folders that `idgr prep` wrote.", role=Role.INPUT, positional=True, metavar="DATA…")
]


def run_info(command: str, options: StageOptions, **changed: Any) -> RunInfo:
    """The record of a run, made before its inputs are read. Of an input with several paths it has `NAME-1`, `NAME-2`.

    Args:
        changed: inputs by role that are told otherwise than the options have them; None to leave one out.

    Raises:
        UsageError: an output would take the place of an input, or standard input is given twice.
    """
    inputs = options.by_role(Role.INPUT) | {name.replace("_", "-"): path for name, path in changed.items()}
    for role, paths in [*inputs.items()]:
        if isinstance(paths, list):
            inputs |= {f"{role}-{number}": path for number, path in enumerate(paths, 1)}
            del inputs[role]
    if sum(path == STDIN for path in inputs.values()) > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    return RunInfo(
        command,
        options.by_role(Role.RESULT),
        inputs,
        getattr(options, "seed", None),
        outputs=list(options.by_role(Role.OUTPUT).values()),
    )


def refuse_stream(output: str, what: str) -> None:
    """Raise `UsageError` where what is a folder would go to standard output."""
    if output == STDOUT:
        raise UsageError(f"-o - cannot hold {what}", "give the name of a folder to -o")


def local_model(name: str) -> str | None:
    """A model's name where it is a folder or a GGUF file, and so an input with a hash; None for a preset."""
    from idgr.models.gguf_header import is_gguf

    return name if Path(name).is_dir() or is_gguf(Path(name)) else None
