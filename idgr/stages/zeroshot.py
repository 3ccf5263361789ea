"""`idgr zeroshot`: IDs, recommendations and metrics on a platform that neither model has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idgr.errors import UsageError, check_utf8
from idgr.formats.held_out import refuse_held_out
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import replace_folder, write_json
from idgr.formats.rec_folder import read_seen_tokens
from idgr.formats.records import read_ids
from idgr.formats.run_info import read_run
from idgr.options import Device, Role, StageOptions, argument, option, output_option
from idgr.progress import log
from idgr.stages import evaluate, gen_ids, recommend
from idgr.stages.options import K, SkipFinished, refuse_stream, run_info, skips
from idgr.stages.ranker_options import (
    DEFAULT_BEAMS,
    BatchSize,
    Beams,
    CalibrationWeight,
    Compile,
    MaxHistory,
    Normalize,
    Separator,
    WeightsPrecision,
)
from idgr.stages.textual_ranker import heeds_near_items

# The options that are those of `idgr recommend`.
_RANKING = (
    "separator",
    "max_history",
    "k",
    "beams",
    "normalize",
    "calibration_weight",
    "precision",
    "batch_size",
    "compile",
    "device",
)


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Recommend and score on a platform that neither model has seen, with no training.

    Example: idgr zeroshot data/yelp/ --gen foundation/gen/ --rec foundation/rec/ -o out/yelp/

    Example: idgr zeroshot data/yelp/ --scheme keyphrase --rec SmolLM2-135M/ -o out/yelp/
    """

    data: str = argument("A folder that `idgr prep` wrote, of the new platform.", "DATA")
    scheme: Literal["textual", "keyphrase"] = option(
        "What makes the IDs: the generator, or the keyphrase rule, which needs none.", "textual"
    )
    gen: str | None = option("The ID generator, a T5 or a Llama.", None, role=Role.INPUT)
    rec: str = option(
        "The recommender, trained elsewhere; or a causal language model as it comes, untrained for this.",
        role=Role.INPUT,
    )
    output: str = output_option("Folder for IDs, recommendations and metrics.")
    models: Literal["both", "gen-only", "rec-only"] = option(
        "Which of the two are the trained ones; the other one is its base.", "both"
    )
    base_gen: str | None = option("For rec-only: the untrained generator.", None, role=Role.INPUT)
    base_rec: str | None = option("For gen-only: the untrained recommender.", None, role=Role.INPUT)
    separator: Separator = None
    max_history: MaxHistory = None
    k: K = 10
    beams: Beams = DEFAULT_BEAMS
    normalize: Normalize = None
    calibration_weight: CalibrationWeight = 0.0
    precision: WeightsPrecision = "fp32"
    max_text_tokens: int = option("Tokens of an item's text that the generator reads.", 256, at_least=2)
    empty_text: Literal["error", "key"] = option("An item without text: stop, or make its ID of its key.", "error")
    batch_size: BatchSize = 32
    compile: Compile = False
    device: Device = "auto"
    skip_finished: SkipFinished = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for choice, flag, base in (
            ("rec-only", "--base-gen", self.base_gen),
            ("gen-only", "--base-rec", self.base_rec),
        ):
            if (self.models == choice) != (base is not None):
                raise UsageError(f"{flag} belongs to --models {choice}", "give both of them or neither")
        if self.scheme == "keyphrase" and self.models != "both":
            raise UsageError(f"--models {self.models} with --scheme keyphrase, a rule", "leave --models out")
        if self.scheme != "keyphrase" and self.gen is None:
            raise UsageError("--gen is missing", "give the ID generator, or --scheme keyphrase, which needs none")

    @property
    def ks(self) -> list[int]:
        """The cutoffs of the metrics, in ascending order."""
        return sorted({self.k, *(cutoff for cutoff in (5, 10) if cutoff < self.k)})


