"""A folder of parts worked part by part into another folder: which parts there are, and which are done.

The manifest, `_manifest.json` in the folder that is written, tells what the parts are made with and, of each that is
done, the hashes of what was read and written. A part takes its name when it is whole and is noted after that, so a run
that is killed at any point is gone on with by the same command, and several processes may share the parts of a folder.
Names that begin with `_` or a dot are no parts, as for Spark and Arrow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import final_place
from idgr.formats.inputs import Input, plain, sha256_file
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import is_stream, write_json
from idgr.formats.lock import hold
from idgr.formats.part_files import part_files
from idgr.formats.run_info import check_form, differences, replace_lines

MANIFEST = "_manifest.json"
_LONGEST_WAIT = 60  # seconds for another process that writes the manifest, which takes it milliseconds


class Manifest:
    """The parts of a folder, and which of them are done in the folder that is written.

    Args:
        source: the folder of parts.
        output: the folder that is written; it is made if it is not there.
        made: what all parts are made with, as `RunInfo.provenance` gives it.

    Attributes:
        names: the paths of the parts below either folder, in order.

    Raises:
        UsageError: one of the folders lies in the other, or `output` is none.
        IdgrError: there are no parts, `output` was made with something else, or cannot be written.
    """

    def __init__(self, source: str, output: str, made: Mapping[str, Any]) -> None:
        if is_stream(output):
            raise UsageError(f"-o {output} cannot hold the parts of {source}", "give the name of a folder to -o")
        self._source, self._output, self._made = Path(source), Path(output), plain(made)
        self.names = [Path(file).relative_to(self._source).as_posix() for file in part_files(source)]
        read, written = self._source.resolve(), final_place(output)
        if read.is_relative_to(written) or written.is_relative_to(read):
            raise UsageError(f"-o {output} and {source}, whose parts are read, overlap", "give another folder to -o")
        if self._output.exists() and not self._output.is_dir():
            raise IdgrError("is a file, not a folder of parts", "give the name of a folder to -o", where=output)
        self._path = self._output / MANIFEST
        if not self._path.is_file():
            if self._output.is_dir() and any(not file.name.startswith(".") for file in self._output.iterdir()):
                todo = "give another folder to -o"
                raise IdgrError(f"is not empty and holds no {MANIFEST}", todo, where=output)
            self._note({})
        strange = sorted(self._read().keys() - set(map(plain, self.names)))
        if strange:
            todo = f"give another folder to -o, or remove {MANIFEST} and that part to make the others again"
            raise IdgrError(f"holds {strange[0]}, which is no part of {source}", todo, where=output)

    def paths(self) -> list[str]:
        """Where the parts are written, in their order."""
        return [str(self._output / name) for name in self.names]

    def source(self, name: str) -> str:
        """Where a part is read."""
        return str(self._source / name)

    def missing(self, number: int = 1, of: int = 1) -> list[str]:
        """The parts that are to be made still, of every `of`th from the `number`th: what is read or written changed."""
        known = self._read()
        return [name for name in self.names[number - 1 :: of] if not self._is_done(name, known.get(plain(name)))]

    @contextmanager
    def part(self, name: str) -> Iterator[IO[bytes]]:
        """A stream for the JSON lines of a part, which is written and noted as done if the block ends well.

        Raises:
            IdgrError: it cannot be written, another process writes it, or its source was changed meanwhile.
        """
        read, written = Input(self.source(name)), self._output / name
        with replace_lines(written) as lines:
            yield lines
            read.check_unchanged()
            digest = read.entry()["sha256"]
        self._note({plain(name): {"input": digest, "output": sha256_file(written)}})

    def _is_done(self, name: str, noted: Any) -> bool:
        written = self._output / name
        if not isinstance(noted, dict) or not written.is_file():
            return False
        return bool(
            noted.get("output") == sha256_file(written) and noted.get("input") == sha256_file(self.source(name))
        )

    def _read(self) -> dict[str, Any]:
        """What is noted of the parts that are done. Raises `IdgrError` where they were made with something else."""
        todo = "remove it to make all parts again, or give another folder to -o"
        record = read_object(self._path, todo)
        check_form(self._path, record)
        parts = record.get("parts")
        if not isinstance(parts, dict):
            raise IdgrError('its "parts" is not an object', todo, where=self._path)
        told = differences(record, self._made)
        if not told and record.get("seed") != self._made.get("seed"):
            told = f"made with --seed {record.get('seed')}, not {self._made.get('seed')}"
        if told:
            raise IdgrError(f"its parts were {told}", f"give the same; or {todo}", where=self._path)
        return {name: noted for name, noted in parts.items() if noted is not None}

    def _note(self, more: Mapping[str, Any]) -> None:
        """Write the manifest with some parts more, after whoever writes it now."""
        with self._alone():
            known = self._read() if self._path.is_file() else {}
            known |= more
            undone = dict.fromkeys(map(plain, self.names))
            write_json(self._path, {**self._made, "parts": {**undone, **known}})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._output.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + _LONGEST_WAIT
        while True:
            held = hold(self._output / "_manifest", self._path)
            try:
                held.__enter__()
                break
            except IdgrError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        try:
            yield
        finally:
            held.__exit__(None, None, None)
