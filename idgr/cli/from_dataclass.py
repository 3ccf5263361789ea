"""A Typer command from a stage: its options' fields become arguments and options, with their help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any

import typer

from idgr.options import (
    COMMON,
    MODEL,
    RUN,
    SEARCH,
    TRAINING,
    Field,
    Forwarded,
    StageOptions,
    is_optional,
    option_fields,
    spelled_fields,
)


def as_command(
    options: type[StageOptions], run: Callable[[Any], Any], show: Callable[[Any, Any], None] | None
) -> Callable[..., None]:
    """A function that Typer makes a command of.

    Args:
        options: its docstring is the command's help.
        run: the stage's function.
        show: prints what the stage made, given it and the options.
    """
    parameters = sorted(map(_parameter, spelled_fields(options)), key=_panel)
    forwarded = {one.name: one.option.fields() for one in option_fields(options) if isinstance(one.option, Forwarded)}

    def command(**values: Any) -> None:
        for name, inner in forwarded.items():
            given = {key: values.pop(one.name) for key, one in inner.items()}
            values[name] = {key: value for key, value in given.items() if value is not None}
        chosen = options(**{name: value for name, value in values.items() if value is not None})
        made = run(chosen)
        if show is not None:
            show(made, chosen)

    command.__doc__ = inspect.getdoc(options)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _panel(parameter: inspect.Parameter) -> int:
    """The place of a parameter's panel: the general ones first, those of a run last."""
    panel = getattr(parameter.annotation.__metadata__[0], "rich_help_panel", None)
    return {None: 0, MODEL: 1, TRAINING: 3, SEARCH: 3, RUN: 4}.get(panel, 2)


def _parameter(field: Field) -> inspect.Parameter:
    option, kind, metavar = field.option, field.type, field.option.metavar
    if field.choices:  # checked with the other bounds, in our words
        kind = str | None if is_optional(kind) else str
        metavar = f"<{'|'.join(map(str, field.choices))}>"
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if field.default is None and not is_optional(kind):
        kind = kind | None
    if option.positional:
        shown: Any = typer.Argument(help=option.help, metavar=option.metavar, show_default=False)
    else:
        flags = field.flags
        panel = None if option.panel == COMMON else option.panel
        shown = typer.Option(*flags, help=option.help, metavar=metavar, rich_help_panel=panel)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )
