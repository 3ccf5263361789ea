"""When something happened: numbers whose size tells their unit, or ISO dates, in microseconds since 1970 (UTC).

Legend: E events.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from idgr.errors import IdgrError

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Seconds reach 1e11 in the year 5138, milliseconds 1e14 in the same, and so on, so dates after 1973 are told apart.
_BELOW = (1e11, 1e14, 1e17)  # seconds, milliseconds, microseconds; nanoseconds above
_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_2100 = 4_102_444_800  # seconds
LATE = _2100 * 1_000_000  # microseconds: no event of real data is as late
_NO_DATE = (253_402_300_799 - 86_400, 253_402_300_799 + 86_400)  # the last second of 9999, in any zone
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_LONGEST = 1_000  # characters of a time
_COMPACT_DATE = re.compile(r"(?:19|20)\d\d(?:0\d|1[0-2])[0-3]\d")


def parse_date(text: str) -> int:
    """Microseconds since 1970 of an ISO date or date and time; UTC where it names no zone. Raises `ValueError`."""
    text = text.strip()
    moment = datetime.fromisoformat(f"{text[:-4]}Z" if text.endswith((" UTC", " GMT")) else text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def is_number(text: str) -> bool:
    """Whether a text is a finite number, as a table or a record with quotes around its numbers has it."""
    return _NUMBER.fullmatch(text.strip()) is not None


def is_date(value: Any) -> bool:
    """Whether a value is to be read as a date: a text that is no number, or one such as 20190301."""
    if not isinstance(value, str) or _is_missing(value):
        return False
    return not is_number(value) or _COMPACT_DATE.fullmatch(value) is not None


def _is_missing(value: Any) -> bool:
    """Whether a value is what tables and records have where there is none."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan", "null", "none"))


def parse_time(record: dict[str, Any], name: str, *, dated: bool) -> int | float:
    """The time under `name`: a number as it stands or, if `dated`, a date as microseconds. Raises `ValueError`."""
    value = record.get(name)
    if dated and isinstance(value, str) and not _is_missing(value):
        try:
            time = parse_date(value)
        except ValueError:
            raise ValueError(f'"{name}" is not a date; write it like 2019-03-01 12:00:00') from None
        if value.strip().startswith("9999"):
            raise ValueError(f'"{name}" is in the year 9999, which stands for no date; leave the event out')
        return time
    if not dated and isinstance(value, str) and is_number(value):
        # Python reads no whole number of thousands of digits, and none of so many is in range.
        value = float(value) if len(value) > _LONGEST or re.search(r"[.eE]", value) else int(value)
    if not dated and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) < 2**62:
            raise ValueError(f'"{name}" is out of range; give seconds or milliseconds since 1970')
        return value
    if name not in record:
        raise ValueError(f'no "{name}"; give every event its time')
    form = "date" if dated else "number"
    if _is_missing(value):
        raise ValueError(f'"{name}" is not a {form} but missing, null or NaN; give every event its time')
    raise ValueError(f'"{name}" is not a {form} as in the first record; use one form of time')


def microseconds(time: npt.NDArray[Any]) -> Int64s:
    """Times in microseconds; the size of each [E] tells its unit (seconds, or milli-, micro- or nanoseconds)."""
    if len(time) == 0:
        return np.zeros(0, dtype=np.int64)
    smallest, largest = _sizes(time)
    if _unit(smallest) == _unit(largest):
        return _scaled(time, _unit(largest))
    unit = np.digitize(np.abs(time), _BELOW)
    whole = np.zeros(len(time), dtype=np.int64)
    for which in range(len(_UNITS)):
        whole[unit == which] = _scaled(time[unit == which], which)
    return whole


def check_units(time: npt.NDArray[Any], line: Int32s, source: str) -> None:
    """Refuse times whose unit their size does not tell, where those of a file are in several units.

    Args:
        time: [E] as they stand in the file.
        line: [E] the lines that they stand in.
        source: the file, for the message.

    Raises:
        IdgrError: naming the first line whose time could be in either unit, or is the last day of 9999.
    """
    if len(time) == 0:
        return
    smallest, largest = _sizes(time)
    first, last = _unit(smallest), _unit(largest)
    for smaller in range(first, last):
        scale = 1_000**smaller
        no_date = (time >= _NO_DATE[0] * scale) & (time <= _NO_DATE[1] * scale)
        if no_date.any():
            at = int(no_date.argmax())
            raise IdgrError(
                f"the time {time[at]} is the end of the year 9999, which stands for no date",
                "leave the event out or give its time",
                where=source,
                line=int(line[at]),
            )
        unclear = (time >= _2100 * scale) & (time < _BELOW[smaller])
        if unclear.any():
            at = int(unclear.argmax())
            raise IdgrError(
                f"the time {time[at]} could be in {_UNITS[smaller]} (after 2100) or in {_UNITS[last]} as others here "
                "are (before 1974)",
                "give all times in one unit",
                where=source,
                line=int(line[at]),
            )


def _sizes(time: npt.NDArray[Any]) -> tuple[float, float]:
    """The smallest size but 0, which is the same in all units, and the largest."""
    low, high = float(time.min()), float(time.max())
    largest = max(abs(low), abs(high))
    if low > 0 or not largest:
        return low, largest
    sizes = np.abs(time)
    return float(sizes[sizes > 0].min()), largest


def _unit(size: float) -> int:
    return sum(size >= bound for bound in _BELOW)


def _scaled(time: npt.NDArray[Any], unit: int) -> Int64s:
    time = time // 1_000 if unit == len(_BELOW) else time * 10 ** (6 - 3 * unit)
    return (np.rint(time) if time.dtype.kind == "f" else time).astype(np.int64)
