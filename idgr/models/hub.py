"""Where saved models come from: a local folder, the cache of the Hugging Face hub, or the hub itself.

Knows how to find files and how to say in one line that they cannot be had; what is in them it does not know.
Nothing is ever unpickled, and no code of a model's own is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from idgr.errors import IdgrError, check_utf8

T = TypeVar("T")

_HUB_SECONDS = 3.0


def load_pretrained(from_pretrained: Callable[..., T], what: str, source: str, **options: Any) -> T:
    """Load with a `from_pretrained` of transformers, from the folder `source` or the hub model of that name.

    A model that is in the hub's cache is taken from there without asking the hub. Otherwise the hub is asked once,
    with a short time limit, before the library would try and try again.

    Args:
        what: what is loaded, for messages, such as "tokenizer".
        options: further arguments of `from_pretrained`.

    Raises:
        IdgrError: there is nothing usable under that name, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        check_utf8("the name of a model", source)  # the libraries take no other
    quiet_transformers()
    try:
        return from_pretrained(source, trust_remote_code=False, local_files_only=True, **options)
    except Exception as fault:  # the library raises OSError, ValueError, KeyError and more for a bad source
        if Path(source).is_dir():
            reason = _first_line(fault)
            raise IdgrError(
                f"holds no usable {what} ({reason})", "give a model folder such as idgr writes", where=source
            ) from fault
    _ask_hub(what, source)
    try:
        return from_pretrained(source, trust_remote_code=False, **options)
    except Exception as fault:
        raise _cannot_load(what, source, f"loading it from the hub failed ({_first_line(fault)})") from fault


def quiet_transformers() -> None:
    """Keep the library's own progress bars and warnings off standard error, which is for idgr's."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _ask_hub(what: str, name: str) -> None:
    """Raise `IdgrError` unless the hub answers, once and soon, that it has a model of that name."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    if os.sep in name and (name.startswith((os.sep, ".", "~")) or name.count(os.sep) > 1):
        raise _cannot_load(what, name, "there is no such folder")
    if constants.is_offline_mode():
        raise _cannot_load(what, name, "there is no such folder, and HF_HUB_OFFLINE keeps the hub from being asked")
    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
    except HFValidationError:
        raise _cannot_load(what, name, "there is no such folder") from None
    except RepositoryNotFoundError as fault:
        raise _cannot_load(what, name, "there is no such folder, and the hub has no such model") from fault
    except HfHubHTTPError as fault:
        raise _cannot_load(what, name, f"the hub answered: {_first_line(fault)}") from fault
    except Exception as fault:  # any fault of the network, of a proxy or of its set-up
        reason = f"there is no such folder, and the hub cannot be reached ({_first_line(fault)})"
        raise _cannot_load(what, name, reason) from fault


def _cannot_load(what: str, name: str, reason: str) -> IdgrError:
    return IdgrError(
        f"cannot load the {what} {name!r}: {reason}",
        "give a local model folder or the preset `nano`, make an ID generator with `idgr init-gen` or take "
        "`gen-ids --model keyphrase`, or set HF_HOME or HTTPS_PROXY so that the hub's files can be had",
    )


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0].rstrip(".")
