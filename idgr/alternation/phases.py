"""Alternate training (IDGenRec, section 2.5): generator and recommender in turns, as a plan of single commands.

A run is a list of phases, each a command with its arguments and one output; `idgr.alternation.rounds` performs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from idgr.errors import UsageError
from idgr.models.backbone import is_preset

MODES = ("alternate", "rec-only", "id-only")
ORDERS = ("gen-first", "rec-first")

METRICS = "metrics.json"


@dataclass(frozen=True)
class Alternation:
    """What alternates; the names are those on the command line.

    Attributes:
        data: a prepared folder with items.jsonl, train.jsonl and valid.jsonl.
        gen: the ID generator to begin from, a folder or hub name; None where IDs are chosen without one.
        rec: the recommender to begin from: a preset, a folder or a hub name.
        rounds: how many. A round trains the generator, makes the IDs anew, and trains the recommender on them; where
            the recommender comes first (see `order`), round 1 trains it alone, on the first generator's IDs. With
            "id-only" that is all that a recommender learns; a single round then trains the generator after it.
        mode: both in turns, or one of them alone (the paper's Table 5).
        order: whether the first round trains the generator before the recommender; None for what suits `rec`: through
            a recommender with random weights a generator would learn noise, so with a preset it comes second.
        gen_options: options of `train-gen`, `ids_options` of `gen-ids`, `rec_options` of `train-rec`.
        prompt_options: of both training commands, while the recommender cannot tell its own.
        user_ids: "history" for prompts with the user's ID, or "none".
        history: "shown", or "none" for the user's ID alone.
        seed: of the first round; each further round adds 1.

    Raises:
        UsageError: a value is out of range, or the order does not suit the recommender.
    """

    data: Path
    gen: str | None
    rec: str
    rounds: int = 3
    mode: str = "alternate"
    order: str | None = None
    gen_options: dict[str, Any] = field(default_factory=dict)
    ids_options: dict[str, Any] = field(default_factory=dict)
    rec_options: dict[str, Any] = field(default_factory=dict)
    prompt_options: dict[str, Any] = field(default_factory=dict)
    user_ids: str = "none"
    history: str = "shown"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}", "give a number of at least 1")
        for name, value, known in (("mode", self.mode, MODES), ("order", self.order, (None, *ORDERS))):
            if value not in known:
                raise UsageError(f"--{name} {value}", f"choose {', '.join(filter(None, known))}")
        if self.history == "none" and (self.user_ids == "none" or self.mode != "rec-only"):
            raise UsageError(
                "--history none shows no item's ID, so only the recommender can learn, and from user IDs",
                "give --mode rec-only --user-ids history",
            )
        if self.order == "gen-first" and is_preset(self.rec):
            raise UsageError(
                f"--order gen-first with --rec {self.rec}, through whose random weights nothing is learnt",
                "take --order rec-first, or give a trained recommender to --rec",
            )

    @property
    def gen_first(self) -> bool:
        return not is_preset(self.rec) if self.order is None else self.order == "gen-first"

    def turns(self, number: int) -> tuple[str, ...]:
        """Which of "gen" and "rec" a round trains, in their order."""
        if self.mode == "rec-only":
            return ("rec",)
        if number > 1 or self.gen_first:
            return ("gen",) if self.mode == "id-only" else ("gen", "rec")
        # A recommender that is not trained at all cannot be scored, nor learnt through.
        return ("rec", "gen") if self.mode == "id-only" and self.rounds == 1 else ("rec",)

    def goes_on_from(self, rounds: int) -> bool:
        """Whether a run of so many rounds, else the same, is the beginning of this one."""
        if not 1 <= rounds <= self.rounds:
            return False
        return replace(self, rounds=rounds).turns(1) == self.turns(1)


@dataclass(frozen=True)
class Phase:
    """A command of idgr, or `keep` for a copy of what a round does not change, or `validate`.

    Where IDs are chosen (`idgr.alternation.selection`) also its steps, and `settle` for a copy of what a round
    has made or of what was before it, as it was decided.

    Attributes:
        round: from 1; 0 for what comes before the first round.
        command: its name on the command line.
        arguments: by the names of the command's parameters.
        output: the file or folder it makes.
    """

    round: int
    command: str
    arguments: dict[str, Any]
    output: Path


def plan(run: Path, what: Alternation) -> list[Phase]:
    """The phases of a run in their order; every round's folder gets a generator, IDs and a recommender.

    Commands read what commands wrote, not the copies, so that without the copies they are a chain of their own.
    """
    data = what.data
    items, train, valid = (str(data / name) for name in ("items.jsonl", "train.jsonl", "valid.jsonl"))
    phases: list[Phase] = []
    gen, rec = str(what.gen), what.rec

    def add(number: int, command: str, output: Path, **arguments: Any) -> str:
        phases.append(Phase(number, command, arguments, output))
        return str(output)

    def generate(number: int, output: Path, model: str) -> str:
        return add(number, "gen-ids", output, items=items, model=model, **what.ids_options)

    def train_gen(number: int, folder: Path, seed: int) -> tuple[str, str]:
        # The first recommender may know no IDs at all, and that of `id-only` never gets to know the new ones.
        strange = number == 1 or what.mode == "id-only"
        own = {"force": True, **what.prompt_options} if strange else {}
        new = add(
            number, "train-gen", folder / "gen",
            train=train, items=items, ids=ids, rec=rec, gen=gen, seed=seed, **what.gen_options, **own,
        )  # fmt: skip
        return new, generate(number, folder / "ids.jsonl", new)

    def train_rec(number: int, folder: Path, seed: int) -> str:
        own = {**what.rec_options, **what.prompt_options, "user_ids": what.user_ids, "history": what.history}
        own |= {"tokenizer": gen} if is_preset(rec) else {}
        own |= {"gen": gen, "items": items} if what.user_ids != "none" else {}
        return add(
            number, "train-rec", folder / "rec",
            train=train, ids=ids, valid=valid, model=rec, seed=seed, **own,
        )  # fmt: skip

    ids = generate(0, run / "round-0" / "ids.jsonl", gen)
    for number in range(1, what.rounds + 1):
        folder, seed = run / f"round-{number}", what.seed + number - 1
        turns = what.turns(number)
        if "gen" not in turns:
            add(number, "keep", folder / "gen", source=gen)
            add(number, "keep", folder / "ids.jsonl", source=ids)
        for turn in turns:
            before = ids
            if turn == "gen":
                gen, ids = train_gen(number, folder, seed)
            else:
                rec = train_rec(number, folder, seed)
            state = {"gen": gen, "rec": rec, "ids": ids, "items": items}
            trained = gen if turn == "gen" else rec
            add(number, "validate", folder / METRICS, phase=turn, before=before, trained=trained, **state)
        if "rec" not in turns:
            add(number, "keep", folder / "rec", source=rec)
    return phases


def rounds_in_words(phases: Iterable[Phase]) -> dict[int, str]:
    """By its number, what a round does, such as "train-gen, gen-ids, train-rec"; round 0 makes the first IDs."""
    commands: dict[int, list[str]] = {}
    for phase in phases:
        if phase.command not in ("keep", "settle", "validate"):
            commands.setdefault(phase.round, []).append(phase.command)
    return {number: ", ".join(names) for number, names in commands.items()}
