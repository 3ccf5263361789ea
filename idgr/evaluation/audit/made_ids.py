"""Checks of `ids.jsonl`: the IDs as texts and tokens, and whether they come from the items' texts and nothing else.

IDs are given in file order, so the first ones depend on the first texts alone and can be made again cheaply.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, WARN, Check, skipped
from idgr.evaluation.audit.data import read_numbered
from idgr.evaluation.audit.held_out import trained_on
from idgr.evaluation.audit.id_texts import Numbered, any_id, id_text_checks, token_check
from idgr.evaluation.audit.provenance import Findings, Output
from idgr.evaluation.audit.scheme_ids import FROM_TRAINING, kept_told, order_check, scheme_check, scheme_of
from idgr.formats.rec_folder import CONFIG
from idgr.formats.records import Item, ids_fingerprint, read_items, read_sequences
from idgr.formats.run_info import sha256_file
from idgr.ids.kept import Kept, read_kept
from idgr.ids.keyphrase import keyphrase_ids
from idgr.ids.options import BeamOptions, GenerationOptions
from idgr.ids.quality import id_quality
from idgr.ids.spelling import can_spell
from idgr.models.backbone import load_either
from idgr.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FROM_TEXT = "IDs are made from item text alone"
KNOWN = "IDs and items are the same"
SOUND = "IDs are words that tell of their items"
REMADE = 16  # items whose IDs are made again with the generator
_ROLES = {"items", "model", "rec-tokenizer", "keep"}


def ids_checks(findings: Findings) -> list[Check]:
    """Checks of every file of IDs below the folder; equal files are looked at once."""
    checks, seen = [], set()
    # By their record, whatever their name; by their name where there is no record. Shards hold candidates, not IDs.
    made = {output.path for output in findings.of("gen-ids") if output.option("shard") is None}
    for path in sorted(made | set(findings.root.rglob("ids.jsonl"))):
        if any(part.startswith(".") for part in path.relative_to(findings.root).parts):
            continue
        if path.with_name(CONFIG).is_file():  # a recommender's copy of the IDs that it was trained on
            continue
        digest = findings.digest(path)
        if digest in seen:
            continue
        seen.add(digest)
        maker = next((output for output in findings.outputs if output.path == path), None)
        if maker is None:  # zeroshot's record is that of its folder
            maker = next((output for output in findings.of("zeroshot") if output.path == path.parent), None)
        ids = read_numbered(path, any_id)
        tokenizer = tokenizer_of(ids, maker, findings)
        checks += id_text_checks(ids, path)
        checks.append(token_check(ids, tokenizer, path, "the recommender's tokenizer is not here"))
        checks.append(_covers(ids, path, findings))
        checks.append(_from_text(ids, path, maker, findings))
        if maker is not None and (sound := _sound(ids, path, maker, findings)) is not None:
            checks.append(sound)
        if (ordered := order_check(ids, path, findings)) is not None:
            checks.append(ordered)
    return checks


def tokenizer_of(ids: Numbered, maker: Output | None, findings: Findings) -> PreTrainedTokenizerBase | None:
    """That of a recommender trained on these IDs, or the one that they were made for."""
    fingerprint = ids_fingerprint(one for _, one in ids)
    for model in findings.of("train-rec"):
        if model.record.get("ids_fingerprint") == fingerprint:
            return load_tokenizer(str(model.path))
    for role in ("rec-tokenizer", "rec", "model"):
        if maker is not None and (found := findings.find(maker, role)) is not None:
            return load_tokenizer(str(found))
    return None


def _covers(ids: Numbered, path: Path, findings: Findings) -> Check:
    if findings.data is None:
        return skipped(KNOWN, path, "the data set is not here; name it with --data")
    items = {item.item_id for _, item in read_numbered(findings.data / "items.jsonl", Item.parse)}
    named = {one.item_id for _, one in ids}
    if items == named:
        return Check(KNOWN, str(path), PASS, f"{len(items):,} items of {findings.data}, each with an ID")
    told = f"{len(items - named):,} items of {findings.data} have no ID, {len(named - items):,} IDs are of no item"
    return Check(KNOWN, str(path), FAIL, told)


def _from_text(ids: Numbered, path: Path, maker: Output | None, findings: Findings) -> Check:
    if maker is None or maker.command not in ("gen-ids", "zeroshot"):
        return skipped(FROM_TEXT, path, "no run.json tells how they were made")
    zeroshot = maker.command == "zeroshot"
    outputs = maker.record.get("outputs")
    if not isinstance(outputs, dict) or outputs.get(path.name) != sha256_file(path):
        return Check(FROM_TEXT, str(path), FAIL, "the file is not the one that its run.json tells of")
    kept = Kept()
    if maker.named("keep") is not None:
        found = _kept(ids, path, maker, findings)
        if isinstance(found, Check):
            return found
        kept = found
    if scheme_of(maker) is not None and not zeroshot:
        return scheme_check(FROM_TEXT, ids, path, maker, findings, kept)
    of_sequences = not zeroshot and bool(maker.option("neighbours"))
    name, roles = (FROM_TRAINING, {*_ROLES, "train"}) if of_sequences else (FROM_TEXT, _ROLES)
    strange = [role for role in maker.roles if role not in roles and not role.startswith("candidates ")]
    if strange and not zeroshot:
        return Check(name, str(path), FAIL, f"{', '.join(strange)} went into them too")
    if of_sequences:
        verdict, told = trained_on(maker, findings)
        if verdict != PASS:
            return Check(name, str(path), verdict, told)
    items_file = findings.find(maker, "items")
    if items_file is None:
        return skipped(name, path, "the items that they were made from are not here")
    items = read_items(items_file)
    source = f"the texts of {items_file}" + (" and train.jsonl" if of_sequences else "")
    told = f"on record their inputs were {source} and a generator" + kept_told(ids, maker, kept)
    if kept.ids and not kept.new(items):
        return Check(name, str(path), PASS, told)
    which = " new ones" if kept.ids else ""
    count, equal = _made_again(ids, items, maker, findings, kept)
    if count == 0:
        return Check(name, str(path), PASS, f"{told}; not made again, for want of the generator")
    if equal < count:
        told = f"of the first {count}{which}, made again from {source}, {count - equal} differ"
        return Check(name, str(path), FAIL, told)
    told += f"; the first {count}{which}, made again from those alone, are equal"
    return Check(name, str(path), PASS, told)


def _kept(ids: Numbered, path: Path, maker: Output, findings: Findings) -> Kept | Check:
    """The IDs that `gen-ids --keep` kept, if it did so and they are here as they were; what is wrong, if they are not.

    Whether they themselves are made of texts alone is for their own record to tell.
    """
    place = findings.find(maker, "keep")
    if place is None:
        told = f"the IDs that it kept, {maker.named('keep')}, are not here with the hash on record"
        return skipped(FROM_TEXT, path, f"{told}, so none can be made again; put that file back")
    try:
        kept = read_kept(str(place))
    except IdgrError as fault:
        return Check(FROM_TEXT, str(path), FAIL, f"the IDs that it kept are no such file: {fault}")
    shared = [one for _, one in ids if one.item_id in kept.ids]
    wrong = sum(one.id != kept.ids[one.item_id].id for one in shared)
    if wrong:
        return Check(FROM_TEXT, str(path), FAIL, f"of {len(shared):,} IDs kept from {place}, {wrong:,} differ")
    return kept


def _sound(ids: Numbered, path: Path, maker: Output, findings: Findings) -> Check | None:
    """Whether IDs that a generator or a rule wrote are words that say something; None for those of a scheme."""
    if (maker.command != "zeroshot" and scheme_of(maker) is not None) or not ids:
        return None
    items_file = findings.find(maker, "items")
    if items_file is None:
        return skipped(SOUND, path, "the items that they were made from are not here")
    found = id_quality([one for _, one in ids], {item.item_id: item.text for item in read_items(items_file)})
    verdict = FAIL if found.is_junk else WARN if found.is_doubtful else PASS
    return Check(SOUND, str(path), verdict, found.told)


def _made_again(ids: Numbered, items: list[Item], maker: Output, findings: Findings, kept: Kept) -> tuple[int, int]:
    """How many IDs were made again, from nothing but text beside those that were kept, and how many are equal."""
    role = "gen" if maker.command == "zeroshot" else "model"
    spelled_by = findings.find(maker, "rec" if maker.command == "zeroshot" else "rec-tokenizer")
    new, given = kept.new(items), {one.item_id: one.id for _, one in ids}
    wanted = [given.get(items[place].item_id) for place in new]
    if "keyphrase" in (maker.option("model"), maker.option("scheme")):
        tokenizer = None if spelled_by is None else load_tokenizer(str(spelled_by))
        if tokenizer is None and maker.named("rec-tokenizer") is not None:
            return 0, 0
        texts = [item.text or item.item_id.lower() for item in items]
        can = None if tokenizer is None else lambda found: can_spell(tokenizer, found)
        made = keyphrase_ids(texts, can_spell=can, places=new, taken=kept.taken)
        return len(made), sum(one == other for one, other in zip(made, wanted, strict=True))
    generator, first = findings.find(maker, role), [items[place] for place in new[:REMADE]]
    if generator is None or any(not item.text for item in first):
        return 0, 0
    from idgr.ids.generation import generate_ids  # and with it torch, which most audits can do without

    beside = None
    if maker.command == "gen-ids" and (shown := maker.option("neighbours")):
        train = findings.find(maker, "train")
        if train is None or not isinstance(shown, int):
            return 0, 0
        every = _beside(items, train, shown)
        beside = [every[place] for place in new[:REMADE]]
    backbone = load_either(str(generator))
    tokenizer = load_tokenizer(str(spelled_by)) if spelled_by is not None else backbone.tokenizer
    again = generate_ids(
        first,
        lambda: replace(backbone, model=backbone.model.eval()),
        tokenizer,
        _options(maker),
        taken=kept.taken,
        beside=beside,
    )
    return len(first), sum(one.id == other for one, other in zip(again.ids, wanted, strict=False))


def _beside(items: list[Item], train: Path, n: int) -> list[tuple[str, ...]]:
    """What a generator was shown beside each item."""
    from idgr.ids.neighbours import short_texts

    place = {item.item_id: number for number, item in enumerate(items)}
    rows = [[place[item] for item in row.items] for row in read_sequences(train, place)]
    return short_texts([item.text for item in items], rows, n)


def _options(maker: Output) -> GenerationOptions:
    """The options that gen-ids was given; for what is not on record, its defaults."""
    usual = GenerationOptions()
    names = {field.name for field in fields(GenerationOptions)} - {"batch_size"}
    if maker.command != "gen-ids":
        names -= {field.name for field in fields(BeamOptions)}  # the beams of `zeroshot` are those of the recommender
    given = {name: maker.option(name) for name in names}
    kept = {name: value for name, value in given.items() if _is_like(value, getattr(usual, name))}
    return replace(usual, **kept)


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a value on record is of the type that the option has."""
    numbers = not isinstance(value, bool) and isinstance(value, (int, float)) and isinstance(usual, (int, float))
    return numbers or type(value) is type(usual)
