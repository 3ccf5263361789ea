"""What an adapter's folder tells of its training: which recommender it was trained on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from idgr.errors import IdgrError
from idgr.formats.run_info import RUN_FILE, read_run, sha256_file


def weights_hash(rec: str | os.PathLike[str]) -> str:
    """The SHA-256 of a model folder's `model.safetensors`; of the hashes of all its parts where it has several.

    Raises:
        IdgrError: the folder holds none.
    """
    parts = sorted(Path(rec).glob("*.safetensors"))
    if not parts:
        raise IdgrError("holds no model.safetensors", "give a folder that `idgr train-rec` wrote", where=rec)
    hashes = [sha256_file(part) for part in parts]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def check_base(adapter: str | os.PathLike[str], rec: str | os.PathLike[str]) -> None:
    """Raise `IdgrError` where an adapter was trained on other weights than those of `rec`, or does not tell."""
    base = read_run(adapter).get("base") if Path(adapter).is_dir() else None
    if not isinstance(base, str):
        todo = "give a folder that `idgr train-adapter` wrote"
        raise IdgrError(f"holds no {RUN_FILE} that tells the base of an adapter", todo, where=adapter)
    if base != weights_hash(rec):
        todo = "give the recommender that it was trained on, or train one for this with `idgr train-adapter`"
        raise IdgrError(f"is an adapter of another recommender than {os.fspath(rec)}", todo, where=adapter)
