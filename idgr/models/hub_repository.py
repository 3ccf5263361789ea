"""Models on the Hugging Face hub: one is pushed in one commit, or fetched as it is at one commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from idgr.errors import DISK_FAULTS, IdgrError, UsageError
from idgr.formats.inputs import RUN_FILE
from idgr.formats.published import CARD
from idgr.models.hub import quiet_hub
from idgr.progress import log

_SECONDS = 10.0  # that the hub may take to answer a question
_LOG_IN = "check the name, and log in with `hf auth login` or set HF_TOKEN"
_NETWORK = "look at the network, HTTPS_PROXY and HF_ENDPOINT, and run it again"
# By the answer's status: what is wrong, and what to do.
_STATUSES = {
    401: ("does not tell who you are, or that you may see it", _LOG_IN),
    403: ("does not allow you that", "take a name of your own, or a token with the permission"),
    404: ("has no such model, or does not show it to you", _LOG_IN),
    429: ("has had too many requests from you", "wait some minutes and run it again"),
}
# What an earlier push may have left and a model's loading would read.
_STALE = (".safetensors", ".json", ".jsonl", ".model", ".jinja", ".txt")


@dataclass(frozen=True)
class Snapshot:
    """A model on the hub at one commit: its hash, and the names of its files."""

    commit: str
    names: list[str]


def check_online(name: str) -> None:
    """Raise `IdgrError` where the hub must not be asked."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise IdgrError("HF_HUB_OFFLINE keeps the hub from being asked", "unset it and run it again", where=name)


def find_snapshot(name: str, revision: str | None) -> Snapshot:
    """The commit that a branch, tag or hash of a model on the hub stands for now; that of its main branch if not given.

    Raises:
        UsageError: the name is none that a model may have.
        IdgrError: the hub has none, does not show it, or cannot be reached.
    """
    check_online(name)
    with told_of_hub(name, revision):
        from huggingface_hub import HfApi

        found = HfApi().model_info(name, revision=revision, timeout=_SECONDS)
        return Snapshot(str(found.sha), [file.rfilename for file in found.siblings or []])


def fetch(name: str, commit: str, names: Iterable[str], folder: Path) -> None:
    """Fetch some files of a model, as they are at a commit, into a folder; of names that it has not, nothing.

    Args:
        names: without letters that a pattern gives a meaning.

    Raises:
        IdgrError: the hub cannot be reached, or the transfer fails.
    """
    quiet_hub()
    with told_of_hub(name, commit):
        from huggingface_hub import snapshot_download

        try:
            snapshot_download(
                name, revision=commit, local_dir=folder, allow_patterns=list(names), etag_timeout=_SECONDS
            )
        finally:
            shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes on what it has fetched


def push_files(
    name: str, files: Mapping[str, Path | bytes], message: str, *, public: bool, revision: str | None
) -> tuple[str, list[str]]:
    """Push files as one commit, into a repository that is made if it is not there yet.

    What an earlier push left and these files do not replace is deleted in the same commit.

    Args:
        files: by their names there.
        public: whether everybody may see it; one that is there already stays as it is.
        revision: a branch, made if it is not there; the main one if not given.

    Returns:
        The address of the commit, and the names that were deleted.

    Raises:
        UsageError: the name is none that a model may have, or the model there is public and `public` is not given.
        IdgrError: the hub refuses it or cannot be reached, or a model lies there that idgr has not pushed.
    """
    check_online(name)
    quiet_hub()
    with told_of_hub(name, revision):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi()
        repository = api.create_repo(name, private=not public, exist_ok=True).repo_id
        there = api.model_info(repository, timeout=_SECONDS)
        if not public and there.private is False:
            raise UsageError(f"{name} is public on the hub", "give --public, or the name of another model")
        if public and there.private:
            log(f"push: {name} is private on the hub, and stays so; its page there has a setting for that")
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
            there = api.model_info(repository, revision=revision, timeout=_SECONDS)
        names = {file.rfilename for file in there.siblings or []}
        if "config.json" in names and RUN_FILE not in names:
            what = "holds a model on the hub that was not pushed by idgr"
            raise IdgrError(what, "give the name of a new model", where=name)
        stale = sorted(one for one in names - files.keys() if _is_stale(one))
        added = [CommitOperationAdd(one, source) for one, source in files.items()]
        deleted = [CommitOperationDelete(one) for one in stale]
        done = api.create_commit(repository, [*added, *deleted], commit_message=message, revision=revision)
        return str(done.commit_url), stale


def _is_stale(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix in _STALE and len(path.parts) == 1 and name != CARD


@contextmanager
def told_of_hub(name: str, revision: str | None = None) -> Iterator[None]:
    """Tell in one line what the hub answers, or that it cannot be reached."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except IdgrError:
        raise
    except HFValidationError as fault:
        what = f"{name!r} is no name of a model on the hub ({_first_line(fault)})"
        raise UsageError(what, "give USER/NAME") from None
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno in DISK_FAULTS:
            raise
        told = _told(name, revision, fault)
        raise told from fault


def _told(name: str, revision: str | None, fault: Exception) -> IdgrError:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    causes = [*_causes(fault)]
    if any(isinstance(one, OfflineModeIsEnabled) for one in causes):
        return IdgrError("HF_HUB_OFFLINE keeps the hub from being asked", "unset it and run it again", where=name)
    if any(isinstance(one, RevisionNotFoundError) for one in causes):
        what = f"has no revision {revision!r} on the hub"
        return IdgrError(what, "give a branch, a tag or the hash of a commit to --revision", where=name)
    for one in causes:
        if isinstance(one, HfHubHTTPError):
            status: Any = getattr(one.response, "status_code", None)
            reason = one.server_message or _first_line(one)
            what, todo = _STATUSES.get(status, (f"answered: {reason}", "run it again later"))
            return IdgrError(f"the hub {what} ({status})", todo, where=name)
    for one in causes:
        of_network = type(one).__module__.partition(".")[0] in ("httpx", "httpx2")  # which of them, its version decides
        if of_network or isinstance(one, (ConnectionError, TimeoutError)):
            return IdgrError(f"the hub cannot be reached ({_first_line(one)})", _NETWORK, where=name)
    return IdgrError(f"the transfer failed ({type(fault).__name__}: {_first_line(fault)})", _NETWORK, where=name)


def _causes(fault: BaseException) -> Iterator[BaseException]:
    """A fault and what led to it, the latest first."""
    found: BaseException | None = fault
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0].rstrip(".")
