"""Options of a stage, said once: as the annotated fields of a frozen dataclass.

The command line, `run.json`, the check whether a finished output is stale, `--dry-run` and the Python functions all
read them from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from dataclasses import field as dataclass_field
from enum import Enum
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from idgr.errors import UsageError

MOST_INT = 2**63 - 1  # a whole number beyond it has no place in a record of a run

UNSET: Any = None  # default of a field that the class fills in when it is made

COMMON, MODEL, TRAINING, SEARCH, RUN = "Options", "Model", "Training", "Search", "Run"  # panels of the help


class Role(Enum):
    """What an option does: shape the result, name what is read or written, or concern the run alone."""

    RESULT = "result"
    INPUT = "input"
    OUTPUT = "output"
    RUN = "run"


@dataclass(frozen=True)
class Option:
    """What a field of a stage's options is, beside its name, type and default.

    Attributes:
        help: one sentence for the user.
        flags: how it is spelled on the command line, such as "-k"; the field's name if not given.
        role: see `Role`.
        panel: under which heading the help shows it.
        metavar: what stands for its value in the help.
        positional: whether it is an argument without a flag.
        recorded: its name in `run.json`, where that is not its flag.
        at_least, at_most, above, below: bounds of a number.
    """

    help: str
    flags: tuple[str, ...] = ()
    role: Role = Role.RESULT
    panel: str = COMMON
    metavar: str | None = None
    positional: bool = False
    recorded: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def bounds(self) -> str:
        """What a number has to be, in words."""
        if (self.at_least, self.below) == (0, 1):
            return "give a share from 0 to below 1"
        if self.at_least is not None and self.at_most is not None:
            return f"give a number from {_plain(self.at_least)} to {_plain(self.at_most)}"
        for bound, words in ((self.at_least, "of at least"), (self.above, "above"), (self.at_most, "of at most")):
            if bound is not None:
                return f"give a number {words} {_plain(bound)}"
        return "give a smaller number" if self.below is None else f"give a number below {_plain(self.below)}"

    def holds(self, value: float) -> bool:
        """Whether a number is within the bounds; infinity and what is no number never are."""
        return (
            isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _plain(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


Device = Annotated[str, Option("auto, cpu or cuda.", role=Role.RUN, panel=RUN)]
Seed = Annotated[int, Option("Seed of all that is random.", panel=RUN, at_least=0)]


def option(help: str, default: Any = MISSING, panel: str = COMMON, **about: Any) -> Any:
    """A field of a stage's options; `about` are further attributes of its `Option`. Required without a default."""
    return dataclass_field(default=default, metadata={"option": Option(help, panel=panel, **about)})


def argument(help: str, metavar: str, default: Any = MISSING) -> Any:
    """A path that is read, given without a flag."""
    return option(help, default, role=Role.INPUT, positional=True, metavar=metavar)


def output_option(help: str, default: Any = MISSING, panel: str = COMMON) -> Any:
    """The path that is written, `-o`."""
    return option(help, default, panel, flags=("-o", "--output"), role=Role.OUTPUT)


@dataclass(frozen=True, kw_only=True)
class Forwarded(Option):
    """Options of another stage that are handed on to it, spelled `--PREFIX.NAME`; the field holds those that are given.

    Attributes:
        of: the other stage's options.
        prefix: what they are spelled with.
        left_out: names of fields that this stage settles itself.
    """

    of: type[StageOptions]
    prefix: str
    left_out: frozenset[str] = frozenset()

    def fields(self) -> dict[str, Field]:
        """By their names there: fields that are None where nothing is given."""
        found = {}
        for field in option_fields(self.of):
            if field.name in self.left_out or field.option.positional:
                continue
            spelled = max(field.flags, key=len).split("/")
            flags = ("/".join(f"--{self.prefix}.{one.lstrip('-')}" for one in spelled),)
            option = replace(field.option, flags=flags, panel=self.panel)
            kind = field.type if is_optional(field.type) else field.type | None
            found[field.name] = Field(f"{self.prefix}__{field.name}", kind, None, option)
        return found


