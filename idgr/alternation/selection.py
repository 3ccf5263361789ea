"""Alternate training by hard choices: a frozen recommender chooses among candidates for the items' IDs.

A round: the recommender scores the candidates and the IDs of some items change (`idgr.alternation.scoring`); it goes on
for an epoch in which both names are in use, then with the new ones; the generator, if there is one, is taught them. If
held-out targets of training cost less than they cost the same recommender after as many epochs with the old IDs, the
round is accepted; else everything stays as it was before, and the next round asks for twice the gain. The cost before
the round is no measure, since more epochs change it with any IDs. As in `idgr.alternation.phases`, a round is a list of
phases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from idgr.alternation.assignment import Reassigned, reassign, reassign_at_random
from idgr.alternation.candidates import can_name, other_names, read_offers, word_candidates
from idgr.alternation.phases import METRICS, Alternation, Phase
from idgr.alternation.scoring import Scorer, draw_contexts, instance_marks
from idgr.corpus.catalogue import read_catalogue
from idgr.errors import IdgrError
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import dump_line
from idgr.formats.rec_folder import check_ids_known, read_recommender_facts
from idgr.formats.records import ItemId, Query, Sequence, read_ids, read_queries, read_sequences
from idgr.formats.run_info import RunInfo, read_run
from idgr.models.backbone import is_preset, load_either
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

COMMANDS = ("hold-out", "offer", "select", "judge")

# Beside the seed of a round, that of its last epochs.
_SETTLING = 10_000
_AT_A_TIME = 64  # held-out targets


@dataclass(frozen=True)
class Selection:
    """How IDs are chosen; the names are those on the command line.

    Attributes:
        ids: the IDs to begin from; None for those of the generator.
        candidates: so many others of an item are scored.
        contexts: so many of each kind are drawn for an item.
        share_changed: of the items, at most, in a round.
        switching_cost: nats that an epoch has to cost less before an item's ID changes.
        held_out: the share of training sequences whose last item is held out, to judge rounds by.
        round_epochs: of the recommender in a round; in the first both names are in use.
        at_random: whether as many items get candidates that are drawn, as a control.
    """

    ids: str | None = None
    candidates: int = 10
    contexts: int = 8
    share_changed: float = 0.1
    switching_cost: float = 1.0
    held_out: float = 0.05
    round_epochs: int = 2
    at_random: bool = False


def plan_selection(run: Path, what: Alternation, how: Selection, device: str) -> list[Phase]:
    """The phases of a run in their order; every round's folder gets IDs, a recommender, maybe a generator.

    Args:
        what: its `gen_options` are those of `init-gen`.
        device: of what is done here, not by a command.
    """
    return _Plan(run, what, how, device).phases()


class _Plan:
    """Makes the phases, one after the other, on what the phases before them leave."""

    def __init__(self, run: Path, what: Alternation, how: Selection, device: str) -> None:
        self.run, self.what, self.how, self.device = run, what, how, device
        self.items, train, self.valid = (str(what.data / f"{name}.jsonl") for name in ("items", "train", "valid"))
        self.made: list[Phase] = []
        self.first = run / "round-0"
        self.gen, self.rec = what.gen, what.rec
        self.train, self.held = (
            self.add(0, "hold-out", self.first / name, train=train, share=how.held_out, seed=what.seed, part=name)
            for name in ("train.jsonl", "held.jsonl")
        )
        self.offers = self._offer()
        self.ids = self._first_ids()
        self.decisions: list[str] = []

    def add(self, number: int, command: str, output: Path, **arguments: Any) -> str:
        self.made.append(Phase(number, command, arguments, output))
        return str(output)

    def phases(self) -> list[Phase]:
        for number in range(1, self.what.rounds + 1):
            folder, before = self.run / f"round-{number}", self.ids
            if number == 1 and not self.what.gen_first:
                self.ids = self.add(number, "keep", folder / "ids.jsonl", source=self.ids)
                if self.gen is not None:
                    self.gen = self.add(number, "keep", folder / "gen", source=self.gen)
                self.rec = self._train_rec(number, folder / "rec", self.rec, self.ids, _seed(self.what, number))
            else:
                self._round(number, folder)
            state = {"rec": self.rec, "ids": self.ids, "gen": self.gen, "items": self.items}
            self.add(number, "validate", folder / METRICS, phase="rec", before=before, trained=self.rec, **state)
        return self.made

    def _offer(self) -> str:
        output = self.first / "candidates.jsonl"
        if self.gen is None:
            return self.add(0, "offer", output, items=self.items, train=self.train)
        return self.add(0, "gen-ids", output, items=self.items, model=self.gen, shard="1/1", **self.what.ids_options)

    def _first_ids(self) -> str:
        output = self.first / "ids.jsonl"
        if self.how.ids is not None:
            return self.add(0, "keep", output, source=self.how.ids)
        spells = {} if is_preset(self.rec) else {"rec_tokenizer": self.rec}
        return self.add(
            0, "gen-ids", output, items=self.items, model=self.gen, assign=[self.offers], **spells,
            **self.what.ids_options,
        )  # fmt: skip

    def _train_rec(self, number: int, output: Path, model: str, ids: str, seed: int, **more: Any) -> str:
        own = {**self.what.rec_options, **self.what.prompt_options, **more}
        own |= {"tokenizer": self.gen} if is_preset(model) and self.gen is not None else {}
        return self.add(
            number, "train-rec", output, train=self.train, ids=ids, valid=self.valid, model=model, seed=seed, **own
        )

    def _round(self, number: int, folder: Path) -> None:
        how, seed = self.how, _seed(self.what, number)
        old = {"gen": self.gen, "rec": self.rec, "ids.jsonl": self.ids}
        earlier = {f"decision_{place}": path for place, path in enumerate(self.decisions, 1)}
        chosen = self.add(
            number, "select", folder / "chosen.jsonl",
            train=self.train, ids=self.ids, rec=self.rec, candidates=self.offers, how=how, seed=seed,
            device=self.device, **earlier,
        )  # fmt: skip
        rest = how.round_epochs - 1
        mixed = self._train_rec(number, folder / "mixed", self.rec, chosen, seed, old_ids=self.ids, epochs=1)
        tried = self._train_rec(number, folder / "tried", mixed, chosen, seed + _SETTLING, epochs=rest)
        same = self._train_rec(number, folder / "same", self.rec, self.ids, seed, epochs=1)
        control = self._train_rec(number, folder / "control", same, self.ids, seed + _SETTLING, epochs=rest)
        new = {"gen": None, "rec": tried, "ids.jsonl": chosen}
        if self.gen is not None:
            new["gen"] = self.add(
                number, "init-gen", folder / "taught",
                items=self.items, pairs=chosen, model=self.gen, seed=seed, **self.what.gen_options,
            )  # fmt: skip
        decision = self.add(
            number, "judge", folder / "decision.json",
            held=self.held, ids=self.ids, rec=self.rec, control=control, chosen=chosen, tried=tried,
            seed=self.what.seed, round=number, device=self.device,
        )  # fmt: skip
        self.decisions.append(decision)
        settled = {
            name: self.add(number, "settle", folder / name, decision=decision, accepted=new[name], undone=old[name])
            for name in old
            if old[name] is not None
        }
        self.gen, self.rec, self.ids = settled.get("gen"), settled["rec"], settled["ids.jsonl"]


def _seed(what: Alternation, number: int) -> int:
    """The seed of a round."""
    return what.seed + number - 1


def perform(phase: Phase) -> None:
    """Do a phase that is no command."""
    {"hold-out": _hold_out, "offer": _offer, "select": _select, "judge": _judge}[phase.command](phase)


def table(run: Path, rounds: int) -> list[str]:
    """A line for each round that chose IDs: how many changed, what was hoped for, what came of it."""
    paths = [run / f"round-{number}" / "decision.json" for number in range(1, rounds + 1)]
    return [in_words(_decision(str(path))) for path in paths if path.is_file()]


def in_words(decision: dict[str, Any]) -> str:
    """A line on a round."""
    return (
        f"round {decision['round']}: {decision['changed']} of {decision['items']} IDs changed, gain predicted "
        f"{decision['gain_predicted']:.4f}, found {decision['gain_found']:.4f} nats an item: "
        + ("accepted" if decision["accepted"] else "undone")
    )


def _decision(path: str) -> dict[str, Any]:
    return read_object(Path(path), "run it again")


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
    told = phase.arguments
    info = RunInfo("offer", {}, {"items": told["items"], "train": told["train"]})
    with info.replace_file(phase.output) as written:
        items = read_catalogue(told["items"])
        number = {item.item_id: place for place, item in enumerate(items)}
        sequences = [[number[item] for item in row.items] for row in read_sequences(told["train"], number)]
        written.writelines(map(dump_line, word_candidates(items, sequences)))


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


def _select(phase: Phase) -> None:
    told, how = phase.arguments, phase.arguments["how"]
    decisions = {name.replace("_", "-"): path for name, path in told.items() if name.startswith("decision_")}
    inputs = {name: told[name] for name in ("train", "ids", "rec", "candidates")} | decisions
    info = RunInfo("select", {name: one for name, one in asdict(how).items() if name != "ids"}, inputs, told["seed"])
    cost = how.switching_cost * 2 ** sum(not _decision(path)["accepted"] for path in decisions.values())
    with info.replace_file(phase.output) as written:
        backbone, renderer, objective, known = _loaded(told["rec"], told["ids"], told["device"])
        number = {record.item_id: place for place, record in enumerate(known)}
        rows = list(read_sequences(told["train"], number))
        sequences = [[number[item] for item in row.items] for row in rows]
        names = other_names(known, read_offers(told["candidates"]), how.candidates, partial(can_name, backbone))
        instances = make_instances(sequences, renderer.max_history)
        marks_N = instance_marks(instances, [row.user_id for row in rows], sequences, told["seed"])
        contexts = draw_contexts(instances, marks_N, len(known), how.contexts)
        n_asked = sum(len(one.target) + len(one.history) for one, mine in zip(contexts, names, strict=True) if mine)
        every = [name for row in names for name in row]
        flat = iter(id_tokens(backbone.tokenizer, every) if every else ())
        tokens = [[next(flat) for _ in row] for row in names]
        with Progress("select", total=n_asked, unit="contexts") as shown:
            scorer = Scorer(backbone.model, renderer, instances, marks_N, objective)
            gains = scorer.gains(tokens, contexts, shown.advance)
        found = _choose(known, names, gains, how, cost, told["seed"])
        gain = sum(one.gain for one in found) / max(1, len(instances.end))
        info.facts["selection"] = {
            "items": len(known), "changed": len(found), "gain_predicted": round(gain, 6), "switching_cost": cost,
        }  # fmt: skip
        renamed = {one.item: names[one.item][one.candidate] for one in found}
        records = [
            ItemId(record.item_id, renamed[place]) if place in renamed else record for place, record in enumerate(known)
        ]
        written.writelines(dump_line(record.row()) for record in records)


def _choose(
    known: list[ItemId],
    names: list[list[str]],
    gains: list[np.ndarray[Any, np.dtype[np.float64]]],
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
    inputs = {name: told[name] for name in ("held", "ids", "rec", "control", "chosen", "tried")}
    info = RunInfo("judge", {}, inputs, told["seed"])
    with info.replace_file(phase.output) as written:
        judged = ((told["rec"], told["ids"]), (told["control"], told["ids"]), (told["tried"], told["chosen"]))
        before, control, after = (
            _held_loss(rec, ids, told["held"], told["seed"], told["device"]) for rec, ids in judged
        )
        chosen = read_run(told["chosen"])["selection"]
        decision = {
            "round": told["round"], **chosen, "loss_before": round(before, 6), "loss_control": round(control, 6),
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
        else window_loss(backbone.model, trie, windows_of(instances), objective, leads=renderer.leads)
    )
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(last), _AT_A_TIME):
            total += loss_of(last[begin : begin + _AT_A_TIME], 0)[0].item()
    return total / len(last)
