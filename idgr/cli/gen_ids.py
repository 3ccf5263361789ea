"""`idgr gen-ids`: a textual ID for every item."""

from __future__ import annotations

import glob
import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idgr.cli import scheme_options
from idgr.cli.scheme_options import TEXTUAL, ids_by_scheme, options_of, shaping
from idgr.corpus.catalogue import read_catalogue
from idgr.errors import UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDIN, STDOUT, dump_line
from idgr.formats.records import Item, ItemId
from idgr.formats.run_info import RunInfo, hash_input
from idgr.options import MOST_INT
from idgr.progress import Progress, log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idgr.ids.generation import GenerationOptions
    from idgr.models.backbone import Backbone

HUB_GENERATOR = "nandakishormpai/t5-small-machine-articles-tag-generation"
KEYPHRASE = "keyphrase"
_NOT_SHAPING = {"assign", "batch-size", "device"}
_GIVE_TEXT = "give it some, or take --empty-text key to make its ID of its key"


def gen_ids(
    items: Annotated[str, typer.Argument(metavar="ITEMS", help="items.jsonl, or any JSON Lines with item_id.")],
    output: Annotated[str, typer.Option("-o", "--output", help="ids.jsonl; with --shard, the candidates.")] = STDOUT,
    scheme: scheme_options.Scheme = TEXTUAL,
    model: Annotated[
        str, typer.Option("--model", help="Generator: a folder, a hub name, or `keyphrase`, a rule without a model.")
    ] = HUB_GENERATOR,
    rec_tokenizer: Annotated[
        str | None,
        typer.Option("--rec-tokenizer", help="Tokenizer that shall read the IDs; the generator's if not given."),
    ] = None,
    beams: Annotated[int, typer.Option("--beams", max=MOST_INT, help="Beams of the diverse beam search.")] = 5,
    groups: Annotated[int, typer.Option("--groups", max=MOST_INT, help="Groups that the beams are divided into.")] = 5,
    penalty_start: Annotated[float, typer.Option("--penalty-start", help="First diversity penalty.")] = 0.1,
    penalty_step: Annotated[float, typer.Option("--penalty-step", help="What a further attempt adds to it.")] = 0.1,
    penalty_stop: Annotated[float, typer.Option("--penalty-stop", help="Last diversity penalty.")] = 1.0,
    length_step: Annotated[
        int,
        typer.Option("--length-step", max=MOST_INT, help="IDs of [1, step) tokens, then [step, 2·step), and so on."),
    ] = 10,
    max_length_rounds: Annotated[
        int, typer.Option("--max-length-rounds", max=MOST_INT, help="Ranges of lengths that are tried.")
    ] = 3,
    length_penalty: Annotated[
        float, typer.Option("--length-penalty", help="A sequence's score is divided by its length to this power.")
    ] = 1.0,
    no_repeat_ngram: Annotated[
        int,
        typer.Option(
            "--no-repeat-ngram", max=MOST_INT, help="No run of so many tokens stands twice in an ID; 0 for no rule."
        ),
    ] = 0,
    exhausted: Annotated[
        Literal["number", "error"],
        typer.Option("--exhausted", help="After the last attempt: add a number to the first candidate, or stop."),
    ] = "number",
    empty_text: Annotated[
        Literal["error", "key"],
        typer.Option("--empty-text", help="An item without text: stop, or make its ID of its key."),
    ] = "error",
    max_text_tokens: Annotated[
        int, typer.Option("--max-text-tokens", max=MOST_INT, help="Tokens of an item's text that the generator reads.")
    ] = 256,
    batch_size: Annotated[
        int, typer.Option("--batch-size", max=MOST_INT, help="Items at once; the IDs do not depend on it.")
    ] = 64,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Write candidates of every Nth item, from the Ith.")
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--assign", metavar="GLOB", help="Assign IDs from the shards' candidates.")
    ] = None,
    train: scheme_options.Train = None,
    words: scheme_options.Words = 3,
    shared_words: scheme_options.SharedWords = 1,
    clusters: scheme_options.Clusters = 20,
    leaf_size: scheme_options.LeafSize = 100,
    category_field: scheme_options.CategoryField = "categories",
    category_depth: scheme_options.CategoryDepth = 5,
    title_field: scheme_options.TitleField = "title",
    title_words: scheme_options.TitleWords = 6,
    levels: scheme_options.Levels = None,
    codebook: scheme_options.Codebook = 256,
    text_vectors: scheme_options.TextVectors = "tfidf",
    branches: scheme_options.Branches = 0,
    item_vectors: scheme_options.ItemVectors = None,
    seed: scheme_options.Seed = 0,
) -> None:
    """Give every item a unique ID: a textual one (Algorithm 1), or one of another scheme.

    Example: idgr gen-ids data/beauty/items.jsonl --model gen/ -o ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --scheme shared --train data/beauty/train.jsonl -o ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --scheme dual --item-vectors sasrec/ -o ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --scheme collaborative --train data/beauty/train.jsonl -o ids.jsonl
    """
    everything = {name.replace("_", "-"): value for name, value in locals().items()}
    given = shaping(scheme, everything, _USUAL)
    if scheme != TEXTUAL:
        _by_scheme(scheme, everything, given)
        return
    given = {name: value for name, value in given.items() if name not in _NOT_SHAPING}
    _check_conflicts(items, model, shard, assign, rec_tokenizer)

    from idgr.ids.shards import candidate_rows, parse_shard, read_candidates

    need_text = _GIVE_TEXT if empty_text == "error" else None
    part = parse_shard(shard) if shard is not None else None
    paths = sorted({path for pattern in assign or [] for path in glob.glob(pattern)})  # noqa: PTH207 - a Path globs no absolute pattern
    if assign and not paths:
        raise UsageError(f"--assign {' '.join(assign)} names no file", "give the files that --shard wrote")
    inputs = {"items": items, "rec-tokenizer": rec_tokenizer}
    inputs |= {f"candidates {number}": path for number, path in enumerate(paths, start=1)}
    inputs["model"] = model if model != KEYPHRASE else None
    run = RunInfo("gen-ids", given, {**inputs}, outputs=[output])
    if model == KEYPHRASE:
        with run.replace_file(output) as written:
            catalogue = read_catalogue(items, need_text=need_text)
            written.writelines(dump_line(record.row()) for record in _by_keyphrase(catalogue, rec_tokenizer, run))
        return

    from idgr.ids.diverse_beam import BeamOptions
    from idgr.ids.generation import GenerationOptions, first_candidates
    from idgr.ids.schedule import Schedule

    schedule = Schedule(penalty_start, penalty_step, penalty_stop, length_step, max_length_rounds)
    beam_options = BeamOptions(beams, groups, length_penalty, no_repeat_ngram)
    options = GenerationOptions(schedule, beam_options, max_text_tokens, batch_size, exhausted == "number")
    settings = {"model": hash_input(model), "beams": [beams, groups, length_penalty], "text": max_text_tokens}
    settings |= {"first": [penalty_start, length_step], "no_repeat_ngram": no_repeat_ngram}
    with run.replace_file(output) as written:  # before the work, so that a second run to the same file stops at once
        catalogue = read_catalogue(items, need_text=need_text)
        if part is not None:
            ours = [item for item in (catalogue[place] for place in part.places(len(catalogue))) if item.text]
            texts = [item.text for item in ours]
            found = first_candidates(texts, _load(model, device), options, _watched) if ours else []
            written.writelines(map(dump_line, candidate_rows(ours, found, settings)))
        else:
            first = read_candidates(paths, catalogue, settings) if assign else None
            records = _by_model(catalogue, model, rec_tokenizer, device, options, first, run)
            written.writelines(dump_line(record.row()) for record in records)


