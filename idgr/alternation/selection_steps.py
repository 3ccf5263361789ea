"""What is done in a round of `idgr.alternation.selection` that is no command of its own.

`hold-out` parts the data, `offer` lists candidates, `select` chooses among them, `go-back` takes back what has become
the worse name once both are learnt, `judge` asks what the round is worth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from idgr.alternation.assignment import Reassigned, reassign, reassign_at_random
from idgr.alternation.candidates import can_name, other_names, read_offers, word_candidates
from idgr.alternation.phases import Phase
from idgr.alternation.scoring import Scorer, draw_contexts, instance_marks
from idgr.alternation.selection import Selection, in_words, read_decision
from idgr.corpus.catalogue import read_catalogue
from idgr.errors import IdgrError
from idgr.formats.jsonl import dump_line
from idgr.formats.rec_folder import check_ids_known, read_recommender_facts
from idgr.formats.records import ItemId, Query, Sequence, read_ids, read_queries, read_sequences
from idgr.formats.run_info import RunInfo, read_run
from idgr.models.backbone import load_either
from idgr.models.device import pick_device
from idgr.models.tokenizer import id_tokens
from idgr.progress import Progress, log
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.prompts import either_renderer_of
from idgr.recommender.sequences import window_loss
from idgr.recommender.training import instance_loss, make_instances, windows_of

if TYPE_CHECKING:
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer

Floats = npt.NDArray[np.float64]

_AT_A_TIME = 64  # held-out targets
_GOING_BACK = 2  # times as many contexts as are drawn for choosing, since there is one name to try


def perform(phase: Phase) -> None:
    """Do a phase that is no command."""
    _STEPS[phase.command](phase)


def hold_out(rows: Iterable[Sequence], share: float, seed: int) -> tuple[list[Sequence], list[Query]]:
    """Sequences without the last items that are held out, and these as queries.

    They are those of the users whose keys, hashed with the seed, come first, whatever the order of the rows.
    """
    rows = list(rows)
    long = [row.user_id for row in rows if len(row.items) > 2]  # enough for a history and a target without the last
    n = min(len(long), max(1, round(share * len(long))))
    drawn = set(sorted(long, key=lambda user: hashlib.sha256(f"{seed} {user}".encode()).digest())[:n])
    kept = [Sequence(row.user_id, row.items[:-1]) if row.user_id in drawn else row for row in rows]
    held = [Query(row.user_id, row.items[:-1], row.items[-1]) for row in rows if row.user_id in drawn]
    return kept, held


def _hold_out(phase: Phase) -> None:
    told = phase.arguments
    info = RunInfo("hold-out", {"share": told["share"]}, {"train": told["train"]}, told["seed"])
    with info.replace_file(phase.output) as written:
        kept, held = hold_out(read_sequences(told["train"]), told["share"], told["seed"])
        if not held:
            raise IdgrError(
                "no sequence has three items, so none can be held out", "give more data", where=told["train"]
            )
        rows: list[Any] = kept if told["part"] == "train.jsonl" else held
        written.writelines(dump_line(row.row()) for row in rows)


def _offer(phase: Phase) -> None:
    items = phase.arguments["items"]
    with RunInfo("offer", {}, {"items": items}).replace_file(phase.output) as written:
        written.writelines(map(dump_line, word_candidates(read_catalogue(items))))


def _loaded(rec: str, ids: str, device: str) -> tuple[Backbone, PromptRenderer | HistoryRenderer, str, list[ItemId]]:
    """A recommender on its device, what renders its prompts, its objective, and the IDs that it was trained on."""
    facts, known = read_recommender_facts(rec), read_ids(ids)
    check_ids_known(facts, known, rec, ids, or_force=False)
    if facts.user_ids != "none":
        raise IdgrError("was trained with user IDs, which no candidates are scored with", "give another", where=rec)
    backbone = load_either(rec)
    backbone.model.to(pick_device(device)).eval()
    rows = id_tokens(backbone.tokenizer, [record.id for record in known])
    return backbone, either_renderer_of(facts, backbone.tokenizer, rows, None), facts.objective, known


def _score(
    told: dict[str, Any], ids: str, offers: Mapping[str, list[str]], most: int, n_contexts: int
) -> tuple[list[ItemId], list[list[str]], list[Floats], int]:
    """What other names of the items are worth to a recommender that was trained on `ids`.

    Args:
        told: the phase's arguments: `rec`, `train`, `seed`, `device`.
        offers: names for an item, by its key; at most `most` that it can have are tried.
        n_contexts: of each kind, at most, for an item.

    Returns:
        The items with their IDs, the names tried for each, the gains of these in nats an epoch, and the number of
        training instances.
    """
    backbone, renderer, objective, known = _loaded(told["rec"], ids, told["device"])
    number = {record.item_id: place for place, record in enumerate(known)}
    rows = list(read_sequences(told["train"], number))
    sequences = [[number[item] for item in row.items] for row in rows]
    names = other_names(known, offers, most, partial(can_name, backbone))
    instances = make_instances(sequences, renderer.max_history)
    marks_N = instance_marks(instances, [row.user_id for row in rows], sequences, told["seed"])
    contexts = draw_contexts(instances, marks_N, len(known), n_contexts)
    n_asked = sum(len(one.target) + len(one.history) for one, mine in zip(contexts, names, strict=True) if mine)
    every = [name for row in names for name in row]
    flat = iter(id_tokens(backbone.tokenizer, every) if every else ())
    tokens = [[next(flat) for _ in row] for row in names]
    with Progress("select", total=n_asked, unit="contexts") as shown:
        scorer = Scorer(backbone.model, renderer, instances, marks_N, objective)
        return known, names, scorer.gains(tokens, contexts, shown.advance), len(instances.end)


def _select(phase: Phase) -> None:
    told, how = phase.arguments, phase.arguments["how"]
    decisions = {name.replace("_", "-"): path for name, path in told.items() if name.startswith("decision_")}
    inputs = {name: told[name] for name in ("train", "ids", "rec", "candidates")} | decisions
    info = RunInfo("select", _options(how), inputs, told["seed"])
    cost = how.switching_cost * 2 ** sum(not read_decision(path)["accepted"] for path in decisions.values())
    with info.replace_file(phase.output) as written:
        offers = read_offers(told["candidates"])
        known, names, gains, n_instances = _score(told, told["ids"], offers, how.candidates, how.contexts)
        found = _choose(known, names, gains, how, cost, told["seed"])
        gain = sum(one.gain for one in found) / max(1, n_instances)
        info.facts["selection"] = {
            "items": len(known), "tried": len(found), "changed": len(found), "gain_predicted": round(gain, 6),
            "switching_cost": cost,
        }  # fmt: skip
        renamed = {one.item: names[one.item][one.candidate] for one in found}
        written.writelines(_lines(known, renamed))


def _go_back(phase: Phase) -> None:
    told, how = phase.arguments, phase.arguments["how"]
    inputs = {name: told[name] for name in ("train", "ids", "chosen", "rec")}
    info = RunInfo("go-back", _options(how), inputs, told["seed"])
    with info.replace_file(phase.output) as written:
        before = {record.item_id: [record.id] for record in read_ids(told["ids"])}  # free, where it has changed
        known, names, gains, _ = _score(told, told["chosen"], before, 1, _GOING_BACK * how.contexts)
        back = {place: names[place][0] for place, gain in enumerate(gains) if (gain > 0).any()}
        tried = read_run(told["chosen"])["selection"]
        info.facts["selection"] = {**tried, "changed": tried["tried"] - len(back)}
        written.writelines(_lines(known, back))


def _options(how: Selection) -> dict[str, Any]:
    return {name: one for name, one in asdict(how).items() if name != "ids"}


def _lines(known: list[ItemId], renamed: dict[int, str]) -> Iterable[bytes]:
    """Lines of IDs, where the items of some places have other ones."""
    records = (ItemId(one.item_id, renamed[place]) if place in renamed else one for place, one in enumerate(known))
    return (dump_line(record.row()) for record in records)


def _choose(
    known: list[ItemId],
    names: list[list[str]],
    gains: list[Floats],
    how: Selection,
    cost: float,
    seed: int,
) -> list[Reassigned]:
    keys, current = [record.item_id for record in known], [record.id for record in known]
    most = max(1, int(how.share_changed * len(known)))
    found = reassign(keys, current, names, gains, switching_cost=cost, most=most)
    if how.at_random:
        return reassign_at_random(keys, current, names, gains, n=len(found), seed=seed)
    return found


def _judge(phase: Phase) -> None:
    told = phase.arguments
    inputs = {name: told[name] for name in ("held", "ids", "rec", "control", "left", "tried")}
    info = RunInfo("judge", {}, inputs, told["seed"])
    with info.replace_file(phase.output) as written:
        judged = ((told["rec"], told["ids"]), (told["control"], told["ids"]), (told["tried"], told["left"]))
        before, control, after = (
            _held_loss(rec, ids, told["held"], told["seed"], told["device"]) for rec, ids in judged
        )
        selection = read_run(told["left"])["selection"]
        decision = {
            "round": told["round"], **selection, "loss_before": round(before, 6), "loss_control": round(control, 6),
            "loss_after": round(after, 6), "gain_found": round(control - after, 6), "accepted": after < control,
        }  # fmt: skip
        written.write(orjson.dumps(decision, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    log(f"alternate: {in_words(decision)}")


def _held_loss(rec: str, ids: str, held: str, seed: int, device: str) -> float:
    """The mean cost of the held-out targets, in nats, with a template each by the seed."""
    import torch

    from idgr.decoding.trie import build_trie

    backbone, renderer, objective, known = _loaded(rec, ids, device)
    number = {record.item_id: place for place, record in enumerate(known)}
    queries = list(read_queries(held, number, need_target=True))
    whole = [[number[item] for item in [*query.history, str(query.target)]] for query in queries]
    instances = make_instances(whole, renderer.max_history)
    last = np.cumsum([len(row) - 1 for row in whole]) - 1
    trie = build_trie(renderer.id_tokens, renderer.end)
    loss_of = (
        instance_loss(backbone.model, renderer, trie, instances, objective, seed)
        if isinstance(renderer, PromptRenderer)
        else window_loss(backbone.model, trie, windows_of(instances, renderer), objective, leads=renderer.leads)
    )
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(last), _AT_A_TIME):
            total += loss_of(last[begin : begin + _AT_A_TIME], 0)[0].item()
    return total / len(last)


_STEPS = {"hold-out": _hold_out, "offer": _offer, "select": _select, "go-back": _go_back, "judge": _judge}
