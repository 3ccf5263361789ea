"""`idgr gen-ids`: a textual ID for every item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from idgr.corpus.catalogue import read_catalogue, read_catalogue_parts
from idgr.errors import UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDIN, STDOUT, dump_line
from idgr.formats.part_files import is_folder
from idgr.formats.records import Item, ItemId, read_ids
from idgr.formats.run_info import RunInfo
from idgr.ids.kept import Kept, read_kept
from idgr.ids.options import GenerationOptions
from idgr.ids.schemes.options import (
    GROWING,
    OF_SEQUENCES,
    OF_TEXT,
    OF_USE,
    TEXTUAL,
    TFIDF,
    Scheme,
    SchemeOption,
    SchemeOptions,
)
from idgr.ids.shards import candidate_rows, parse_shard, read_candidates
from idgr.options import COMMON, RUN, Field, Role, argument, option, option_fields, output_option
from idgr.progress import Progress, log
from idgr.stages.id_search import IdSearch, check_neighbours, shard_files
from idgr.stages.made_ids import check_spelling, tell, warn_of_junk
from idgr.stages.options import SkipFinished, run_info, skips
from idgr.stages.parts import manifest, missing_parts

HUB_GENERATOR = "nandakishormpai/t5-small-machine-articles-tag-generation"
KEYPHRASE = "keyphrase"
CANDIDATES = "_candidates"  # below the IDs of a folder of parts; its name tells readers that it is no part


@dataclass(frozen=True, kw_only=True)
class Options(GenerationOptions, SchemeOptions):
    """Give every item a unique ID: a textual one (Algorithm 1), or one of another scheme.

    Example: idgr gen-ids data/beauty/items.jsonl --model gen/ -o ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --model smollm2/ -o ids.jsonl

    Example: idgr gen-ids items.jsonl --model smollm2/ --neighbours 3 --train train.jsonl -o ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --scheme shared --train data/beauty/train.jsonl -o ids.jsonl

    Example: idgr gen-ids grown/items.jsonl --model gen/ --keep ids.jsonl -o grown/ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --scheme dual --item-vectors sasrec/ -o ids.jsonl

    Example: idgr gen-ids data/beauty/items.jsonl --scheme collaborative --train data/beauty/train.jsonl -o ids.jsonl
    """

    items: str = argument(
        "items.jsonl, any JSON Lines with item_id, or a folder of parts (JSON Lines or Parquet).", "ITEMS"
    )
    output: str = output_option(
        "ids.jsonl; with --shard, the candidates; NAME.parquet is written as Parquet; of a folder of parts a folder.",
        STDOUT,
    )
    scheme: Scheme = TEXTUAL
    model: Annotated[
        str,
        SchemeOption(
            "Generator, a T5 or a Llama: a folder, a hub name, or `keyphrase`, a rule without a model.",
            schemes=(TEXTUAL,),
            panel=COMMON,
        ),
    ] = HUB_GENERATOR
    rec_tokenizer: str | None = option(
        "Tokenizer that shall read the IDs; the generator's if not given.", None, role=Role.INPUT
    )
    neighbours: Annotated[
        int,
        SchemeOption(
            "Of so many items that are most often bought with an item, a Llama is shown a few words too.",
            schemes=(TEXTUAL,),
            panel=COMMON,
            at_least=0,
        ),
    ] = 0
    keep: str | None = option(
        f"ids.jsonl whose items keep their IDs; the others get new ones ({', '.join(GROWING)}).", None, role=Role.INPUT
    )
    train: Annotated[
        str | None,
        SchemeOption(
            f"train.jsonl, which {', '.join(OF_SEQUENCES)} IDs are made of, and --neighbours.",
            schemes=OF_SEQUENCES,
            role=Role.INPUT,
            panel=COMMON,
        ),
    ] = None
    empty_text: Annotated[
        Literal["error", "key"],
        SchemeOption(
            "An item without text: stop, or make its ID of its key.", schemes=(*OF_TEXT, TEXTUAL), panel=COMMON
        ),
    ] = "error"
    shard: Annotated[
        str | None,
        SchemeOption("Write candidates of every Nth item or part, from the Ith.", schemes=(TEXTUAL,), metavar="I/N"),
    ] = None
    assign: Annotated[
        list[str] | None,
        SchemeOption(
            "Assign IDs from the shards' candidates.",
            schemes=(TEXTUAL,),
            role=Role.INPUT,
            metavar="GLOB",
        ),
    ] = None
    device: Annotated[str, SchemeOption("auto, cpu or cuda.", schemes=(TEXTUAL,), role=Role.RUN, panel=RUN)] = "auto"
    skip_finished: SkipFinished = False

    def __post_init__(self) -> None:
        self._check_scheme()
        super().__post_init__()
        if self.neighbours and self.train is None:
            raise UsageError(f"--neighbours {self.neighbours} without --train", "give the train.jsonl of the items")
        if self.model == KEYPHRASE:
            self._refuse_search()
        if self.shard is not None and self.assign:
            raise UsageError("--shard and --assign given together", "write all shards first, then assign from them")
        if self.model == KEYPHRASE and (self.shard is not None or self.assign):
            raise UsageError("--model keyphrase needs no shards", "leave --shard and --assign out")
        if self.shard is not None and self.rec_tokenizer is not None:
            raise UsageError("--rec-tokenizer plays no part in --shard", "give it with --assign")
        if self.shard is not None and self.keep is not None:
            raise UsageError("--keep plays no part in --shard", "give it with --assign")
        if self.keep is not None and self.scheme not in GROWING:
            raise UsageError(
                f"--keep with --scheme {self.scheme}, whose IDs depend on all items at once",
                f"leave --keep out, which gives every item another ID, or take one of {', '.join(GROWING)}",
            )
        if self.assign and STDIN in self.assign:
            raise UsageError("--assign - given", "give the names of files")
        if self.shard is not None:
            parse_shard(self.shard)

    def by_role(self, role: Role) -> dict[str, Any]:
        """Those that the scheme reads; the seed has a place of its own in a record."""
        left_out = {field.key for field in option_fields(type(self)) if not self._reads(field)} | {"seed"}
        return {key: value for key, value in super().by_role(role).items() if key not in left_out}

    def _reads(self, field: Field) -> bool:
        if field.name == "train" and self.scheme == TEXTUAL:
            return self.neighbours > 0
        return not isinstance(field.option, SchemeOption) or self.scheme in field.option.schemes

    def _refuse_search(self) -> None:
        """Refuse an option of a generator's search, beside the rule that needs none."""
        of_search = {field.name for field in option_fields(GenerationOptions)} | {"neighbours"}
        for field in option_fields(type(self)):
            is_given = field.name in of_search and getattr(self, field.name) != field.default
            if is_given and field.option.role is Role.RESULT:
                raise UsageError(f"{field.flag} given with --model keyphrase, a rule", f"leave {field.flag} out")

    def _check_scheme(self) -> None:
        """Refuse an option that the scheme does not read, and miss one that it needs."""
        for field in option_fields(type(self)):
            option, value = field.option, getattr(self, field.name)
            if field.default is MISSING or value == field.default or self._reads(field):
                continue
            readers = getattr(option, "schemes", ())
            rest = "--scheme textual" if readers == (TEXTUAL,) else " and ".join(readers)
            raise UsageError(
                f"{field.flag} given with --scheme {self.scheme}, which does not read it", f"it is for {rest}"
            )
        if self.scheme in OF_SEQUENCES and self.train is None:
            raise UsageError(f"--scheme {self.scheme} without --train", "give the train.jsonl of the items")
        if self.scheme in OF_USE and self.item_vectors is None:
            raise UsageError(f"--scheme {self.scheme} without --item-vectors", "give a folder of `idgr train-sasrec`")


