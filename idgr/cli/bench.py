"""`idgr bench`: contenders side by side, one JSON line each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from idgr.corpus.catalogue import read_catalogue
from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, read_jsonl, write_jsonl
from idgr.formats.records import Query, key_list, read_ids, read_items, read_sequences

app = typer.Typer(no_args_is_help=True, add_completion=False)

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
    check_file(output)

    from idgr.bench.prep import bench_memory, bench_reading

    if memory_events is not None:
        write_jsonl(output, [bench_memory(memory_events, seed=seed)])
        return
    from importlib.util import find_spec

    if find_spec("pandas") is None:
        raise IdgrError("pandas, which idgr is compared with, is not installed", "pip install 'idgr[bench]'")
    write_jsonl(output, bench_reading(reviews, rows=rows, repeats=repeats, seed=seed))


@app.command("gen-ids")
def gen_ids_command(
    items: Annotated[
        str | None, typer.Argument(metavar="[ITEMS]", help="items.jsonl or raw metadata; the demo's if not given.")
    ] = None,
    limit: Annotated[int, typer.Option("--items", min=2, help="Take so many items, the first.")] = 200,
    model: Annotated[
        str | None, typer.Option("--model", help="A generator's folder; random weights if not given.")
    ] = None,
    shape: Annotated[str, typer.Option("--shape", help="Preset of random weights: small is T5-small's.")] = "small",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Tokenizer of random weights; one of the items' if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Items that idgr searches at once.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each contender runs.")] = 3,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights and of the demo.")] = 0,
    output: Output = STDOUT,
) -> None:
    """Time Algorithm 1 in batches beside Algorithm 1 item by item, on the same weights and items.

    Example: idgr bench gen-ids data/beauty/items.jsonl --items 200 --tokenizer t5-small
    """
    from idgr.models.backbone import PRESETS

    if shape not in PRESETS:
        raise UsageError(f"--shape {shape}", f"choose {' or '.join(PRESETS)}")
    check_file(output)
    if model is not None and tokenizer is not None:
        raise UsageError("--tokenizer given with --model, which has its own", "leave one of them out")

    check_file(output)
    from idgr.bench.gen_ids import bench_gen_ids, demo_items
    from idgr.ids.options import GenerationOptions

    need = "take another file, or leave such items out"
    catalogue = read_catalogue(items, need_text=need) if items is not None else demo_items(limit, seed)
    records = bench_gen_ids(
        catalogue[:limit],
        model=model,
        tokenizer=tokenizer,
        shape=shape,
        options=GenerationOptions(batch_size=batch_size),
        repeats=repeats,
        device=device,
        seed=seed,
    )
    write_jsonl(output, records)


@app.command("train")
def train_command(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder of `idgr prep`: its texts and histories.")],
    part: Annotated[
        Literal["recommender", "generator"], typer.Option("--part", help="Which training is measured.")
    ] = "recommender",
    ids: Annotated[
        str | None, typer.Option("--ids", help="For the recommender: ids.jsonl; keyphrases if not given.")
    ] = None,
    batches: Annotated[int, typer.Option("--batches", min=5, help="Batches that each contender goes through.")] = 40,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Instances a batch; 64, or 12 for the generator.")
    ] = None,
    lr: Annotated[float, typer.Option("--lr", help="For the recommender: the highest learning rate.")] = 1e-3,
    precision: Annotated[
        Literal["fp32", "bf16", "auto"], typer.Option("--precision", help="For the recommender.")
    ] = "fp32",
    shape: Annotated[str, typer.Option("--shape", help="Preset of random weights: small is T5-small's.")] = "nano",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Tokenizer of the models; one of the items' if not given.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each contender runs.")] = 3,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and of the batches.")] = 0,
    output: Output = STDOUT,
) -> None:
    """Time train-rec beside transformers' Seq2SeqTrainer, or the generator's share of train-gen beside a plain one.

    Example: idgr bench train data/beauty/ --ids ids.jsonl --batches 100
    """
    from idgr.models.backbone import PRESETS

    if shape not in PRESETS:
        raise UsageError(f"--shape {shape}", f"choose {' or '.join(PRESETS)}")

    catalogue = read_items(Path(data) / "items.jsonl")
    number = {item.item_id: place for place, item in enumerate(catalogue)}
    rows = read_sequences(Path(data) / "train.jsonl", number)
    sequences = [[number[item] for item in row.items] for row in rows]
    if part == "generator":
        from idgr.bench.train_generator import bench_generator

        records = bench_generator(
            catalogue,
            sequences,
            shape=shape,
            tokenizer=tokenizer,
            n_batches=batches,
            batch_size=batch_size or 12,
            repeats=repeats,
            device=device,
            seed=seed,
        )
    else:
        from idgr.bench.train_recommender import bench_recommender
        from idgr.ids.keyphrase import keyphrase_ids

        given = {record.item_id: record.id for record in read_ids(ids)} if ids is not None else {}
        phrases = keyphrase_ids([item.text for item in catalogue]) if ids is None else []
        for item in catalogue if ids is not None else ():
            if item.item_id not in given:
                raise IdgrError(f"has no ID of item {item.item_id!r}", "give the IDs of this catalogue", where=ids)
        records = bench_recommender(
            phrases or [given[item.item_id] for item in catalogue],
            sequences,
            shape=shape,
            tokenizer=tokenizer,
            steps=batches,
            batch_size=batch_size or 64,
            lr=lr,
            repeats=repeats,
            precision=precision,
            device=device,
            seed=seed,
        )
    write_jsonl(output, records)


@app.command("decode")
def decode_command(
    ids: Annotated[
        str | None, typer.Option("--ids", help="ids.jsonl; keyphrases of the demo's items if not given.")
    ] = None,
    histories: Annotated[
        str | None, typer.Option("--histories", help="test.jsonl or sequences; made up if not given.")
    ] = None,
    users: Annotated[
        int, typer.Option("--users", min=1, help="Users who are answered, drawn from the histories.")
    ] = 32,
    arch: Annotated[Literal["t5", "causal"], typer.Option("--arch", help="T5, or a causal Llama.")] = "t5",
    rec: Annotated[
        str | None, typer.Option("--rec", help="A recommender's folder; random weights if not given.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", help="Preset of random weights; nano or nano-causal if not given, small is T5-small's."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Tokenizer of random weights; one of the IDs if not given.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items that are asked for.")] = 20,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Prefixes that are followed.")] = 20,
    normalize: Annotated[
        Literal["full", "trie"], typer.Option("--normalize", help="For --items and --against.")
    ] = "full",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Users that idgr answers at once.")] = 16,
    items: Annotated[
        list[int] | None,
        typer.Option("--items", min=2, help="Instead, idgr on catalogues of so many made-up IDs; may be repeated."),
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Users one by one: p50, p95 and p99.")] = False,
    against: Annotated[
        Literal["exact"] | None,
        typer.Option("--against", help="Instead, what beams lose against the exact best items."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each contender runs.")] = 3,
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option("--dtype", help="Precision of the weights.")] = "fp32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights, users and what is made up.")] = 0,
    output: Output = STDOUT,
) -> None:
    """Time constrained beam search beside transformers, on the same weights, IDs and users.

    Example: idgr bench decode --ids ids.jsonl --histories data/beauty/test.jsonl --shape small --users 32
    """
    from idgr.models.backbone import CAUSAL_PRESETS, PRESETS

    shapes = list(CAUSAL_PRESETS if arch == "causal" else PRESETS)
    shape = shape or shapes[0]
    if shape not in shapes:
        raise UsageError(f"--shape {shape} with --arch {arch}", f"choose {' or '.join(shapes)}")
    if rec is not None and tokenizer is not None:
        raise UsageError("--tokenizer given with --rec, which has its own", "leave one of them out")
    if sum([items is not None, latency, against is not None]) > 1:
        raise UsageError("--items, --latency and --against are different measurements", "give one of them")
    if histories is not None and ids is None:
        raise UsageError("--histories needs the --ids of their items", "give ids.jsonl")

    check_file(output)
    from idgr.bench.decode import DecodeBench, bench_against_exact, bench_against_peer, bench_catalogues
    from idgr.bench.decode_inputs import demo_ids, draw, made_up_histories, readable_ids
    from idgr.decoding.beam import SearchOptions

    known = read_ids(ids) if ids is not None else demo_ids(seed)
    answered = (
        draw(list(read_jsonl(histories, _history)), users, seed)
        if histories is not None
        else made_up_histories([record.item_id for record in known], users, seed)
    )
    texts, shown, targets = readable_ids(known, answered, tokenizer, rec)
    bench = DecodeBench(
        ids=texts,
        histories=shown,
        targets=targets,
        arch=arch,
        rec=rec,
        tokenizer=tokenizer,
        shape=shape,
        options=SearchOptions(k, beams, 0.0, normalize),
        batch_size=batch_size,
        repeats=repeats,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    if items is not None:
        write_jsonl(output, bench_catalogues(bench, items))
    elif against is not None:
        write_jsonl(output, bench_against_exact(bench))
    else:
        write_jsonl(output, bench_against_peer(bench, one_by_one=latency))


def _history(row: dict[str, Any]) -> tuple[list[str], str | None]:
    """A line of test.jsonl, or a sequence whose newest item is held out."""
    if "items" in row:
        items = key_list(row, "items")
        return items[:-1], items[-1]
    query = Query.parse(row)
    return query.history, query.target
