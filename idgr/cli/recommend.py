"""`idgr recommend`: the best items after each history."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import STDIN, STDOUT, Lines, dump_line, read_jsonl, replace_file
from idgr.formats.rec_folder import RecommenderFacts, check_ids_known, read_recommender_facts
from idgr.formats.records import Query, Recommendation, read_ids, read_sequences
from idgr.formats.run_info import RunInfo
from idgr.progress import log, progress

if TYPE_CHECKING:
    from idgr.evaluation.recommending import Recommender
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer

# So many batches are read before they are sorted by length; a batch of one answers line by line.
_BATCHES_A_BLOCK = 16


def recommend(
    histories: Annotated[
        str, typer.Argument(metavar="HISTORIES", help="test.jsonl, or any user_id and history a line; - for stdin.")
    ],
    rec: Annotated[str | None, typer.Option("--rec", help="The recommender, a folder of `idgr train-rec`.")] = None,
    ids: Annotated[str | None, typer.Option("--ids", help="The ids.jsonl that the recommender was trained on.")] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write the recommendations.")] = STDOUT,
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
    """Recommend items after each history, by the scores of their IDs.

    Example: idgr recommend data/beauty/test.jsonl --rec rec/ --ids ids.jsonl -k 10 -o recs.jsonl
    """
    given = {name.replace("_", "-"): value for name, value in locals().items()}
    inputs: dict[str, str | os.PathLike[str] | None] = {
        "histories": histories,
        "rec": rec,
        "ids": ids,
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
    known: Container[str] | None
    answer: Callable[[Sequence[Query]], list[Recommendation]]
    shown: Callable[[Query], dict[str, Any]] | None = None
    expanded: Callable[[], int] | None = None
    if baseline is not None:
        known, answer = _baseline(baseline, str(train), ids, allow, k, keep_history)
    else:
        recommender = _recommender(given)
        run.options["normalize"] = recommender.search.options.normalize
        known, answer = recommender.number, recommender.recommend
        shown = _shower(recommender)
        expanded = _expansion_counter(recommender)

    def parse(row: dict[str, Any]) -> Query:
        query = Query.parse(row | {"target": None})  # a target has no way to what is recommended
        for item in query.history:
            if known is not None and item not in known:
                raise ValueError(f"unknown item {item!r}; give IDs that cover every history")
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
            for row in answer(queries):
                written.write(dump_line(row.row()))
                short += len(row.items) < k
                done += 1
            written.flush()
            if written_prompts is not None and shown is not None:
                written_prompts.writelines(dump_line(shown(query)) for query in queries)
    if short:
        log(f"recommend: {short} of {done} histories have fewer than {k} items")
    if done and expanded is not None:
        run.facts["expansions"] = round(expanded() / done, 1)
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
    if given["k"] < 1:
        raise UsageError(f"-k {given['k']}", "ask for at least one item")
    if baseline is None:
        if inputs["rec"] is None or inputs["ids"] is None:
            raise UsageError("a recommender needs --rec and --ids", "give both, or --baseline with --train")
        if inputs["train"] is not None:
            raise UsageError("--train is for --baseline", "leave it out")
        return
    if inputs["train"] is None:
        raise UsageError(f"--baseline {baseline} needs --train", "give train.jsonl")
    asks = [given[name] for name in ("rec", "prompts", "trie", "gen", "items")]
    if any(value is not None for value in asks):
        raise UsageError("--baseline asks no model", "leave --rec, --prompts, --trie, --gen and --items out")


def _recommender(given: dict[str, Any]) -> Recommender:
    """The recommender that the options, by their names, ask for."""
    rec, ids, trie_file = str(given["rec"]), str(given["ids"]), given["trie"]
    catalogue = read_ids(ids)

    import torch

    from idgr.decoding.beam import SearchOptions
    from idgr.decoding.trie import build_trie, load_trie, save_trie
    from idgr.evaluation.recommending import Recommender, catalogue_fingerprint
    from idgr.evaluation.trained_prompts import causal_renderer_of, renderer_of, user_ids_of
    from idgr.models.backbone import load_backbone, load_causal_backbone
    from idgr.models.llama import fit_item_slots
    from idgr.prompts.templates import load_templates
    from idgr.training.device import pick_device
    from idgr.training.recommender import id_tokens

    untrained = RecommenderFacts("full", load_templates(), 20, 512, "") if given["force"] else None
    facts = read_recommender_facts(rec, untrained)
    if not given["force"]:
        check_ids_known(facts, catalogue, rec, ids)
    exact = given["search"] == "exact"
    beams = max(given["beams"], given["k"]) if exact else given["beams"]
    options = SearchOptions(given["k"], beams, given["length-penalty"], given["normalize"] or facts.objective)
    keys = [record.item_id for record in catalogue]
    allowed = None if given["allow"] is None else _read_keys(given["allow"], set(keys))

    where = pick_device(given["device"])
    backbone = load_backbone(rec) if facts.arch == "t5" else load_causal_backbone(rec)
    backbone.model.to(device=where, dtype=torch.bfloat16 if given["precision"] == "bf16" else torch.float32)
    fingerprint = catalogue_fingerprint(catalogue, backbone.tokenizer) if trie_file is not None else ""
    trie = load_trie(trie_file, fingerprint) if trie_file is not None and Path(trie_file).exists() else None
    if trie is None:
        rows = id_tokens(backbone.tokenizer, [record.id for record in catalogue])
        trie = build_trie(rows, backbone.tokenizer.eos_token_id)
        if trie_file is not None:
            save_trie(trie, trie_file, fingerprint)
    else:
        rows = trie.tokens()
    strange = bool(given["force"])
    named = user_ids_of(facts, given["gen"], given["items"], keys, backbone.tokenizer, where, strange=strange)
    renderer: PromptRenderer | HistoryRenderer
    if facts.arch == "causal":
        fit_item_slots(backbone.model, rows, new=False)
        renderer = causal_renderer_of(facts, backbone.tokenizer, rows)
    else:
        renderer = renderer_of(facts, backbone.tokenizer, rows, named)
    return Recommender(
        backbone,
        keys,
        renderer,
        trie,
        options,
        template=given["template"],
        allowed=allowed,
        keep_history=given["keep-history"],
        exact=exact,
        batch_size=given["batch-size"],
    )


def _shower(recommender: Recommender) -> Callable[[Query], dict[str, Any]]:
    from idgr.models.tokenizer import decode

    def shown(query: Query) -> dict[str, Any]:
        tokens = recommender.prompt(query)
        return {"user_id": query.user_id, "text": decode(recommender.tokenizer, [tokens])[0], "tokens": tokens}

    return shown


def _expansion_counter(recommender: Recommender) -> Callable[[], int] | None:
    """Tells how many prefixes exact search has expanded; None for another search."""
    from idgr.decoding.exact import ExactSearch

    search = recommender.search
    return (lambda: search.expanded) if isinstance(search, ExactSearch) else None


def _baseline(
    name: str, train: str, ids: str | None, allow: str | None, k: int, keep_history: bool
) -> tuple[set[str] | None, Callable[[Sequence[Query]], list[Recommendation]]]:
    from idgr.evaluation.baselines import fit_markov, fit_popularity

    known = None if ids is None else {record.item_id for record in read_ids(ids)}
    sequences = [sequence.items for sequence in read_sequences(train, known)]
    model = fit_markov(sequences) if name == "markov" else fit_popularity(sequences)
    allowed = known if allow is None else _read_keys(allow, known)

    def answer(queries: Sequence[Query]) -> list[Recommendation]:
        rows = []
        for query in queries:
            left_out = () if keep_history else frozenset(query.history)
            items = model.recommend(query.history, k, leave_out=left_out, allowed=allowed)
            # Neither rule has a score that could be compared between users: minus the place in the list.
            rows.append(Recommendation(query.user_id, items, [-float(place) for place in range(1, len(items) + 1)]))
        return rows

    return known, answer


def _read_keys(path: str, known: set[str] | None) -> set[str]:
    keys = set()
    for number, line in Lines(path):
        item = line.decode(errors="replace")
        if known is not None and item not in known:
            raise IdgrError(
                f"unknown item {item!r}", "give item keys of the catalogue, one a line", where=path, line=number
            )
        keys.add(item)
    return keys


def _blocks(stream: Iterable[Query], size: int) -> Iterator[list[Query]]:
    stream = iter(stream)
    while block := list(islice(stream, size)):
        yield block
