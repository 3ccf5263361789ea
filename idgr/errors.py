"""Faults that the user can mend, told in one line: where, what, and what to do."""

from __future__ import annotations

import errno
import os

# What a full, broken or read-only disk answers in the middle of writing.
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_MOST = 2_000  # characters of a message


class IdgrError(Exception):
    """The data or a model is wrong (exit code 1).

    Args:
        what: what is wrong, without a full stop.
        todo: what the user can do about it.
        where: the file or folder at fault.
        line: the line of that file, counted from 1.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        todo: str = "",
        *,
        where: str | os.PathLike[str] | None = None,
        line: int | None = None,
    ) -> None:
        self.what = what
        self.todo = todo
        self.where = os.fspath(where) if where is not None else None
        self.line = line
        super().__init__(str(self))

    def __str__(self) -> str:
        place = "" if self.where is None else f"{'stdin' if self.where == '-' else self.where}:"
        if self.line is not None:
            place += f"{self.line}:"
        message = f"{place} {self.what}" if place else self.what
        if self.todo:
            message += f"; {self.todo}"
        return one_line(message)


def faulty_line(fault: ValueError, where: str | os.PathLike[str], line: int) -> IdgrError:
    """The error for a line whose record a parser has refused with `ValueError("what is wrong; what to do")`."""
    what, _, todo = str(fault).rpartition("; ")
    return IdgrError(what, todo, where=where, line=line)


def one_line(message: str) -> str:
    """A message as one line of bounded length, whatever the data put into it.

    What a terminal would obey or turn around (escapes, control characters, right-to-left marks) is spelled out.
    """
    if len(message) > _MOST:
        message = f"{message[: _MOST // 2]} … {message[-_MOST // 2 :]}"
    words = " ".join(message.split())
    if words.isprintable():
        return words
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in words
    )


def check_utf8(need: str, *names: str | os.PathLike[str] | None) -> None:
    """Raise `UsageError` where a name is not UTF-8, which file names need not be.

    Args:
        need: what needs it, such as "the page".
        names: files or folders; None is passed over.
    """
    for name in names:
        if name is not None and not os.fsencode(name).isascii():
            try:
                os.fsencode(name).decode()
            except UnicodeDecodeError:
                what = f"the name {os.fspath(name)!a} is not UTF-8, as {need} must be"
                raise UsageError(what, "give a name that is, such as that of a link to it") from None


class UsageError(IdgrError):
    """The command line is wrong (exit code 2)."""

    exit_code = 2
