"""The header of a GGUF file, in which llama.cpp keeps a model: what is told of it before any tensor is read.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. It is
read here, and not by the package gguf, so that a file of another architecture or a damaged one is told without it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idgr.errors import IdgrError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Types of metadata by their number: those of a fixed size as struct has them; strings and arrays have a length.
_FIXED = dict(enumerate(["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"])) | {10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4
_WHOLE = "fetch the file again"


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file tells of its model.

    Attributes:
        metadata: numbers, truth values and texts, by their keys; of an array, how long it is alone (`lengths`).
        shapes: of the tensors by their names, as PyTorch has them: what varies fastest is last.
    """

    metadata: dict[str, Any]
    lengths: dict[str, int]
    shapes: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """Such as "llama"."""
        return str(self.metadata.get("general.architecture"))


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def find_gguf(source: str) -> Path | None:
    """The GGUF file that a model is: the file of that name, or the only one of a folder that has no config.json.

    Raises:
        IdgrError: the folder has several, or one that is none.
    """
    path = Path(source)
    if is_gguf(path):
        return path
    try:
        if not path.is_dir() or (path / "config.json").exists():
            return None
        found = sorted(one for one in path.iterdir() if one.name.endswith(".gguf"))
    except (OSError, ValueError):
        return None
    if len(found) > 1:
        what = f"holds {len(found)} GGUF files, such as {found[0].name} and {found[1].name}"
        raise IdgrError(what, "name one of them", where=source)
    if found and not is_gguf(found[0]):
        raise IdgrError(f"its {found[0].name} is no GGUF file", _WHOLE, where=source)
    return found[0] if found else None


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of a GGUF file; none of its tensors is read.

    Raises:
        IdgrError: it cannot be read, is cut off, or is of a version that is not read here.
    """
    with _told(path), path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(path, content, len(_MAGIC))
        version = reader.number("<I")
        if version not in _VERSIONS:
            raise IdgrError(f"is a GGUF file of version {version}", "convert it to version 3", where=path)
        n_tensors, n_pairs = reader.number("<Q"), reader.number("<Q")
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(n_pairs):
            key = reader.text()
            kind = reader.number("<I")
            if kind == _ARRAY:
                lengths[key] = reader.skip_array()
            else:
                metadata[key] = reader.value(kind)
        shapes: dict[str, tuple[int, ...]] = {}
        for _ in range(n_tensors):
            name = reader.text()
            if name in shapes:
                raise IdgrError(f"is a damaged GGUF file: it has two tensors {name!r}", _WHOLE, where=path)
            n_dimensions = reader.number("<I")
            if n_dimensions > _MOST_DIMENSIONS:
                raise IdgrError(
                    f"is a damaged GGUF file: its tensor {name!r} has {n_dimensions} dimensions", _WHOLE, where=path
                )
            shapes[name] = tuple(reversed([int(reader.number("<Q")) for _ in range(n_dimensions)]))
            reader.number("<I")  # how its numbers are packed
            reader.number("<Q")  # where they are
    return GgufHeader(metadata, lengths, shapes)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell in one line what is wrong with a file."""
    try:
        yield
    except (OSError, ValueError, struct.error, OverflowError) as fault:
        reason = "it is cut off" if isinstance(fault, (struct.error, OverflowError)) else str(fault)
        raise IdgrError(f"is a damaged GGUF file: {reason}", _WHOLE, where=path) from None


@dataclass
class _Reader:
    """Reads one value after the other; raises `struct.error` behind the end, `IdgrError` for what is no value."""

    path: Path
    content: mmap.mmap
    at: int

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.content, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self) -> str:
        begin = self._pass(self.number("<Q"))
        return self.content[begin : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind not in _FIXED:
            raise IdgrError(f"is a damaged GGUF file: its metadata has a value of type {kind}", _WHOLE, where=self.path)
        return self.number(_FIXED[kind])

    def skip_array(self) -> int:
        """How long an array is, which is passed over."""
        kind, length = self.number("<I"), int(self.number("<Q"))
        if kind == _STRING:
            for _ in range(length):
                self._pass(self.number("<Q"))
        elif kind in _FIXED:
            self._pass(length * struct.calcsize(_FIXED[kind]))
        else:
            raise IdgrError(
                f"is a damaged GGUF file: its metadata has an array of values of type {kind}", _WHOLE, where=self.path
            )
        return length

    def _pass(self, size: int) -> int:
        """Where the next `size` bytes begin, which lie behind from now on."""
        begin = self.at
        if size > len(self.content) - begin:
            raise IdgrError("is a damaged GGUF file: it is cut off", _WHOLE, where=self.path)
        self.at += size
        return begin
