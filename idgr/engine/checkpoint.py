"""Checkpoints of a training: written whole or not at all, looked through before they are believed.

A folder `.NAME.checkpoint` beside the output NAME holds the newest checkpoint and the one before. Each is a folder of
safetensors files, `state.json`, and `checkpoint.json` with the hash of each of the others. Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from idgr.errors import IdgrError
from idgr.formats.jsonl import replace_folder, write_json
from idgr.formats.run_info import check_form, differences, sha256_file
from idgr.progress import log

MANIFEST = "checkpoint.json"
STATE = "state.json"
WEIGHTS = "weights"  # the group of tensors that every checkpoint has
_KEPT = 2
_REFUSED = "the one before is taken, or the training begins anew"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

Tensors = Mapping[str, Tensor]


class StoppedError(IdgrError):
    """The training was asked to stop by a signal; the exit code is 128 and the signal's number, as shells have it."""

    def __init__(self, number: int, what: str = "", todo: str = "") -> None:
        self.number = number
        self.exit_code = 128 + number
        super().__init__(what or f"stopped by {signal.Signals(number).name}", todo)


@dataclass(frozen=True)
class Snapshot:
    """What a training needs to go on.

    Attributes:
        state: plain values, as JSON holds them.
        tensors: groups of named tensors, each a file.
    """

    state: dict[str, Any]
    tensors: dict[str, Tensors]


def checkpoint_folder(output: str | os.PathLike[str]) -> Path:
    """Where the checkpoints of an output lie."""
    final = Path(output)
    return final.parent / f".{final.name}.checkpoint"


def write_snapshot(folder: Path, snapshot: Snapshot, provenance: dict[str, Any]) -> Path:
    """Write a checkpoint; it and the one before stay.

    Args:
        provenance: what tells this training from others: command, options and inputs (`RunInfo.provenance`).

    Raises:
        IdgrError: it cannot be written; those that were there still are.
    """
    place = folder / f"step-{snapshot.state['step']:09d}-{snapshot.state['epoch']:06d}"
    if place.exists():
        try:
            _check_model(place, _read(place).tensors[WEIGHTS], snapshot.tensors[WEIGHTS])
        except IdgrError:
            shutil.rmtree(place)
        else:
            return place
    with replace_folder(place) as fresh:
        for name, tensors in snapshot.tensors.items():
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            try:
                save_file(plain, fresh / f"{name}.safetensors")
            except SafetensorError as fault:
                raise IdgrError(f"cannot be written ({fault})", "free its disk", where=place) from None
        write_json(fresh / STATE, {"made_of": provenance, **snapshot.state})
        write_json(fresh / MANIFEST, {"sha256": {path.name: sha256_file(path) for path in sorted(fresh.iterdir())}})
    places = _newest_first(folder)
    at = places.index(place)
    # Those of later steps were refused when this training began, or it would have gone on from them.
    for old in (*places[:at], *places[at + _KEPT :]):
        shutil.rmtree(old)
    return place


def read_snapshot(folder: Path, weights: Tensors, provenance: dict[str, Any]) -> Snapshot | None:
    """The newest checkpoint that is whole and of this model; those that are not are named on the way.

    Args:
        weights: the model's, of which a checkpoint must hold those of the same names and shapes.
        provenance: as for `write_snapshot`.

    Raises:
        IdgrError: it is of a training with other options or inputs.
    """
    for place in _newest_first(folder):
        try:
            snapshot = _read(place)
            _check_model(place, snapshot.tensors[WEIGHTS], weights)
        except IdgrError as fault:
            log(f"checkpoint refused: {fault}")
            continue
        check_same(place, snapshot.state["made_of"], provenance)
        return snapshot
    return None


