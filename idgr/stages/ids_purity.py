"""`idgr ids purity`: how alike the items are that share first words of an ID."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idgr.errors import IdgrError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, dump_line
from idgr.options import Role, StageOptions, argument, option, output_option
from idgr.progress import log
from idgr.stages.options import run_info

if TYPE_CHECKING:
    from idgr.ids.purity import Purity


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Show how alike the items are that share first words of an ID: the entropy of their categories, beside chance.

    Example: idgr ids purity ids.jsonl --items data/beauty/items.jsonl --category-depth 2
    """

    ids: str = argument("ids.jsonl.", "IDS")
    items: str = option("items.jsonl, which lists categories.", role=Role.INPUT)
    category_field: str = option("The field that lists categories, widest first.", "categories")
    category_depth: int = option("So many of them tell categories apart.", 2, at_least=1)
    draws: int = option("Random assignments to compare with.", 5, at_least=1)
    seed: int = option("Seed of the random assignments.", 0, role=Role.RUN, at_least=0)
    output: str = output_option("A line per level, from no words on.", STDOUT)


def run(options: Options) -> list[Purity]:
    """Measure the purity of prefixes.

    Returns:
        That of each number of first words, from none on.

    Raises:
        IdgrError: an item of the IDs is not in the catalogue, or no item has the field.
    """
    from idgr.formats.records import read_ids, read_items
    from idgr.ids.purity import purities
    from idgr.ids.schemes.category import category_paths

    check_file(options.output)
    info = run_info("ids purity", options)
    catalogue = {item.item_id: item for item in read_items(options.items)}
    known = read_ids(options.ids)
    strange = next((record.item_id for record in known if record.item_id not in catalogue), None)
    if strange is not None:
        what = f"has no item {strange!r}, of which {options.ids} has an ID"
        raise IdgrError(what, "give the items of the IDs", where=options.items)
    items = [catalogue[record.item_id] for record in known]
    categories = category_paths(items, options.category_field, options.category_depth)
    found = purities([record.id for record in known], categories, draws=options.draws, seed=options.seed)
    with info.replace_file(options.output) as written:
        written.writelines(dump_line(one.row()) for one in found)
    log(f"ids purity: {len(known)} items, {len(set(categories))} categories")
    return found