@dataclass(frozen=True)
class Field:
    """A field of a stage's options.

    Attributes:
        name: in Python.
        type: without the annotation, such as `int | None`.
        default: `MISSING` where it must be given.
        option: its annotation.
    """

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        return self.option.flags or (f"--{self.name.replace('_', '-')}",)

    @property
    def flag(self) -> str:
        """The longest spelling, for messages; of `--NAME/--no-NAME` the first."""
        return max(self.flags, key=len).partition("/")[0]

    @property
    def negative_flag(self) -> str:
        """Of `--NAME/--no-NAME` the second; empty where there is none, since what is not given is false."""
        return max(self.flags, key=len).partition("/")[2]

    @property
    def key(self) -> str:
        """Its name in `run.json`."""
        if self.option.recorded is not None:
            return self.option.recorded
        return self.name.replace("_", "-") if self.option.positional else self.flag.lstrip("-")

    @property
    def is_required(self) -> bool:
        return self.default is MISSING

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that it may have, where they are few."""
        kinds = get_args(self.type) if get_origin(self.type) in (Union, UnionType) else (self.type,)
        return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options of a stage. Each field is made by `option`, annotated with an `Option`, or only gives another default.

    Raises:
        UsageError: a value is out of its bounds, or none of its choices.
    """

    def __post_init__(self) -> None:
        for one in option_fields(type(self)):
            _check(one, getattr(self, one.name))

    def by_role(self, role: Role) -> dict[str, Any]:
        """Key in `run.json` and value of each option of a role, in the order of the fields."""
        found: dict[str, Any] = {}
        for field in option_fields(type(self)):
            value = getattr(self, field.name)
            if isinstance(field.option, Forwarded):
                inner = field.option.fields()
                found |= {inner[name].key: one for name, one in value.items() if inner[name].option.role is role}
            elif field.option.role is role:
                found[field.key] = value
        return found


def option_fields(of: type[StageOptions]) -> tuple[Field, ...]:
    """The fields of a stage's options, its own before those of the classes above."""
    known: Any = of  # a class has a hash, which mypy denies those of such instances
    return _fields(known)


def spelled_fields(of: type[StageOptions]) -> Iterator[Field]:
    """Those that the command line has: with the options that are handed on to other stages in place of their field."""
    for field in option_fields(of):
        yield from field.option.fields().values() if isinstance(field.option, Forwarded) else [field]


@cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


@cache
def _fields(of: Any) -> tuple[Field, ...]:
    hints = [(above, _hints(above)) for above in of.__mro__]
    own: dict[str, int] = {}
    for depth, (above, _) in enumerate(hints):
        for name in vars(above).get("__annotations__", ()):
            own.setdefault(name, depth)
    found = []
    for one in sorted(fields(of), key=lambda one: own[one.name]):
        kind = hints[0][1][one.name]
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        known = (_option_of(above, one.name, hint[one.name]) for above, hint in hints if one.name in hint)
        option = next((told for told in known if told is not None), None)
        if option is not None:
            found.append(Field(one.name, kind, one.default, option))
    return tuple(found)


def _option_of(of: type, name: str, hint: Any) -> Option | None:
    """What a class itself, or one above it, says of a field; None where it only gives another default."""
    told = getattr(of, "__dataclass_fields__", {})[name].metadata.get("option")
    return told or next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Option)), None)


def _check(field: Field, value: Any) -> None:
    if isinstance(field.option, Forwarded):
        inner = field.option.fields()
        for name, one in value.items():
            _check(inner[name], one)
        return
    if value is None or isinstance(value, bool):
        return
    if field.choices and value not in field.choices:
        raise UsageError(f"{field.flag} {value}", f"choose {' or '.join(map(str, field.choices))}")
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(one, int) and abs(one) > MOST_INT:
            raise UsageError(f"{field.flag} {one}", f"give a number of at most {MOST_INT}")
        if isinstance(one, (int, float)) and not field.option.holds(one):
            raise UsageError(
                f"{field.flag} {one:g}" if isinstance(one, float) else f"{field.flag} {one}", field.option.bounds
            )


def is_optional(kind: Any) -> bool:
    """Whether a type holds None."""
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)
