"""`idgr bench`: contenders side by side, one JSON line each."""

from __future__ import annotations

from typing import Annotated

import typer

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import STDIN, STDOUT, write_jsonl

app = typer.Typer(no_args_is_help=True)

Output = Annotated[str, typer.Option("-o", "--output", help="JSON Lines, one per contender; - is standard output.")]


@app.callback()
def _bench() -> None:
    """Measure idgr beside other ways to do the same, in one run.

    Example: idgr bench prep --rows 200000
    """


@app.command("prep")
def prep_command(
    reviews: Annotated[
        str | None, typer.Argument(metavar="[REVIEWS]", help="A gzipped Amazon review dump; made up if not given.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the dump that is made up.")] = 200_000,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each contender runs.")] = 3,
    memory_events: Annotated[
        int | None, typer.Option(min=1000, help="Instead, prepare so many made-up events and tell the peak memory.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is made up.")] = 0,
    output: Output = STDOUT,
) -> None:
    """Time the reading of a review dump beside pandas, or measure the memory of a whole prep.

    Example: idgr bench prep --rows 200000 --repeats 5
    """
    if reviews == STDIN:
        raise UsageError("bench reads its input several times, so not from standard input", "give a file")
    if reviews is not None and memory_events is not None:
        raise UsageError("--memory-events makes its own dump", "give either it or a dump")

    from idgr.bench.prep import bench_memory, bench_reading

    if memory_events is not None:
        write_jsonl(output, [bench_memory(memory_events, seed=seed)])
        return
    from importlib.util import find_spec

    if find_spec("pandas") is None:
        raise IdgrError("pandas, which idgr is compared with, is not installed", "pip install 'idgr[bench]'")
    write_jsonl(output, bench_reading(reviews, rows=rows, repeats=repeats, seed=seed))