def run(options: Options) -> list[ItemId] | None:
    """Give every item an ID, and write the IDs; with `shard`, write the candidates of some items.

    Returns:
        The IDs in the order of the items; None with `shard`.

    Raises:
        IdgrError: an item finds no ID, an input is malformed, or a model or package is not there.
    """
    shards = shard_files(options.assign or [])
    info = _run_info(options, shards)
    if options.skip_finished and skips(info, options.output):
        return None if options.shard is not None else read_ids(options.output)
    if options.neighbours:
        check_neighbours(options.model)
    if is_folder(options.items):
        return _run_parts(options, shards, info)
    # Opened before the work, so that a second run to the same file stops at once.
    with info.replace_file(options.output) as written:
        search = _search(read_catalogue(options.items, need_text=_need_text(options)), options)
        if options.shard is not None:
            among = parse_shard(options.shard).places(len(search.catalogue))
            written.writelines(map(dump_line, _candidate_rows(search, among)))
            return None
        ids = _assigned(search, options, shards, info)
        written.writelines(dump_line(one.row()) for one in ids)
    return ids


def _need_text(options: Options) -> str | None:
    """What to do about an item without text, where that is an error."""
    reads_text = options.scheme in (*OF_TEXT, TEXTUAL) and options.empty_text == "error"
    return "give it some, or take --empty-text key to make its ID of its key" if reads_text else None


