"""`idgr zeroshot`: IDs, recommendations and metrics on a platform that neither model has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from idgr.cli.eval import eval_command
from idgr.cli.recommend import recommend
from idgr.errors import UsageError, check_utf8
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDOUT, replace_folder, write_json
from idgr.formats.rec_folder import read_seen_tokens
from idgr.formats.records import read_ids
from idgr.formats.run_info import RunInfo, read_run
from idgr.options import MOST_INT
from idgr.progress import log
from idgr.stages import gen_ids


def zeroshot(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder that `idgr prep` wrote, of the new platform.")],
    gen: Annotated[str, typer.Option("--gen", help="The ID generator.")],
    rec: Annotated[str, typer.Option("--rec", help="The recommender, trained elsewhere.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for IDs, recommendations and metrics.")],
    models: Annotated[
        Literal["both", "gen-only", "rec-only"],
        typer.Option("--models", help="Which of the two are the trained ones; the other one is its base."),
    ] = "both",
    base_gen: Annotated[str | None, typer.Option("--base-gen", help="For rec-only: the untrained generator.")] = None,
    base_rec: Annotated[str | None, typer.Option("--base-rec", help="For gen-only: the untrained recommender.")] = None,
    beams: Annotated[int, typer.Option("--beams", max=MOST_INT, help="Prefixes that beam search follows.")] = 20,
    normalize: Annotated[
        Literal["full", "trie"] | None,
        typer.Option("--normalize", help="Softmax over vocabulary or valid children; as trained if not given."),
    ] = None,
    max_text_tokens: Annotated[
        int, typer.Option("--max-text-tokens", max=MOST_INT, help="Tokens of an item's text that the generator reads.")
    ] = 256,
    empty_text: Annotated[
        Literal["error", "key"],
        typer.Option("--empty-text", help="An item without text: stop, or make its ID of its key."),
    ] = "error",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Recommend and score on a platform that neither model has seen, with no training.

    Example: idgr zeroshot data/yelp/ --gen foundation/gen/ --rec foundation/rec/ -o out/yelp/
    """
    given = dict(locals())
    if output == STDOUT:
        raise UsageError("-o - cannot hold a folder", "give the name of a folder to -o")
    for choice, option, base in (("rec-only", "--base-gen", base_gen), ("gen-only", "--base-rec", base_rec)):
        if (models == choice) != (base is not None):
            raise UsageError(f"{option} belongs to --models {choice}", "give both of them or neither")
    generator, recommender = base_gen or gen, base_rec or rec
    check_utf8("the name of a model", generator, recommender)
    items, train, test = (str(Path(data) / f"{name}.jsonl") for name in ("items", "train", "test"))
    inputs = {"items": items, "train": train, "test": test, "gen": generator, "rec": recommender}
    shaping = {name: given[name] for name in ("models", "beams", "normalize", "max_text_tokens", "empty_text")}
    refuse_held_out({"items": items, "train": train}, [test])
    run = RunInfo("zeroshot", shaping, {**inputs}, outputs=[output])

    from idgr.models.backbone import check_t5

    with replace_folder(output, run.command, [data, *run.inputs.values()]) as folder:
        for name in (generator, recommender):
            check_t5(name, "zeroshot")
        ids, recs, metrics = (str(folder / name) for name in ("ids.jsonl", "recs.jsonl", "metrics.json"))
        log("zeroshot: 1 of 3, IDs")
        gen_ids.run(
            gen_ids.Options(
                items=items,
                output=ids,
                model=generator,
                rec_tokenizer=recommender,
                max_text_tokens=max_text_tokens,
                empty_text=empty_text,
                device=device,
            )
        )
        named = read_run(recommender).get("user_ids", "none") != "none"
        asked: dict[str, Any] = {"gen": generator, "items": items} if named else {}
        log("zeroshot: 2 of 3, recommendations")
        recommend(test, recommender, ids, recs, beams=beams, normalize=normalize, device=device, force=True, **asked)
        log("zeroshot: 3 of 3, metrics")
        eval_command(recs, test, train, metrics, items=items)
        foreign = _foreign_tokens(ids, recommender)
        write_json(metrics, {**_read(metrics), "models": models, "foreign": foreign})
        for record in folder.glob("*.run.json"):
            record.unlink()  # they tell of a folder that has another name now; its own record says it all
        run.write(output, folder)
    if foreign is not None:
        share, items_share = foreign["unseen_tokens"], foreign["items_with_unseen"]
        log(f"zeroshot: {share:.1%} of the tokens of IDs, in {items_share:.1%} of the items, were in no ID of training")


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


def _read(path: str) -> dict[str, Any]:
    import orjson

    record: dict[str, Any] = orjson.loads(Path(path).read_bytes())
    return record
