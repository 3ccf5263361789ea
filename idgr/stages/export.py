"""`idgr export`: a prepared data set in the files of other programs, or a recommender for them to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from idgr.errors import UsageError
from idgr.formats.jsonl import STDOUT, replace_folder
from idgr.options import Role, StageOptions, argument, option, output_option
from idgr.progress import log
from idgr.stages.options import run_info

if TYPE_CHECKING:
    from idgr.formats.exchange.prepared import PreparedData

MAX_HISTORY = 50
BEAMS = 20


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Write the split for RecBole or cornac, truth and lists for trec_eval, or a recommender for transformers.

    RecBole and cornac score what they recommend, so their folders hold the test targets too: recbole in
    NAME.test.inter, cornac in test.usit. Nothing else holds them. Keys with white space are written as in a URL. For
    transformers, DATA is a recommender, and the folder runs without idgr; see docs/serving.md.

    Example: idgr export data/beauty/ --to recbole -o exported/beauty/

    Example: idgr export data/beauty/ --to trec --recs recs.jsonl -o trec/

    Example: idgr export rec/ --to transformers --ids ids.jsonl -o served/
    """

    data: str = argument("A folder that `idgr prep` wrote; for transformers, one of `idgr train-rec`.", "DATA")
    to: Literal["recbole", "cornac", "trec", "transformers"] = option("Whose files to write.")
    output: str = output_option("The folder to write.")
    recs: str | None = option(
        "recs.jsonl, to be written as run.trec (trec only); - is standard input.", None, role=Role.INPUT
    )
    max_history: int | None = option(
        f"Newest items of a history that are written (recbole only; default: {MAX_HISTORY}).", None, at_least=1
    )
    ids: str | None = option(
        "IDs of the catalogue, old items with those of the training (transformers only; default: DATA/ids.jsonl).",
        None,
        role=Role.INPUT,
    )
    beams: int | None = option(
        f"Prefixes that are followed, and answers (transformers only; default: {BEAMS}).", None, at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output == STDOUT:
            raise UsageError("export writes a folder, not standard output", "give the name of a folder to -o")
        for flag, value, peer in (
            ("--recs", self.recs, "trec"),
            ("--max-history", self.max_history, "recbole"),
            ("--ids", self.ids, "transformers"),
            ("--beams", self.beams, "transformers"),
        ):
            if value is not None and self.to != peer:
                raise UsageError(f"{flag} does not go with --to {self.to}", f"leave it out, or give --to {peer}")


def run(options: Options) -> None:
    """Write a data set, or a recommender, for another program.

    Raises:
        IdgrError: the folder is no prepared data set, or the recommendations are not of its users and items; or it is
            no recommender that others can run, or not of these IDs.
    """
    if options.to == "transformers":
        _export_recommender(options)
        return
    from idgr.formats.exchange.prepared import read_prepared

    info = run_info("export", options)
    # run.json has the length as it was used, and nothing where it means nothing.
    info.options = {"to": options.to}
    if options.to == "recbole":
        info.options["max-history"] = options.max_history or MAX_HISTORY
    output = options.output
    with replace_folder(output, info.command, info.inputs.values()) as folder:
        prepared = read_prepared(options.data)
        _write(prepared, options, folder)
        info.write(output, folder)
    log(
        f"export: {len(prepared.items):,} items, {len(prepared.train):,} training sequences, "
        f"{len(prepared.valid):,} and {len(prepared.test):,} held-out targets in {output}"
    )


def _export_recommender(options: Options) -> None:
    from idgr.formats.rec_folder import IDS, check_ids_grown, read_item_head_weight
    from idgr.formats.records import read_ids
    from idgr.recommender.serving import load_for_serving, write_serving

    info = run_info("export", options)
    info.options = {"to": options.to, "beams": options.beams or BEAMS}
    ids = options.ids or str(Path(options.data) / IDS)
    with replace_folder(options.output, info.command, info.inputs.values()) as folder:
        backbone, facts = load_for_serving(options.data)
        catalogue = read_ids(ids)
        check_ids_grown(facts, catalogue, options.data, ids, or_force=False)
        write_serving(folder, backbone, facts, catalogue, options.beams or BEAMS)
        info.write(options.output, folder)
    if read_item_head_weight(options.data):
        log("export: without the item head, as `idgr recommend --item-head-weight 0` ranks")
    log(f"export: {options.data} with {len(catalogue):,} items for transformers in {options.output}")


def _write(prepared: PreparedData, options: Options, folder: Path) -> None:
    if options.to == "recbole":
        from idgr.formats.exchange.recbole import write_recbole

        write_recbole(folder, Path(options.output).resolve().name, prepared, options.max_history or MAX_HISTORY)
    elif options.to == "cornac":
        from idgr.formats.exchange.cornac import write_cornac

        write_cornac(folder, prepared)
    else:
        from idgr.formats.exchange.trec import write_trec
        from idgr.formats.records import read_recommendations

        known = {item.item_id for item in prepared.items}
        users = {target.user_id for target in (*prepared.valid, *prepared.test)}
        recs = None if options.recs is None else read_recommendations(options.recs, known, users)
        write_trec(folder, prepared, recs)