def run(options: Options) -> dict[str, Any]:
    """Make IDs, recommend and score.

    Returns:
        The metrics, with the share of the IDs' tokens that the recommender has not seen.

    Raises:
        IdgrError: the data or a model is not what it should be.
    """
    refuse_stream(options.output, "a folder")
    gen, rec = options.base_gen or options.gen, options.base_rec or options.rec
    check_utf8("the name of a model", *filter(None, (gen, rec)))
    items, train, test = (str(Path(options.data) / f"{name}.jsonl") for name in ("items", "train", "test"))
    read = {"items": items, "train": train, "test": test, "gen": gen, "rec": rec}
    record = run_info("zeroshot", options, data=None, base_gen=None, base_rec=None, **read)
    refuse_held_out({"items": items, "train": train}, [test])
    if options.skip_finished and skips(record, options.output):
        scores: dict[str, Any] = read_object(Path(options.output) / "metrics.json", "make it again")
        return scores

    from idgr.models.backbone import check_either, check_t5

    with replace_folder(options.output, "zeroshot", [options.data, *filter(None, read.values())]) as folder:
        named = read_run(rec).get("user_ids", "none") != "none"
        if gen is not None and named:
            check_t5(gen, "zeroshot with user IDs")
        for model in filter(None, (gen, rec)):
            check_either(model)
        _check_generator(options, rec, named=named)
        ids, recs, metrics = (str(folder / name) for name in ("ids.jsonl", "recs.jsonl", "metrics.json"))
        log("zeroshot: 1 of 3, IDs")
        gen_ids.run(
            gen_ids.Options(
                items=items,
                output=ids,
                model=gen_ids.KEYPHRASE if options.scheme == "keyphrase" or gen is None else gen,
                rec_tokenizer=rec,
                max_text_tokens=options.max_text_tokens,
                empty_text=options.empty_text,
                device=options.device,
            )
        )
        log("zeroshot: 2 of 3, recommendations")
        given: dict[str, Any] = {"gen": gen, "items": items} if named else {}
        if not named and heeds_near_items(rec):
            given = {"items": items}
        given |= {name: getattr(options, name) for name in _RANKING}
        recommend.run(recommend.Options(histories=test, rec=rec, ids=ids, output=recs, force=True, **given))
        log("zeroshot: 3 of 3, metrics")
        scores = evaluate.run(
            evaluate.Options(recs=recs, truth=test, train=train, output=metrics, items=items, cutoffs=options.ks)
        )
        foreign = _foreign_tokens(ids, rec)
        scores |= {"models": options.models, "foreign": foreign}
        write_json(metrics, scores)
        for old in folder.glob("*.run.json"):
            old.unlink()  # they tell of a folder that has another name now; its own record says it all
        record.write(options.output, folder)
    if foreign is not None:
        share, items_share = foreign["unseen_tokens"], foreign["items_with_unseen"]
        log(f"zeroshot: {share:.1%} of the tokens of IDs, in {items_share:.1%} of the items, were in no ID of training")
    return scores


def _check_generator(options: Options, rec: str, *, named: bool) -> None:
    """Raise `UsageError` where the keyphrase rule makes the IDs, and a generator for users' IDs is missing or idle."""
    if options.scheme != "keyphrase" or named == (options.gen is not None):
        return
    if named:
        raise UsageError(f"--gen is missing: {rec} was trained with user IDs", "give the ID generator that made them")
    raise UsageError("--gen given with --scheme keyphrase, which needs none", "leave one of them out")


def _foreign_tokens(ids: str, rec: str) -> dict[str, float] | None:
    """How much of the IDs the recommender has never seen in training; None where it cannot tell what it has seen."""
    from idgr.models.tokenizer import encode, load_tokenizer

    seen = read_seen_tokens(rec)
    if seen is None:
        return None
    rows = encode(load_tokenizer(rec), [record.id for record in read_ids(ids)])
    tokens = [token for row in rows for token in row]
    distinct = set(tokens)
    return {
        "unseen_tokens": sum(token not in seen for token in tokens) / len(tokens),
        "unseen_distinct_tokens": len(distinct - seen) / len(distinct),
        "items_with_unseen": sum(not seen.issuperset(row) for row in rows) / len(rows),
    }
