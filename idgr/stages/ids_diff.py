"""`idgr ids diff`: which IDs changed between two rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, dump_line
from idgr.options import Role, StageOptions, argument, option, output_option
from idgr.stages.options import run_info


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Show which IDs changed, beside the items' texts; items that only one file has are listed and counted apart.

    Example: idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl
    """

    before: str = argument("The earlier ids.jsonl.", "BEFORE")
    after: str = argument("The later ids.jsonl.", "AFTER")
    items: str = option("items.jsonl, for the texts beside the IDs.", role=Role.INPUT)
    output: str = output_option("A line per item that differs.", STDOUT)
    show: int = option("Rows of the table on standard error.", 20, role=Role.RUN, at_least=0)


@dataclass(frozen=True)
class IdDiff:
    """How two files of IDs differ.

    Attributes:
        rows: an item each: `item_id`, `before` and `after` (None where a file lacks the item), `text`.
        n_both: how many items both files have.
    """

    rows: list[dict[str, Any]]
    n_both: int


def run(options: Options) -> IdDiff:
    """Compare two files of IDs, and write the rows.

    Raises:
        IdgrError: a file is broken.
    """
    from idgr.formats.records import read_ids, read_items
    from idgr.ids.diff import id_changes

    check_file(options.output)
    info = run_info("ids diff", options)
    texts = {item.item_id: item.text for item in read_items(options.items)}
    old, new = read_ids(options.before), read_ids(options.after)
    changes = id_changes(old, new)
    rows = [
        {"item_id": change.item_id, "before": change.before, "after": change.after, "text": texts.get(change.item_id)}
        for change in changes
    ]
    with info.replace_file(options.output) as written:
        written.writelines(map(dump_line, rows))
    return IdDiff(rows, len(new) - sum(change.before is None for change in changes))
