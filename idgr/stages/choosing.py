"""How `idgr alternate` comes to new IDs, and the options of choosing them among candidates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from idgr.errors import IdgrError, UsageError
from idgr.formats.run_info import read_run
from idgr.options import Role, StageOptions, option, option_fields
from idgr.recommender.defaults import defaults
from idgr.stages import init_gen

SOFT, RANDOM = "soft", "random"
PANEL = "Choosing IDs, by --method select"


@dataclass(frozen=True, kw_only=True)
class ChoosingOptions(StageOptions):
    """Options of `alternate` for it."""

    method: Literal["soft", "select", "random"] = option(
        "soft: the generator learns through the recommender, as in the paper. select: the recommender chooses among "
        "candidates; random, as many are drawn, as a control.",
        SOFT,
    )
    ids: str | None = option("IDs to begin from; else those of --gen.", None, PANEL, role=Role.INPUT)
    candidates: int = option("Other IDs of an item that are scored.", 10, PANEL, at_least=1)
    contexts: int = option(
        "Contexts drawn for an item as target, and as many with it in the history.", 8, PANEL, at_least=1
    )
    share_changed: float = option(
        "Share of the items that try another ID in a round, at most.", 0.1, PANEL, above=0, at_most=1
    )
    switching_cost: float = option(
        "Nats that an epoch must cost less for an item to try another ID; doubled by a round that is undone.",
        1.0,
        PANEL,
        at_least=0,
    )
    held_out: float = option(
        "Share of training sequences whose last item is held out, to judge rounds by.", 0.05, PANEL, above=0, below=1
    )
    round_epochs: int = option(
        "Epochs of the recommender in a round; in the first both names are in use.", 2, PANEL, at_least=2
    )
    go_back: bool = option(
        "After the epoch with both names, items whose old one has become the better get it back.", False, PANEL
    )

    def choosing(self) -> dict[str, Any]:
        """Those of choosing, with their values."""
        return {one.name: getattr(self, one.name) for one in option_fields(ChoosingOptions) if one.name != "method"}

    def by_role(self, role: Role) -> dict[str, Any]:
        """Those that the method reads."""
        found = super().by_role(role)
        left_out = [one.key for one in option_fields(ChoosingOptions)] if self.method == SOFT else []
        return {key: value for key, value in found.items() if key not in left_out}

    def check_method(self, gen: str | None, gen_options: Iterable[str], ids_options: Iterable[str]) -> None:
        """Raise `UsageError` where an option is not for the method, or one is missing.

        Args:
            gen: the generator, if there is one.
            gen_options, ids_options: the names of those that are given for its training and its IDs.
        """
        if self.method == SOFT:
            for one in option_fields(ChoosingOptions):
                if getattr(self, one.name) != one.default:
                    raise UsageError(f"{one.flag} is for --method select", "leave it out")
            return
        how = f"--method {self.method}"
        if gen is None and self.ids is None:
            todo = "give the IDs to begin from, or a generator that makes them"
            raise UsageError(f"{how} with neither --gen nor --ids", todo)
        known = {one.name for one in option_fields(init_gen.Options)}
        for name in gen_options:
            if name not in known:
                raise UsageError(f"--gen.{name.replace('_', '-')} is for --method soft", "leave it out")
        for prefix, given in (("gen", gen_options), ("ids", ids_options)):
            for name in given if gen is None else ():
                raise UsageError(f"--{prefix}.{name.replace('_', '-')} without --gen", "give a generator")


def remembered(rec: str) -> dict[str, Any]:
    """The options of `train-rec` by which a recommender goes on to read histories as it does."""
    told = read_run(rec) if Path(rec).is_dir() else {}
    found: dict[str, Any] = {"separator": "newline"} if told.get("separator") == "newline" else {}
    return found | ({"causal_encoder": True} if told.get("causal_encoder") is True else {})


def check_recommender(rec: str, method: str, rec_options: Iterable[str], *, paper: bool, user_ids: str) -> None:
    """Raise where the recommender to begin from is none that the method or the options are for.

    Args:
        rec_options: the names of those that are given for its training.

    Raises:
        IdgrError: it is neither a T5 nor a Llama, or has an item head.
        UsageError: an option is for a causal recommender, or for a T5; or there are user IDs beside a causal encoder.
    """
    from idgr.formats.rec_folder import read_item_head_weight
    from idgr.models.backbone import arch_of, check_t5, is_preset

    arch = arch_of(rec)
    if not is_preset(rec) and arch != "causal":
        check_t5(rec, f"alternate --method {method}")
    if arch != "causal":
        for name in ("separator", "item_slots"):
            if name in rec_options:
                raise UsageError(f"--rec.{name.replace('_', '-')} is for a causal --rec", "leave it out")
    elif "causal_encoder" in rec_options:
        raise UsageError("--rec.causal-encoder is for a T5 as --rec", "leave it out; a causal model reads so anyway")
    if user_ids != "none" and "causal_encoder" in {*remembered(rec), *rec_options}:
        what = f"--user-ids {user_ids} with a recommender whose encoder is causal by item (--causal-encoder)"
        raise UsageError(what, "leave them out, or give another --rec")
    defaults(arch, paper=paper)
    if read_item_head_weight(rec) is not None:
        what = f"has an item head, which --method {method} does not score with"
        raise IdgrError(what, "give a recommender of `idgr train-rec` without --item-head", where=rec)
