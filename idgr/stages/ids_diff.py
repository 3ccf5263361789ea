"""`idgr ids diff`: which IDs changed between two rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, write_jsonl
from idgr.options import Option, Role, StageOptions, argument, output_option
from idgr.progress import log
from idgr.stages.options import run_info


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Show which IDs changed, beside the items' texts; items that only one file has are listed and counted apart.

    Example: idgr ids diff runs/beauty/round-1/ids.jsonl runs/beauty/round-2/ids.jsonl --items data/beauty/items.jsonl
    """

    before: Annotated[str, argument("The earlier ids.jsonl.", "BEFORE")]
    after: Annotated[str, argument("The later ids.jsonl.", "AFTER")]
    items: Annotated[str, Option("items.jsonl, for the texts beside the IDs.", role=Role.INPUT)]
    output: Annotated[str, output_option("A line per item that differs.")] = STDOUT
    show: Annotated[int, Option("Rows of the table on standard error.", role=Role.RUN, at_least=0)] = 20


def run(options: Options) -> list[dict[str, Any]]:
    """Compare two files of IDs.

    Returns:
        A row per item that differs: `item_id`, `before`, `after` (None where a file lacks the item) and `text`.

    Raises:
        IdgrError: a file is broken.
    """
    from idgr.formats.records import read_ids, read_items
    from idgr.ids.diff import changed_share, id_changes

    check_file(options.output)
    info = run_info("ids diff", options)
    texts = {item.item_id: item.text for item in read_items(options.items)}
    old, new = read_ids(options.before), read_ids(options.after)
    changes = id_changes(old, new)
    rows = [
        {"item_id": change.item_id, "before": change.before, "after": change.after, "text": texts.get(change.item_id)}
        for change in changes
    ]
    info.check_unchanged()
    write_jsonl(options.output, rows)
    info.write(options.output)
    gone = sum(change.after is None for change in changes)
    come = sum(change.before is None for change in changes)
    n_changed = sum(change.of_both for change in changes)
    line = f"{n_changed} changes, {changed_share(old, new):.1%} of {len(new) - come} items that both files have"
    line += f"; {come} items only in {options.after}, {gone} only in {options.before}" if come or gone else ""
    log(f"ids diff: {line}")
    return rows