def _search(catalogue: list[Item], options: Options) -> IdSearch:
    return IdSearch(
        catalogue,
        options.model,
        options,
        device=options.device,
        train=options.train,
        neighbours=options.neighbours,
    )


def _assigned(search: IdSearch, options: Options, shards: list[str], info: RunInfo) -> list[ItemId]:
    """The IDs of all items, in their order; `shards` are files of candidates, if there are any."""
    catalogue = search.catalogue
    kept = _kept(catalogue, options, info)
    if options.scheme != TEXTUAL:
        return _by_scheme(catalogue, options, kept)
    if options.model == KEYPHRASE:
        return _by_keyphrase(catalogue, options.rec_tokenizer, kept, info)
    return _by_model(search, options, shards, kept, info)


def _run_parts(options: Options, shards: list[str], info: RunInfo) -> list[ItemId] | None:
    """The same where the items are a folder of parts: candidates part by part, IDs over all parts at once."""
    parts = None if options.shard is not None else manifest(info, options.items, options.output)
    if parts is not None and not missing_parts("gen-ids", parts):
        return read_ids(options.output)
    by_part = read_catalogue_parts(options.items, need_text=_need_text(options))
    search = _search([item for part in by_part for item in part], options)
    ends = list(accumulate(map(len, by_part)))
    spans = [range(end - len(part), end) for end, part in zip(ends, by_part, strict=True)]
    if options.scheme == TEXTUAL and options.model != KEYPHRASE and not shards:
        place = options.output if parts is None else str(Path(options.output, CANDIDATES))
        # What only the IDs depend on is left out, so that candidates serve for other IDs too.
        others = ("items", "keep", "rec-tokenizer", "shard")
        candidates = manifest(_run_info(options, []), options.items, place, *others)
        span_of = dict(zip(candidates.names, spans, strict=True))
        for name in missing_parts("gen-ids: candidates", candidates, options.shard):
            with candidates.part(name) as written:
                written.writelines(map(dump_line, _candidate_rows(search, span_of[name])))
        shards = candidates.paths()
    if parts is None:
        return None
    ids = _assigned(search, options, shards, info)
    info.check_unchanged()
    for name, span in zip(parts.names, spans, strict=True):
        with parts.part(name) as written:
            written.writelines(dump_line(ids[place].row()) for place in span)
    return ids


def _run_info(options: Options, shards: list[str]) -> RunInfo:
    is_textual = options.scheme == TEXTUAL
    run = run_info(
        "gen-ids",
        options,
        assign=None,
        **{f"candidates {number}": path for number, path in enumerate(shards, start=1)},
        model=options.model if is_textual and options.model != KEYPHRASE else None,
        text_vectors=options.text_vectors if options.text_vectors != TFIDF else None,
    )
    if is_textual:
        run.seed = None
    if not is_textual or options.neighbours:
        refuse_held_out({role: path for role, path in run.inputs.items() if role != "model"})
    return run


def _watched(batches: Sequence[list[int]]) -> Iterator[list[int]]:
    """Batches of searches: one for each item, then one for each that has to be made again or tried further."""
    with Progress("gen-ids", total=sum(map(len, batches)), unit="items") as shown:
        for batch in batches:
            yield batch
            shown.advance(len(batch))


