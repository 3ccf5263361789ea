"""`idgr export`: a prepared data set in the files of other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from idgr.errors import UsageError


class Peer(StrEnum):
    recbole = "recbole"
    cornac = "cornac"
    trec = "trec"


def export(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder that `idgr prep` wrote.")],
    to: Annotated[Peer, typer.Option("--to", help="Whose files to write.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The folder to write.")],
    recs: Annotated[
        str | None, typer.Option(help="recs.jsonl, to be written as run.trec (trec only); - is standard input.")
    ] = None,
    max_history: Annotated[
        int | None, typer.Option(min=1, help="Newest items of a history that are written (recbole only; default: 50).")
    ] = None,
) -> None:
    """Write the split for RecBole or cornac, or truth and recommendations for trec_eval; held-out items in own files.

    RecBole and cornac score what they recommend, so their folders hold the test targets too: recbole in
    NAME.test.inter, cornac in test.usit. Nothing else holds them. Keys with white space are written as in a URL.

    Example: idgr export data/beauty/ --to recbole -o exported/beauty/

    Example: idgr export data/beauty/ --to trec --recs recs.jsonl -o trec/
    """
    from idgr.formats.jsonl import STDOUT, replace_folder

    if output == STDOUT:
        raise UsageError("export writes a folder, not standard output", "give the name of a folder to -o")
    if recs is not None and to is not Peer.trec:
        raise UsageError(f"--recs does not go with --to {to.value}", "leave it out, or give --to trec")
    if max_history is not None and to is not Peer.recbole:
        raise UsageError(f"--max-history does not go with --to {to.value}", "leave it out, or give --to recbole")

    from idgr.formats.exchange.prepared import read_prepared
    from idgr.formats.records import read_recommendations
    from idgr.formats.run_info import RunInfo
    from idgr.progress import log

    options = {"to": to.value} | ({"max-history": max_history or 50} if to is Peer.recbole else {})
    run = RunInfo("export", options, {"data": data, "recs": recs}, outputs=[output])
    with replace_folder(output, run.command, run.inputs.values()) as folder:
        prepared = read_prepared(data)
        if to is Peer.recbole:
            from idgr.formats.exchange.recbole import write_recbole

            write_recbole(folder, Path(output).resolve().name, prepared, max_history or 50)
        elif to is Peer.cornac:
            from idgr.formats.exchange.cornac import write_cornac

            write_cornac(folder, prepared)
        else:
            from idgr.formats.exchange.trec import write_trec

            known = {item.item_id for item in prepared.items}
            users = {target.user_id for target in (*prepared.valid, *prepared.test)}
            write_trec(folder, prepared, None if recs is None else read_recommendations(recs, known, users))
        run.write(output, folder)
    log(
        f"export: {len(prepared.items):,} items, {len(prepared.train):,} training sequences, "
        f"{len(prepared.valid):,} and {len(prepared.test):,} held-out targets in {output}"
    )
