"""A Typer command from a stage: its options' fields become arguments and options, with their help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any

import typer

from idgr.options import COMMON, Field, Forwarded, StageOptions, is_optional, option_fields


def as_command(
    options: type[StageOptions], run: Callable[[Any], Any], show: Callable[[Any, Any], None] | None
) -> Callable[..., None]:
    """A function that Typer makes a command of.

    Args:
        options: its docstring is the command's help.
        run: the stage's function.
        show: prints what the stage made, given it and the options.
    """
    parameters, forwarded = [], {}
    for field in option_fields(options):
        if isinstance(field.option, Forwarded):
            forwarded[field.name] = inner = field.option.fields()
            parameters += [_parameter(one) for one in inner.values()]
        else:
            parameters.append(_parameter(field))

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


def _parameter(field: Field) -> inspect.Parameter:
    option, kind = field.option, field.type
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if field.default is None and not is_optional(kind):
        kind = kind | None
    if option.positional:
        shown: Any = typer.Argument(help=option.help, metavar=option.metavar, show_default=default is not None)
    else:
        flags = field.flags
        panel = None if option.panel == COMMON else option.panel
        shown = typer.Option(*flags, help=option.help, metavar=option.metavar, rich_help_panel=panel)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
    )