_USUAL = {
    name.replace("_", "-"): parameter.default for name, parameter in inspect.signature(gen_ids).parameters.items()
}


def _by_scheme(scheme: str, everything: dict[str, Any], given: dict[str, Any]) -> None:
    from idgr.ids.schemes.choice import OF_TEXT
    from idgr.ids.schemes.text_vectors import TFIDF

    options = options_of(scheme, everything)
    items, output, train = everything["items"], everything["output"], everything["train"]
    rec_tokenizer = everything["rec-tokenizer"]
    encoder = options.text_vectors if options.text_vectors != TFIDF else None
    inputs = {"items": items, "train": train, "text-vectors": encoder, "rec-tokenizer": rec_tokenizer}
    inputs["item-vectors"] = options.item_vectors
    refuse_held_out(inputs)
    run = RunInfo("gen-ids", given, inputs, options.seed, outputs=[output])
    reads_text = scheme in OF_TEXT and everything["empty-text"] == "error"
    with run.replace_file(output) as written:
        catalogue = read_catalogue(items, need_text=_GIVE_TEXT if reads_text else None)
        records = ids_by_scheme(catalogue, train, options, rec_tokenizer)
        written.writelines(dump_line(record.row()) for record in records)
    words = sum(len(record.id.split()) for record in records) / max(1, len(records))
    log(f"gen-ids: {len(records)} items, {words:.1f} words an ID, by the scheme {scheme}")


