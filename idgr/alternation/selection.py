"""Alternate training by hard choices: a frozen recommender chooses among candidates for the items' IDs.

A round: the recommender scores the candidates and some items get another ID (`idgr.alternation.scoring`); it goes on
for an epoch in which both names are in use, then, where names may go back, with those that are the better now that both
are learnt, else with the new ones; the generator, if there is one, is taught them. If held-out targets of training cost
less than they cost the same recommender after as many epochs with the old IDs, the round is accepted; else everything
stays as it was before, and the next round asks for twice the gain. The cost before the round is no measure, since more
epochs change it with any IDs. As in `idgr.alternation.phases`, a round is a list of phases; those that are no commands
are in `idgr.alternation.selection_steps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idgr.alternation.phases import METRICS, Alternation, Phase
from idgr.formats.json_file import read_object
from idgr.models.backbone import is_preset

# Beside the seed of a round, that of its last epochs.
_SETTLING = 10_000


@dataclass(frozen=True)
class Selection:
    """How IDs are chosen; the names are those on the command line.

    Attributes:
        ids: the IDs to begin from; None for those of the generator.
        candidates: so many others of an item are scored.
        contexts: so many of each kind are drawn for an item.
        share_changed: of the items that try another ID in a round, at most.
        switching_cost: nats that an epoch has to cost less for an item to try another ID.
        held_out: the share of training sequences whose last item is held out, to judge rounds by.
        round_epochs: of the recommender in a round; in the first both names are in use.
        go_back: whether, after that epoch, items whose old ID has become the better one get it back.
        at_random: whether as many items get candidates that are drawn, as a control.
    """

    ids: str | None = None
    candidates: int = 10
    contexts: int = 8
    share_changed: float = 0.1
    switching_cost: float = 1.0
    held_out: float = 0.05
    round_epochs: int = 2
    go_back: bool = False
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
            return self.add(0, "offer", output, items=self.items)
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
        if not is_preset(model):
            own.pop("vocab_size", None)
        elif self.gen is not None:
            own["tokenizer"] = self.gen
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
        left = self._go_back(number, folder, mixed, chosen) if how.go_back else chosen
        tried = self._train_rec(number, folder / "tried", mixed, left, seed + _SETTLING, epochs=rest)
        same = self._train_rec(number, folder / "same", self.rec, self.ids, seed, epochs=1)
        control = self._train_rec(number, folder / "control", same, self.ids, seed + _SETTLING, epochs=rest)
        new = {"gen": None, "rec": tried, "ids.jsonl": left}
        if self.gen is not None:
            new["gen"] = self.add(
                number, "init-gen", folder / "taught",
                items=self.items, pairs=left, model=self.gen, seed=seed, **self.what.gen_options,
            )  # fmt: skip
        decision = self.add(
            number, "judge", folder / "decision.json",
            held=self.held, ids=self.ids, rec=self.rec, control=control, left=left, tried=tried,
            seed=self.what.seed, round=number, device=self.device,
        )  # fmt: skip
        self.decisions.append(decision)
        settled = {
            name: self.add(number, "settle", folder / name, decision=decision, accepted=new[name], undone=old[name])
            for name in old
            if old[name] is not None
        }
        self.gen, self.rec, self.ids = settled.get("gen"), settled["rec"], settled["ids.jsonl"]

    def _go_back(self, number: int, folder: Path, mixed: str, chosen: str) -> str:
        return self.add(
            number, "go-back", folder / "left.jsonl",
            train=self.train, ids=self.ids, chosen=chosen, rec=mixed, how=self.how,
            seed=_seed(self.what, number) + _SETTLING, device=self.device,
        )  # fmt: skip


def _seed(what: Alternation, number: int) -> int:
    """The seed of a round."""
    return what.seed + number - 1


def table(run: Path, rounds: int) -> list[str]:
    """A line for each round that chose IDs: how many changed, what was hoped for, what came of it."""
    paths = [run / f"round-{number}" / "decision.json" for number in range(1, rounds + 1)]
    return [in_words(read_decision(str(path))) for path in paths if path.is_file()]


def in_words(decision: dict[str, Any]) -> str:
    """A line on a round."""
    return (
        f"round {decision['round']}: of {decision['items']} IDs {decision['tried']} were tried, {decision['changed']} "
        f"changed; gain predicted {decision['gain_predicted']:.4f}, found {decision['gain_found']:.4f} nats an item: "
        + ("accepted" if decision["accepted"] else "undone")
    )


def read_decision(path: str) -> dict[str, Any]:
    """What was found of a round and whether it was accepted."""
    return read_object(Path(path), "run it again")
