"""What stages share whose input is a folder of parts: a manifest of a run, and what of it is to be made."""

from __future__ import annotations

from idgr.formats.parts import Manifest
from idgr.formats.run_info import RunInfo
from idgr.ids.shards import parse_shard
from idgr.progress import log


def manifest(run: RunInfo, source: str, output: str, *left_out: str) -> Manifest:
    """The manifest of a run over the parts of a folder.

    Args:
        left_out: options and inputs that each part has of its own, or that the parts do not depend on.
    """
    for name in left_out:
        run.options.pop(name, None)
        run.inputs.pop(name, None)
    return Manifest(source, output, run.provenance() | {"seed": run.seed})


def missing_parts(command: str, parts: Manifest, shard: str | None = None) -> list[str]:
    """The parts of a shard that are to be made, and a line that tells how many were made before."""
    share = parse_shard("1/1" if shard is None else shard)
    missing = parts.missing(share.number, share.of)
    n = len(share.places(len(parts.names)))
    if len(missing) < n:
        log(f"{command}: {n - len(missing)} of {n} parts are done before, {len(missing)} are to be made")
    return missing