def _check_conflicts(
    items: str, model: str, shard: str | None, assign: list[str] | None, rec_tokenizer: str | None
) -> None:
    if shard is not None and assign:
        raise UsageError("--shard and --assign given together", "write all shards first, then assign from them")
    if model == KEYPHRASE and (shard is not None or assign):
        raise UsageError("--model keyphrase needs no shards", "leave --shard and --assign out")
    if shard is not None and rec_tokenizer is not None:
        raise UsageError("--rec-tokenizer plays no part in --shard", "give it with --assign")
    if assign and STDIN in assign:
        raise UsageError("--assign - given", "give the names of files")


def _load(model: str, device: str) -> Backbone:
    from idgr.models.backbone import Backbone, load_backbone
    from idgr.models.device import pick_device

    where = pick_device(device)
    backbone = load_backbone(model)
    return Backbone(backbone.model.to(where).eval(), backbone.tokenizer)


def _watched(batches: Sequence[list[int]]) -> Iterator[list[int]]:
    """Batches of searches: one for each item, then one for each that has to be made again or tried further."""
    with Progress("gen-ids", total=sum(map(len, batches)), unit="items") as shown:
        for batch in batches:
            yield batch
            shown.advance(len(batch))


def _by_model(
    catalogue: list[Item],
    model: str,
    rec_tokenizer: str | None,
    device: str,
    options: GenerationOptions,
    first: dict[str, list[str]] | None,
    run: RunInfo,
) -> list[ItemId]:
    from idgr.ids.generation import generate_ids
    from idgr.models.tokenizer import load_tokenizer

    recommender = load_tokenizer(rec_tokenizer or model)
    made = generate_ids(catalogue, lambda: _load(model, device), recommender, options, first=first, watch=_watched)
    facts = {"searches": made.n_searches, "close_searches": made.n_close}
    _tell(made.ids, recommender, options.schedule.length_step, run, facts)
    _warn_of_junk(made.ids, catalogue)
    return made.ids


def _by_keyphrase(catalogue: list[Item], rec_tokenizer: str | None, run: RunInfo) -> list[ItemId]:
    from idgr.ids.keyphrase import keyphrase_ids
    from idgr.ids.spelling import can_spell
    from idgr.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(rec_tokenizer) if rec_tokenizer is not None else None
    texts = [item.text or item.item_id.lower() for item in catalogue]
    ids = keyphrase_ids(texts, can_spell=None if tokenizer is None else lambda ids: can_spell(tokenizer, ids))
    records = [ItemId(item.item_id, text) for item, text in zip(catalogue, ids, strict=True)]
    if tokenizer is None:
        log(f"gen-ids: {len(records)} items, by the keyphrase rule")
    else:
        _tell(records, tokenizer, 0, run, {})
    return records


def _warn_of_junk(ids: list[ItemId], catalogue: list[Item]) -> None:
    """Say so where a generator's IDs repeat words, make words up, or need many attempts."""
    from idgr.ids.quality import id_quality

    found = id_quality(ids, {item.item_id: item.text for item in catalogue})
    if found.is_doubtful:
        log(
            f"gen-ids: warning: {found.told}; train the generator longer, give it pairs, try --no-repeat-ngram 2, or "
            "take --scheme shared"
        )


def _tell(
    ids: list[ItemId], recommender: PreTrainedTokenizerBase, length_step: int, run: RunInfo, facts: dict[str, Any]
) -> None:
    """The summary, on standard error and in run.json."""
    from dataclasses import asdict

    from idgr.ids.generation import summarize

    figures = summarize(ids, recommender, length_step)
    run.facts["summary"] = asdict(figures) | facts
    line = f"gen-ids: {figures.items} items, {figures.mean_tokens:.1f} tokens an ID, at most {figures.max_tokens}"
    if facts:
        close = facts["close_searches"] / max(1, facts["searches"])
        line += (
            f"; second attempts {figures.second_attempts:.2%}, longer IDs {figures.longer:.2%}, "
            f"from no attempt {figures.without_attempt:.2%}; close searches made again {close:.2%}"
        )
    log(line)