def _candidate_rows(search: IdSearch, among: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The candidates of the items at some places of the catalogue."""
    from idgr.ids.generation import first_candidates

    places = [place for place in among if search.catalogue[place].text]
    ours = [search.catalogue[place] for place in places]
    texts, short = [item.text for item in ours], search.beside(places)
    found = first_candidates(texts, search.backbone, search.options, _watched, short) if ours else []
    return candidate_rows(ours, found, search.settings)


def _kept(catalogue: list[Item], options: Options, run: RunInfo) -> Kept:
    """The IDs that stay as they are, and a line that tells how many; none without --keep."""
    if options.keep is None:
        return Kept()
    by_model = options.scheme == TEXTUAL and options.model != KEYPHRASE
    source = options.rec_tokenizer or (options.model if by_model else None)
    tokenizer = None
    if source is not None:
        from idgr.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(source)
    kept = read_kept(options.keep, tokenizer)
    new, gone = len(kept.new(catalogue)), kept.gone(catalogue)
    run.facts["kept"] = {"items": len(catalogue) - new, "new": new, "gone": gone}
    dropped = f"; {gone} of {options.keep} dropped, whose items are not in {options.items}" if gone else ""
    log(f"gen-ids: {len(catalogue) - new} items keep their IDs, {new} are new{dropped}")
    return kept


def _by_scheme(catalogue: list[Item], options: Options, kept: Kept) -> list[ItemId]:
    from idgr.formats.records import read_sequences
    from idgr.ids.schemes.choice import scheme_ids

    known = {item.item_id for item in catalogue}
    sequences = [] if options.train is None else [row.items for row in read_sequences(options.train, known)]
    made = scheme_ids(catalogue, sequences, options, kept if kept.ids else None)
    records = _new_records(catalogue, made, kept)
    texts = [record.id for record in records]
    if options.rec_tokenizer is not None:
        check_spelling(texts, options.rec_tokenizer)
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    log(f"gen-ids: {len(texts)} items, {words:.1f} words an ID, by the scheme {options.scheme}")
    return records


def _new_records(catalogue: list[Item], made: list[str], kept: Kept) -> list[ItemId]:
    """The IDs of all items: `made` are those of the new ones."""
    new = [catalogue[place].item_id for place in kept.new(catalogue)]
    return kept.with_new(catalogue, (ItemId(name, text) for name, text in zip(new, made, strict=True)))


def _by_model(search: IdSearch, options: Options, shards: list[str], kept: Kept, run: RunInfo) -> list[ItemId]:
    from idgr.ids.generation import generate_ids
    from idgr.models.tokenizer import load_tokenizer

    catalogue = search.catalogue
    first = read_candidates(shards, catalogue, search.settings, kept.ids) if shards else None
    places = kept.new(catalogue)
    recommender = load_tokenizer(options.rec_tokenizer or options.model)
    made = generate_ids(
        [catalogue[place] for place in places],
        lambda: search.backbone,
        recommender,
        options,
        first=first,
        taken=kept.taken,
        watch=_watched,
        beside=search.beside(places),
    )
    ids = kept.with_new(catalogue, made.ids)
    facts = {"searches": made.n_searches, "close_searches": made.n_close}
    tell(ids, recommender, options.length_step, run, facts)
    warn_of_junk(ids, catalogue)
    return ids


def _by_keyphrase(catalogue: list[Item], rec_tokenizer: str | None, kept: Kept, run: RunInfo) -> list[ItemId]:
    from idgr.ids.keyphrase import keyphrase_ids
    from idgr.ids.spelling import can_spell
    from idgr.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(rec_tokenizer) if rec_tokenizer is not None else None
    texts = [item.text or item.item_id.lower() for item in catalogue]
    ids = keyphrase_ids(
        texts,
        can_spell=None if tokenizer is None else lambda ids: can_spell(tokenizer, ids),
        places=kept.new(catalogue),
        taken=kept.taken,
    )
    records = _new_records(catalogue, ids, kept)
    if tokenizer is None:
        log(f"gen-ids: {len(records)} items, by the keyphrase rule")
    else:
        tell(records, tokenizer, 0, run, {})
    return records