def check_same(place: Path, origin: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Raise `IdgrError` where a checkpoint, made of `origin`, is of a training with other options or inputs."""
    if found := differences(origin, provenance):
        raise IdgrError(
            f"is of a training that was {found}",
            "give the same to go on, another folder to -o, or --overwrite to begin anew",
            where=place,
        )


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What the newest checkpoint whose state can be read is made of; None where there is none."""
    for place in _newest_first(folder):
        try:
            provenance: dict[str, Any] = orjson.loads((place / STATE).read_bytes())["made_of"]
            check_form(place / STATE, provenance)
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, IdgrError):
            continue  # it is named when the weights are asked for
        return provenance
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: path.name, reverse=True)


def _read(place: Path) -> Snapshot:
    try:
        hashes: dict[str, str] = orjson.loads((place / MANIFEST).read_bytes())["sha256"]
        if hashes.keys() != {path.name for path in place.iterdir()} - {MANIFEST}:
            raise IdgrError(f"is not whole: its {MANIFEST} tells of other files", _REFUSED, where=place)
        if f"{WEIGHTS}.safetensors" not in hashes:
            raise IdgrError("is not whole: it holds no weights", _REFUSED, where=place)
        for name, expected in hashes.items():
            if sha256_file(place / name) != expected:
                raise IdgrError(f"its {name} is damaged", _REFUSED, where=place)
        state = orjson.loads((place / STATE).read_bytes())
        check_form(place / STATE, state["made_of"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as fault:
        raise IdgrError(f"is not whole ({fault})", _REFUSED, where=place) from None
    files = [name for name in hashes if name.endswith(".safetensors")]
    return Snapshot(state, {name.removesuffix(".safetensors"): load_file(place / name) for name in files})


def _check_model(place: Path, saved: Tensors, weights: Tensors) -> None:
    if saved.keys() != weights.keys():
        name = min(saved.keys() ^ weights.keys())
        raise IdgrError(f"is of another model: only one of the two has {name}", _REFUSED, where=place)
    for name, tensor in saved.items():
        if tensor.shape != weights[name].shape:
            shapes = f"{list(tensor.shape)}, here {list(weights[name].shape)}"
            raise IdgrError(f"is of another model: its {name} is {shapes}", _REFUSED, where=place)


@dataclass
class CheckpointManager:
    """When checkpoints of one training are written, and where.

    Attributes:
        folder: see `checkpoint_folder`; made when the first one is written.
        provenance: see `write_snapshot`.
        minutes: how often; 0 for only when a signal asks to stop.
    """

    folder: Path
    provenance: dict[str, Any]
    minutes: float
    stop_signal: int = 0
    _last: float = field(default_factory=time.monotonic)
    _may_interrupt: bool = False

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return bool(self.minutes) and time.monotonic() - self._last >= 60 * self.minutes

    def read(self, weights: Tensors) -> Snapshot | None:
        """The checkpoint to go on from, if there is one; see `read_snapshot`."""
        found = read_snapshot(self.folder, weights, self.provenance)
        if found is None and any(self.folder.glob("step-*")):
            log(f"no checkpoint in {self.folder} can be used: the training begins anew")
        return found

    def write(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint; see `write_snapshot`."""
        try:
            return write_snapshot(self.folder, snapshot, self.provenance)
        except IdgrError as fault:
            raise IdgrError(f"{fault.what}; {self.survivor()}", "free its disk", where=fault.where) from None
        finally:
            self._last = time.monotonic()

    def survivor(self) -> str:
        """Which checkpoint there is, in words."""
        places = _newest_first(self.folder)
        return f"the checkpoint {places[0]} is kept" if places else "there is no checkpoint yet"

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note `SIGNALS` in `stop_signal` inside the block, and do not end at once; a second Ctrl-C does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise `StoppedError` as soon as a signal comes inside the block, which leaves everything as it found it."""
        self._may_interrupt = True
        try:
            if self.stop_signal:
                raise StoppedError(self.stop_signal)
            yield
        finally:
            self._may_interrupt = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stop_signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_signal = number
        if self._may_interrupt:
            self._may_interrupt = False
            raise StoppedError(number)


def copy_into(targets: Tensors, saved: Tensors) -> None:
    """Give `targets` the values of the tensors of the same names."""
    with torch.no_grad():
        for name, tensor in targets.items():
            tensor.copy_(saved[name])
