"""Prompt templates: text with a slot for the history, one a line."""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from importlib import resources

import numpy as np
import numpy.typing as npt

from idgr.errors import IdgrError, faulty_line
from idgr.formats.jsonl import Lines
from idgr.prompts.draws import draws

HISTORY_SLOT = "{history}"
_PACKAGED = "templates.txt"


def load_templates(path: str | os.PathLike[str] | None = None) -> list[str]:
    """The templates of a file, or the ten that come with idgr, in the order of their lines.

    Blank lines and lines that begin with `#` are passed over. `{{` and `}}` stand for braces.

    Args:
        path: a text file in UTF-8, a `.gz` file, `-` for standard input, or None for the packaged templates.

    Raises:
        IdgrError: naming file and line where a template does not hold `{history}` exactly once, or has another slot.
    """
    if path is None:
        with resources.as_file(resources.files("idgr.prompts") / _PACKAGED) as packaged:
            return load_templates(packaged)
    templates = []
    for number, raw in Lines(path):
        try:
            line = raw.decode()
            if not line.startswith("#"):
                split_template(line)
                templates.append(line)
        except UnicodeDecodeError:
            raise IdgrError("not valid UTF-8", "save the templates as UTF-8", where=path, line=number) from None
        except ValueError as fault:
            raise faulty_line(fault, path, number) from None
    if not templates:
        raise IdgrError("holds no template", f"write one a line, such as `history: {HISTORY_SLOT} next:`", where=path)
    return templates


def split_template(template: str) -> tuple[str, str]:
    """The text before and after the slot of the history, with `{{` and `}}` turned into braces.

    Raises:
        ValueError: the template does not hold `{history}` exactly once, or holds another slot.
    """
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as fault:
        raise ValueError(f"not a template ({fault}); write `{{{{` and `}}}}` for braces") from None
    before = after = ""
    slots = 0
    for text, slot, form, conversion in pieces:
        if slots:
            after += text
        else:
            before += text
        if slot is None:
            continue
        if slot == "user":
            raise ValueError("unknown slot {user}; with --user-ids the ID stands before the template, so leave it out")
        if slot != "history" or form or conversion:
            raise ValueError(f"unknown slot {{{slot}}}; the only slot is {HISTORY_SLOT}")
        slots += 1
    if slots != 1:
        raise ValueError(f"{HISTORY_SLOT} stands {slots} times in the template; write it exactly once")
    return before, after


def template_words(templates: Sequence[str]) -> list[str]:
    """The text of the templates without slots, for a vocabulary that shall know their words.

    Each comes twice, since a word that occurs once gets no piece of its own.
    """
    return [" ".join(split_template(template)) for template in templates for _ in range(2)]


def draw_templates(n_templates: int, seed: int, epoch: int, instances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The template of each training instance in an epoch, a number from 0 to `n_templates` - 1.

    It depends on seed, epoch and the instance's number alone, so batch size, order and number of processes change
    nothing.
    """
    return (draws(seed, epoch, instances) % np.uint64(n_templates)).astype(np.int64)
