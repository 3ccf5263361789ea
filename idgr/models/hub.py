"""Where saved models come from: a local folder, the cache of the Hugging Face hub, or the hub itself.

Nothing is ever unpickled, and no code of a model's own is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from idgr.errors import IdgrError, check_utf8
from idgr.models.gguf_header import is_gguf
from idgr.models.weight_files import check_files, has_pickles, has_safetensors, names_in, pickled

T = TypeVar("T")

_HUB_SECONDS = 3.0
_FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def find_folder(source: str | os.PathLike[str], what: str) -> Path:
    """The folder of a model: a local one, or that of a hub model's files in the hub's cache.

    A model that is in the cache is taken from there without asking the hub. Otherwise the hub is asked once, with a
    short time limit, and configuration, tokenizer and safetensors are fetched.

    Args:
        source: a folder, or the name of a model on the hub.
        what: what is sought there, "model" or "tokenizer".

    Raises:
        IdgrError: there is nothing under that name, the hub cannot be reached or has pickled weights alone, or a file
            is none that may be opened (`check_files`).
    """
    name = os.fspath(source)
    folder = Path(name)
    if not folder.is_dir():
        _refuse_gguf(folder)
        folder = _from_hub(name, what)
    check_files(folder, name)
    return folder


def _refuse_gguf(path: Path) -> None:
    """Raise `IdgrError` where a path is a model of llama.cpp in one file, which has no folder."""
    if is_gguf(path):
        raise IdgrError("is a GGUF file, of which causal models alone are read", "give a model folder", where=path)


def load_pretrained(from_pretrained: Callable[..., T], what: str, source: str, **options: Any) -> T:
    """Load with a `from_pretrained` of transformers, from a folder or the hub model of that name.

    Args:
        what: what is loaded, for messages, such as "tokenizer".
        options: further arguments of `from_pretrained`.

    Raises:
        IdgrError: there is nothing usable under that name, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        check_utf8("the name of a model", source)  # the libraries take no other
    quiet_transformers()
    folder = find_folder(source, what)
    with told_as_unusable(what, source):
        return from_pretrained(os.fspath(folder), trust_remote_code=False, local_files_only=True, **options)


@contextmanager
def told_as_unusable(what: str, source: str) -> Iterator[None]:
    """Tell in one line what a library makes of a folder that is not as it should be.

    The libraries raise OSError, ValueError, KeyError and more; those written in Rust panic, which is no `Exception`.
    """
    try:
        yield
    except IdgrError:
        raise
    except BaseException as fault:
        if not isinstance(fault, Exception) and type(fault).__name__ != "PanicException":
            raise
        reason = _first_line(fault)
        raise IdgrError(
            f"holds no usable {what} ({reason})", "give a model folder such as idgr writes", where=source
        ) from fault


def quiet_transformers() -> None:
    """Keep the library's own progress bars and warnings off standard error, which is for idgr's."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def quiet_hub() -> None:
    """Keep the hub library's own progress bars and warnings off standard error."""
    import logging

    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _from_hub(name: str, what: str) -> Path:
    """The folder in the hub's cache where a hub model's files lie, fetched if they do not yet."""
    from huggingface_hub import constants, snapshot_download

    cached = _cached(name)
    if cached is not None and _is_whole(cached, what):
        return cached
    missing = "there is no such folder"
    if cached is not None:
        missing = f"the hub's cache holds no {what} of it, only {', '.join(names_in(cached)) or 'a folder'}"
    if os.sep in name and (name.startswith((os.sep, ".", "~")) or name.count(os.sep) > 1):
        raise _cannot_load(what, name, "there is no such folder")
    if constants.is_offline_mode():
        raise _cannot_load(what, name, f"{missing}, and HF_HUB_OFFLINE keeps the hub from being asked")
    files = _ask_hub(what, name)
    if what == "model" and has_pickles(files) and not has_safetensors(files):
        raise pickled(name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FETCHED), ignore_patterns=["*/*"]))
    except Exception as fault:
        raise _cannot_load(what, name, f"loading it from the hub failed ({_first_line(fault)})") from fault


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        return None


def _is_whole(folder: Path, what: str) -> bool:
    """Whether a folder of the hub's cache, which may hold a part of a model's files, has what is sought."""
    names = names_in(folder)
    if what == "tokenizer":
        return not {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"}.isdisjoint(names)
    return "config.json" in names and (has_safetensors(names) or has_pickles(names))


def _ask_hub(what: str, name: str) -> list[str]:
    """The names of a hub model's files. Raises `IdgrError` unless the hub answers, once and soon, that it has it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        found = HfApi().model_info(name, timeout=_HUB_SECONDS)
    except HFValidationError:
        raise _cannot_load(what, name, "there is no such folder") from None
    except RepositoryNotFoundError as fault:
        raise _cannot_load(what, name, "there is no such folder, and the hub has no such model") from fault
    except HfHubHTTPError as fault:
        raise _cannot_load(what, name, f"the hub answered: {_first_line(fault)}") from fault
    except Exception as fault:  # any fault of the network, of a proxy or of its set-up
        reason = f"there is no such folder, and the hub cannot be reached ({_first_line(fault)})"
        raise _cannot_load(what, name, reason) from fault
    return [file.rfilename for file in found.siblings or []]


def _cannot_load(what: str, name: str, reason: str) -> IdgrError:
    return IdgrError(
        f"cannot load the {what} {name!r}: {reason}",
        "give a local model folder or the preset `nano`, make an ID generator with `idgr init-gen` or take "
        "`gen-ids --model keyphrase`, or set HF_HOME or HTTPS_PROXY so that the hub's files can be had",
    )


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0].rstrip(".")
