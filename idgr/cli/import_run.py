"""`idgr import`: another program's recommendations as recs.jsonl."""

from __future__ import annotations

from typing import Annotated

import typer

from idgr.errors import UsageError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, dump_line


def import_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A TREC run, or - for standard input.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write recs.jsonl.")] = STDOUT,
    users: Annotated[
        str | None, typer.Option(help="test.jsonl: its users without a line in RUN get an empty list.")
    ] = None,
) -> None:
    """Turn a TREC run into recs.jsonl, in the order in which trec_eval would score it.

    Example: idgr import run.trec --users data/beauty/test.jsonl -o recs.jsonl
    """
    if run == users == STDIN:
        raise UsageError("two inputs are standard input", "give a file for one of them")
    check_file(output)

    from idgr.formats.exchange.trec import read_run
    from idgr.formats.records import read_queries
    from idgr.formats.run_info import RunInfo

    info = RunInfo("import", {}, {"run": run, "users": users}, outputs=[output])
    wanted = [] if users is None else [query.user_id for query in read_queries(users)]
    with info.replace_file(output) as written:
        written.writelines(dump_line(row.row()) for row in read_run(run, wanted))
