"""`idgr recommend`: the best items after each history."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Annotated, Any, Literal

import typer

from idgr.cli.answers import ask_baseline, ask_item_model, ask_recommender, check_item_model_options
from idgr.errors import UsageError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, dump_line, read_jsonl, replace_file
from idgr.formats.rec_folder import item_model_type
from idgr.formats.records import Query
from idgr.formats.run_info import RunInfo
from idgr.progress import log, progress

# So many batches are read before they are sorted by length; a batch of one answers line by line.
_BATCHES_A_BLOCK = 16


def recommend(
    histories: Annotated[
        str, typer.Argument(metavar="HISTORIES", help="test.jsonl, or any user_id and history a line; - for stdin.")
    ],
    rec: Annotated[
        str | None,
        typer.Option("--rec", help="A folder of `idgr train-rec`, `train-sasrec` or `train-two-tower`."),
    ] = None,
    ids: Annotated[
        str | None, typer.Option("--ids", help="The ids.jsonl that it was trained on; none for a model of items.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write the recommendations.")] = STDOUT,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", help="An adapter of `idgr train-adapter`, of this --rec; off if not given."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Items for each history.")] = 10,
    beams: Annotated[int, typer.Option("--beams", help="Prefixes that beam search follows.")] = 20,
    normalize: Annotated[
        Literal["full", "trie"] | None,
        typer.Option("--normalize", help="Softmax over vocabulary or valid children; as trained if not given."),
    ] = None,
    length_penalty: Annotated[
        float, typer.Option("--length-penalty", help="A score is divided by its ID's length to this power.")
    ] = 0.0,
    search: Annotated[
        Literal["beam", "exact"], typer.Option("--search", help="Beam search, or the proven best items.")
    ] = "beam",
    keep_history: Annotated[
        bool, typer.Option("--keep-history", help="Items of the history may be recommended again.")
    ] = False,
    allow: Annotated[str | None, typer.Option("--allow", help="Only the items of this file, one key a line.")] = None,
    template: Annotated[int, typer.Option("--template", help="Which of the recommender's templates, from 0.")] = 0,
    gen: Annotated[
        str | None, typer.Option("--gen", help="The ID generator, where the recommender was trained with user IDs.")
    ] = None,
    items: Annotated[str | None, typer.Option("--items", help="items.jsonl, for the same.")] = None,
    prompts: Annotated[str | None, typer.Option("--prompts", help="Write what the model was shown here.")] = None,
    baseline: Annotated[
        Literal["popularity", "markov"] | None,
        typer.Option("--baseline", help="Instead of a recommender, one of these; needs --train."),
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="train.jsonl, for --baseline.")] = None,
    trie: Annotated[
        str | None, typer.Option("--trie", help="Keep the prefix tree of the IDs here from one run to the next.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Histories at a time; with 1 each line is answered at once.")
    ] = 32,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Only every Nth history, from the Ith.")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option("--precision", help="Of the model's weights.")] = "fp32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Take IDs that the recommender was not trained on.")] = False,
) -> None:
    """Recommend items after each history, by a recommender's scores or a baseline's rule.

    Example: idgr recommend data/beauty/test.jsonl --rec rec/ --ids ids.jsonl -k 10 -o recs.jsonl
    """
    given = {name.replace("_", "-"): value for name, value in locals().items()}
    inputs: dict[str, str | os.PathLike[str] | None] = {
        "histories": histories,
        "rec": rec,
        "ids": ids,
        "adapter": adapter,
        "allow": allow,
        "train": train,
        "gen": gen,
        "items": items,
    }
    _check_conflicts(inputs, output, prompts, baseline, given)
    shaping = {
        name: value for name, value in given.items() if name not in {*inputs, "output", "prompts", "trie", "device"}
    }
    run = RunInfo("recommend", shaping, inputs)

    from idgr.ids.shards import parse_shard

    part = parse_shard(shard) if shard is not None else None
    if baseline is not None:
        asked = ask_baseline(given)
    elif item_model_type(str(rec)) is not None:
        asked = ask_item_model(given)
    else:
        asked = ask_recommender(given)
    run.options |= asked.settled

    def parse(row: dict[str, Any]) -> Query:
        query = Query.parse(row | {"target": None})  # a target has no way to what is recommended
        for item in query.history:
            if asked.known is not None and item not in asked.known:
                raise ValueError(f"unknown item {item!r}; {asked.cure}")
        return query

    stream: Iterable[Query] = read_jsonl(histories, parse)
    if part is not None:
        stream = islice(stream, part.number - 1, None, part.of)
    block = 1 if batch_size == 1 else batch_size * _BATCHES_A_BLOCK
    short = done = 0
    with ExitStack() as files:
        written = files.enter_context(replace_file(output))
        written_prompts = files.enter_context(replace_file(prompts)) if prompts is not None else None
        for queries in _blocks(progress(stream, "recommend", unit="histories"), block):
            for row in asked.answer(queries):
                written.write(dump_line(row.row()))
                short += len(row.items) < k
                done += 1
            written.flush()
            if written_prompts is not None and asked.shown is not None:
                written_prompts.writelines(dump_line(asked.shown(query)) for query in queries)
    if short:
        log(f"recommend: {short} of {done} histories have fewer than {k} items")
    if done and asked.expanded is not None:
        run.facts["expansions"] = round(asked.expanded() / done, 1)
        log(f"recommend: {run.facts['expansions']} prefixes expanded for each history, to prove its items the best")
    run.write(output)
    if prompts is not None:
        run.write(prompts)


def _check_conflicts(
    inputs: dict[str, str | os.PathLike[str] | None],
    output: str,
    prompts: str | None,
    baseline: str | None,
    given: dict[str, Any],
) -> None:
    if list(inputs.values()).count(STDIN) > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    written = [name for name in (output, prompts, given["trie"]) if name is not None]
    if len(set(written)) < len(written):
        raise UsageError("-o, --prompts and --trie name the same file", "give each its own")
    for name in written:
        check_file(name)
    if given["k"] < 1:
        raise UsageError(f"-k {given['k']}", "ask for at least one item")
    if baseline is None:
        of_items = inputs["rec"] is not None and item_model_type(inputs["rec"]) is not None
        if inputs["rec"] is None or (inputs["ids"] is None and not of_items):
            raise UsageError("a recommender needs --rec and --ids", "give both, or --baseline with --train")
        if of_items:
            check_item_model_options(given)
        if inputs["train"] is not None:
            raise UsageError("--train is for --baseline", "leave it out")
        return
    if inputs["train"] is None:
        raise UsageError(f"--baseline {baseline} needs --train", "give train.jsonl")
    asks = [given[name] for name in ("rec", "adapter", "prompts", "trie", "gen", "items")]
    if any(value is not None for value in asks):
        todo = "leave --rec, --adapter, --prompts, --trie, --gen and --items out"
        raise UsageError("--baseline asks no model", todo)


def _blocks(stream: Iterable[Query], size: int) -> Iterator[list[Query]]:
    stream = iter(stream)
    while block := list(islice(stream, size)):
        yield block
