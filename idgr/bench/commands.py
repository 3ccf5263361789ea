"""The commands `idgr bench …`: their options, and which measurement they ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from idgr.engine.options import Precision
from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, read_jsonl, write_jsonl
from idgr.options import MODEL, RUN, Device, Option, Role, StageOptions, argument, option, output_option

if TYPE_CHECKING:
    from idgr.bench.decode import DecodeBench
    from idgr.formats.records import ItemId

Records = list[dict[str, Any]]
Seed = Annotated[int, Option("Seed of all that is random or made up.", panel=RUN, at_least=0)]
Tokenizer = Annotated[str | None, Option("Tokenizer of random weights; else one of the texts or IDs.", panel=MODEL)]
Shape = Annotated[str, Option("Preset of random weights: small is T5-small's.", panel=MODEL)]


@dataclass(frozen=True, kw_only=True)
class BenchOptions(StageOptions):
    """Options of every measurement."""

    repeats: int = option("Times that each contender runs.", 3, RUN, at_least=1)
    seed: Seed = 0
    output: str = output_option("JSON Lines, one per contender; - is standard output.", STDOUT, RUN)


@dataclass(frozen=True, kw_only=True)
class ModelBenchOptions(BenchOptions):
    """Options of every measurement of a model."""

    tokenizer: Tokenizer = None
    device: Device = "auto"

    @property
    def common(self) -> dict[str, Any]:
        """What every measurement of a model is told."""
        names = ("shape", "tokenizer", "repeats", "device", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class PrepOptions(BenchOptions):
    """Time the reading of a review dump beside pandas, or measure the memory of a whole prep.

    Example: idgr bench prep --rows 200000 --repeats 5
    """

    reviews: str | None = argument("A gzipped Amazon review dump; made up if not given.", "[REVIEWS]", None)
    rows: int = option("Rows of the dump that is made up.", 200000, at_least=1)
    memory_events: int | None = option(
        "Instead, prepare so many made-up events and tell the peak memory.", None, at_least=1000
    )
    parquet: bool = option("With --memory-events: a folder of Parquet, by `prep table`, not an Amazon dump.", False)
    pandas: bool = option("With --parquet: the same in pandas after that.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reviews == STDIN:
            raise UsageError("bench reads its input several times, so not from standard input", "give a file")
        if self.reviews is not None and self.memory_events is not None:
            raise UsageError("--memory-events makes its own dump", "give either it or a dump")
        if self.parquet and self.memory_events is None:
            raise UsageError("--parquet does nothing without --memory-events", "give both or neither")
        if self.pandas and not self.parquet:
            raise UsageError("--pandas does nothing without --parquet", "give both or neither")


@dataclass(frozen=True, kw_only=True)
class GenIdsOptions(ModelBenchOptions):
    """Time Algorithm 1 in batches beside Algorithm 1 item by item, on the same weights and items.

    Example: idgr bench gen-ids data/beauty/items.jsonl --items 200 --tokenizer t5-small
    """

    catalogue: str | None = argument("items.jsonl or raw metadata; else the demo's.", "[ITEMS]", None)
    limit: int = option("Take so many items, the first.", 200, flags=("--items",), at_least=2)
    model: str | None = option("A generator's folder; random weights if not given.", None, role=Role.INPUT)
    batch_size: int = option("Items that idgr searches at once.", 64, at_least=1)
    shape: Shape = "small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.tokenizer is not None:
            raise UsageError("--tokenizer given with --model, which has its own", "leave one of them out")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ModelBenchOptions):
    """Time train-rec beside transformers' trainers, or a part of train-gen or of alternate beside a plain one.

    Example: idgr bench train data/beauty/ --ids ids.jsonl --batches 100
    """

    data: str = argument("A folder of `idgr prep`: its texts and histories.", "DATA")
    part: Literal["recommender", "generator", "select"] = option(
        "What is measured: a training, or the scoring of alternate --method select.", "recommender"
    )
    items: int = option("select: items whose candidates are scored.", 50, at_least=1)
    ids: str | None = option("For the recommender: ids.jsonl, else keyphrases.", None, role=Role.INPUT)
    arch: Literal["t5", "causal"] = option("For the recommender: a T5 of --shape, or the causal --model.", "t5", MODEL)
    model: str | None = option("causal: the folder that is trained further.", None, MODEL, role=Role.INPUT)
    layers: int | None = option("causal: keep only the first so many layers.", None, MODEL, at_least=1)
    freeze: int | None = option("causal: leave the embeddings and so many layers as they are.", None, MODEL, at_least=0)
    separator: Literal["eos", "newline"] | None = option(
        "causal: what stands between items; else what the model knows.", None, MODEL
    )
    max_history: int = option("causal: newest history items that are shown.", 50, MODEL, at_least=1)
    batches: int = option("Batches that each contender goes through.", 40, at_least=5)
    batch_size: int | None = option("Instances a batch; 64, or 12 for the generator.", None, at_least=1)
    lr: float = option("For the recommender: the highest learning rate.", 0.001, above=0)
    precision: Precision = "fp32"
    compile: bool = option("For a T5 recommender: beside the others, idgr through torch.compile.", False)
    shape: Shape = "nano"

    def __post_init__(self) -> None:
        super().__post_init__()
        causal = self.arch == "causal"
        if causal != (self.model is not None):
            raise UsageError("--arch causal and --model go together", "give both or neither")
        if causal and (self.part == "generator" or self.tokenizer is not None or self.compile):
            raise UsageError("--arch causal with --part generator, --tokenizer or --compile", "leave these out")
        if not causal and (self.layers or self.freeze is not None or self.separator):
            raise UsageError("--layers, --freeze and --separator are for --arch causal", "leave them out")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(ModelBenchOptions):
    """Time constrained beam search beside transformers, on the same weights, IDs and users.

    Example: idgr bench decode --ids ids.jsonl --histories data/beauty/test.jsonl --shape small --users 32
    """

    ids: str | None = option("ids.jsonl; else keyphrases of the demo's items.", None, role=Role.INPUT)
    histories: str | None = option("test.jsonl or sequences; made up if not given.", None, role=Role.INPUT)
    users: int = option("Users who are answered, drawn from the histories.", 32, at_least=1)
    arch: Literal["t5", "causal"] = option("T5, or a causal Llama.", "t5", MODEL)
    model: str | None = option(
        "Folder of a recommender, or of any such model; random weights if not given.", None, MODEL, role=Role.INPUT
    )
    separator: Literal["eos", "newline"] | None = option(
        "causal: what stands between items; as trained, or a newline if not by idgr; eos for random weights.",
        None,
        MODEL,
    )
    shape: str | None = option("Preset of random weights: nano (nano-causal) or small, T5-small's.", None, MODEL)
    k: int = option("Items that are asked for.", 20, flags=("-k",), at_least=1)
    beams: int = option("Prefixes that are followed.", 20, at_least=1)
    normalize: Literal["full", "trie"] = option("For --items and --against exact.", "full")
    batch_size: int = option("Users that idgr answers at once.", 32, at_least=1)
    items: list[int] | None = option(
        "Instead, idgr on catalogues of so many made-up IDs; may be repeated.", None, at_least=2
    )
    latency: bool = option("Users one by one: p50, p95 and p99.", False)
    against: Literal["exact", "cpu"] | None = option(
        "Instead, what beams lose against the exact best items, or --device's lists against the CPU's.", None
    )
    dtype: Literal["fp32", "bf16"] = option("Precision of the weights.", "fp32", MODEL)
    compile: bool = option("Beside the others, idgr through torch.compile; with --items and --against it is.", False)
    beside: Literal["ctranslate2", "onnxruntime"] | None = option(
        "causal: one more contender, another engine without the tree.", None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.tokenizer is not None:
            raise UsageError("--tokenizer given with --model, which has its own", "leave one of them out")
        if self.separator is not None and self.arch != "causal":
            raise UsageError("--separator given with --arch t5, whose histories stand in templates", "leave it out")
        if sum([bool(self.items), self.latency, self.against is not None]) > 1:
            raise UsageError("--items, --latency and --against are different measurements", "give one of them")
        if self.normalize == "trie" and not self.items and self.against != "exact":
            todo = "leave it out, the other measurements run both softmaxes"
            raise UsageError("--normalize trie is for --items and --against exact", todo)
        if self.beside is not None and (self.arch != "causal" or self.items or self.against is not None):
            raise UsageError("--beside is for --arch causal, without --items and --against", "leave one of them out")
        if self.histories is not None and self.ids is None:
            raise UsageError("--histories needs the --ids of their items", "give ids.jsonl")


def run_prep(options: PrepOptions) -> Records:
    """Measure the reading of a dump, or a whole prep; return the records that were written.

    Raises:
        IdgrError: pandas is not installed, or the dump is broken.
    """
    check_file(options.output)
    from importlib.util import find_spec

    from idgr.bench.prep import bench_memory, bench_reading, bench_tables

    events = options.memory_events
    if events is not None and not options.parquet:
        return _written(options, [bench_memory(events, seed=options.seed)])
    if find_spec("pandas") is None and (events is None or options.pandas):
        raise IdgrError("pandas, which idgr is compared with, is not installed", "pip install 'idgr[bench]'")
    if events is not None:
        return _written(options, bench_tables(events, seed=options.seed, with_pandas=options.pandas))
    found = bench_reading(options.reviews, rows=options.rows, repeats=options.repeats, seed=options.seed)
    return _written(options, found)


def run_gen_ids(options: GenIdsOptions) -> Records:
    """Measure the generation of IDs; return the records that were written.

    Raises:
        IdgrError: the items or the model are broken.
    """
    from idgr.models.backbone import PRESETS

    _check_shape(options.shape, PRESETS)
    check_file(options.output)
    from idgr.bench.gen_ids import bench_gen_ids, demo_items
    from idgr.corpus.catalogue import read_catalogue
    from idgr.ids.options import GenerationOptions

    if options.catalogue is None:
        items = demo_items(options.limit, options.seed)
    else:
        items = read_catalogue(options.catalogue, need_text="take another file, or leave such items out")
    found = bench_gen_ids(
        items[: options.limit],
        model=options.model,
        options=GenerationOptions(batch_size=options.batch_size),
        **options.common,
    )
    return _written(options, found)


def run_train(options: TrainOptions) -> Records:
    """Measure a training; return the records that were written.

    Raises:
        IdgrError: the data are broken, or an item has no ID.
    """
    from idgr.bench.select import bench_select
    from idgr.bench.train_causal import CausalTask, bench_causal
    from idgr.bench.train_generator import bench_generator
    from idgr.bench.train_recommender import bench_recommender
    from idgr.formats.records import read_items, read_sequences
    from idgr.models.backbone import PRESETS

    _check_shape(options.shape, PRESETS)
    check_file(options.output)
    catalogue = read_items(Path(options.data) / "items.jsonl")
    number = {item.item_id: place for place, item in enumerate(catalogue)}
    rows = list(read_sequences(Path(options.data) / "train.jsonl", number))
    sequences = [[number[item] for item in row.items] for row in rows]
    if options.part == "generator":
        size = options.batch_size or 12
        found = bench_generator(catalogue, sequences, n_batches=options.batches, batch_size=size, **options.common)
        return _written(options, found)
    texts = [item.text for item in catalogue]
    ids = _ids([item.item_id for item in catalogue], texts, options.ids)
    if options.part == "select":
        found = bench_select(
            catalogue,
            ids,
            sequences,
            [row.user_id for row in rows],
            n_items=options.items,
            model=options.model,
            max_history=options.max_history,
            separator=options.separator,
            steps=options.batches,
            batch_size=options.batch_size or 64,
            lr=options.lr,
            precision=options.precision,
            **options.common,
        )
        return _written(options, found)
    if options.model is not None:
        task = CausalTask(
            folder=options.model,
            ids=ids,
            sequences=sequences,
            max_history=options.max_history,
            layers=options.layers,
            freeze=options.freeze,
            separator=options.separator,
            steps=options.batches,
            batch_size=options.batch_size or 64,
            lr=options.lr,
            precision=options.precision,
            device=options.device,
            seed=options.seed,
        )
        return _written(options, bench_causal(task, options.repeats))
    found = bench_recommender(
        ids,
        sequences,
        steps=options.batches,
        batch_size=options.batch_size or 64,
        lr=options.lr,
        precision=options.precision,
        compile=options.compile,
        **options.common,
    )
    return _written(options, found)


def run_decode(options: DecodeOptions) -> Records:
    """Measure the search; return the records that were written.

    Raises:
        IdgrError: an input or the model is broken, or no targets are there for `against`.
    """
    from idgr.bench.decode import bench_against_cpu, bench_against_exact, bench_against_peer, bench_catalogues

    bench = _decode_bench(options)
    if options.items:
        return _written(options, bench_catalogues(bench, options.items))
    if options.against is not None:
        against = bench_against_exact if options.against == "exact" else bench_against_cpu
        return _written(options, against(bench))
    return _written(options, bench_against_peer(bench, one_by_one=options.latency, beside=options.beside))


def _decode_bench(options: DecodeOptions) -> DecodeBench:
    from idgr.models.backbone import CAUSAL_PRESETS, PRESETS

    shapes = list(CAUSAL_PRESETS if options.arch == "causal" else PRESETS)
    shape = options.shape or shapes[0]
    _check_shape(shape, shapes, f" with --arch {options.arch}")
    check_file(options.output)
    from idgr.bench.decode import DecodeBench
    from idgr.bench.decode_inputs import demo_ids, readable_ids
    from idgr.decoding.beam import SearchOptions
    from idgr.formats.records import read_ids

    known = read_ids(options.ids) if options.ids is not None else demo_ids(options.seed)
    texts, shown, targets = readable_ids(known, _histories(options, known), options.tokenizer, options.model)
    return DecodeBench(
        ids=texts,
        histories=shown,
        targets=targets,
        arch=options.arch,
        model=options.model,
        separator=options.separator,
        options=SearchOptions(options.k, options.beams, 0.0, options.normalize, options.compile),
        batch_size=options.batch_size,
        dtype=options.dtype,
        **options.common | {"shape": shape},
    )


def _histories(options: DecodeOptions, known: list[ItemId]) -> Iterable[tuple[list[str], str | None]]:
    from idgr.bench.decode_inputs import draw, made_up_histories

    if options.histories is None:
        return made_up_histories([record.item_id for record in known], options.users, options.seed)
    return draw(list(read_jsonl(options.histories, _history)), options.users, options.seed)


def _history(row: dict[str, Any]) -> tuple[list[str], str | None]:
    """A line of test.jsonl, or a sequence whose newest item is held out."""
    from idgr.formats.records import Query, key_list

    if "items" in row:
        items = key_list(row, "items")
        return items[:-1], items[-1]
    query = Query.parse(row)
    return query.history, query.target


def _ids(keys: list[str], texts: list[str], path: str | None) -> list[str]:
    """The IDs of a file; keyphrases of the texts without one."""
    if path is None:
        from idgr.ids.keyphrase import keyphrase_ids

        return keyphrase_ids(texts)
    from idgr.formats.records import read_ids

    given = {record.item_id: record.id for record in read_ids(path)}
    for key in keys:
        if key not in given:
            raise IdgrError(f"has no ID of item {key!r}", "give the IDs of this catalogue", where=path)
    return [given[key] for key in keys]


def _check_shape(shape: str, shapes: Iterable[str], told: str = "") -> None:
    if shape not in shapes:
        raise UsageError(f"--shape {shape}{told}", f"choose {' or '.join(shapes)}")


def _written(options: BenchOptions, found: Iterable[dict[str, Any]]) -> Records:
    records = list(found)
    write_jsonl(options.output, records)
    return records
