"""`idgr import`: another program's recommendations as recs.jsonl."""

from __future__ import annotations

from dataclasses import dataclass

from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, dump_line
from idgr.options import Role, StageOptions, argument, option, output_option
from idgr.stages.options import run_info


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Turn a TREC run into recs.jsonl, in the order in which trec_eval would score it.

    Example: idgr import run.trec --users data/beauty/test.jsonl -o recs.jsonl
    """

    run: str = argument("A TREC run, or - for standard input.", "RUN")
    output: str = output_option("Where to write recs.jsonl.", STDOUT)
    users: str | None = option("test.jsonl: its users without a line in RUN get an empty list.", None, role=Role.INPUT)


def run(options: Options) -> None:
    """Write the recommendations of a TREC run as recs.jsonl.

    Raises:
        IdgrError: a line is broken.
    """
    from idgr.formats.exchange.trec import read_run
    from idgr.formats.records import read_queries

    check_file(options.output)
    info = run_info("import", options)
    wanted = [] if options.users is None else [query.user_id for query in read_queries(options.users)]
    with info.replace_file(options.output) as written:
        written.writelines(dump_line(row.row()) for row in read_run(options.run, wanted))
