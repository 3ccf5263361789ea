"""`idgr alternate --method select`: its rounds, what is undone, and going on after a SIGKILL anywhere."""

# ruff: noqa: F811

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from idgr.alternation import selection_steps
from idgr.alternation.candidates import can_name
from idgr.alternation.folder import claim
from idgr.alternation.phases import Alternation, rounds_in_words
from idgr.alternation.scoring import Contexts
from idgr.alternation.selection import Selection, plan_selection
from idgr.alternation.selection_steps import hold_out
from idgr.cli.main import run
from idgr.formats.inputs import sha256_file
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import Sequence
from idgr.models.backbone import CAUSAL_PRESETS, PRESETS, CausalPreset, load_causal_backbone
from idgr.models.tokenizer import id_tokens

from .test_alternation import IDS, SEQUENCES, TINY, data, refusal, results, run_until_killed  # noqa: F401

CAUSAL = ("--rec", "nano-causal", "--go-back")
TINY_CAUSAL = CausalPreset(d_model=16, d_ff=24, num_layers=1, num_heads=2, vocab_size=340)


@pytest.fixture(autouse=True)
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nano", TINY)
    monkeypatch.setitem(CAUSAL_PRESETS, "nano-causal", TINY_CAUSAL)


def arguments(data: Path, output: Path, *more: str, method: str = "select", gen: bool = True) -> list[str]:
    few = ["--rounds", "3", "--rec.epochs", "1", "--valid-beams", "10", "--device", "cpu", "--held-out", "0.5"]
    few += ["--switching-cost", "0", "--share-changed", "0.25", "--method", method]
    # So strong a penalty that the groups of the search have different candidates.
    few += ["--gen", str(data / "gen"), "--ids.penalty-start", "20", "--ids.penalty-stop", "20"] if gen else []
    return ["alternate", str(data), *few, *more, "-o", str(output)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def ids_of(path: Path) -> dict[str, str]:
    return {row["item_id"]: row["id"] for row in lines_of(path)}


def decision(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((folder / f"round-{number}" / "decision.json").read_bytes())
    return found


def test_the_phases_of_a_round() -> None:
    what = Alternation(Path("d"), "gen", "nano", rounds=2)
    phases = plan_selection(Path("run"), what, Selection(), "cpu")
    assert rounds_in_words(phases) == {
        0: "hold-out, hold-out, gen-ids, gen-ids",
        1: "train-rec",
        2: "select, train-rec, train-rec, train-rec, train-rec, init-gen, judge",
    }
    of_round = [phase for phase in phases if phase.round == 2]
    select, mixed, tried, same, control, taught, judge, *settled = of_round
    assert mixed.arguments["old_ids"] == "run/round-1/ids.jsonl"
    assert mixed.arguments["ids"] == tried.arguments["ids"] == taught.arguments["pairs"] == str(select.output)
    assert (mixed.arguments["model"], tried.arguments["model"]) == ("run/round-1/rec", "run/round-2/mixed")
    # The control sees as many epochs, in the same order, with the IDs that were.
    assert (same.arguments["model"], control.arguments["model"]) == ("run/round-1/rec", "run/round-2/same")
    for one, other in ((mixed, same), (tried, control)):
        differ = {name for name in one.arguments if one.arguments[name] != other.arguments.get(name)}
        assert differ == {"ids", "model", "old_ids"} - ({"model"} if one is mixed else {"old_ids"})
        assert other.arguments["ids"] == "run/round-1/ids.jsonl"
    assert (judge.arguments["rec"], judge.arguments["control"]) == ("run/round-1/rec", "run/round-2/control")
    assert {str(one.output): one.arguments for one in settled[:-1]} == {
        f"run/round-2/{name}": {"decision": "run/round-2/decision.json", "accepted": new, "undone": old}
        for name, new, old in (
            ("gen", "run/round-2/taught", "run/round-1/gen"),
            ("rec", "run/round-2/tried", "run/round-1/rec"),
            ("ids.jsonl", "run/round-2/chosen.jsonl", "run/round-1/ids.jsonl"),
        )
    }
    # Names that may go back do so between the two trainings.
    phases = plan_selection(Path("run"), what, Selection(go_back=True), "cpu")
    select, mixed, back, tried, _, _, taught, judge, *settled = [phase for phase in phases if phase.round == 2]
    assert (mixed.arguments["ids"], back.command) == (str(select.output), "go-back")
    known = {name: back.arguments[name] for name in ("ids", "chosen", "rec")}
    assert known == {"ids": "run/round-1/ids.jsonl", "chosen": str(select.output), "rec": str(mixed.output)}
    later = (
        tried.arguments["ids"],
        taught.arguments["pairs"],
        judge.arguments["left"],
        settled[2].arguments["accepted"],
    )
    assert set(later) == {str(back.output)}
    # Without a generator nobody is taught; a trained recommender chooses at once.
    what = Alternation(Path("d"), None, "rec", rounds=1)
    phases = plan_selection(Path("run"), what, Selection(ids="ids.jsonl"), "cpu")
    assert rounds_in_words(phases) == {
        0: "hold-out, hold-out, offer",
        1: "select, train-rec, train-rec, train-rec, train-rec, judge",
    }


@pytest.mark.parametrize("gen", ["gen", None])
def test_every_output_is_known_as_the_runs_own(gen: str | None, tmp_path: Path) -> None:
    """So that --overwrite takes it away, and a stranger's file stops it."""
    what = Alternation(Path("d"), gen, "nano", rounds=2)
    for phase in plan_selection(tmp_path, what, Selection(ids="ids.jsonl", go_back=True), "cpu"):
        if phase.output.suffix:
            phase.output.parent.mkdir(parents=True, exist_ok=True)
            phase.output.touch()
        else:
            phase.output.mkdir(parents=True)
            (phase.output.parent / f".{phase.output.name}.checkpoint").mkdir()
    (tmp_path / "run.json").write_bytes(orjson.dumps({"command": "alternate"}))
    claim(tmp_path, {}, what, overwrite=True)
    assert not list(tmp_path.iterdir())


def test_held_out_are_last_items_whatever_the_order() -> None:
    rows = [Sequence(f"u{n}", [f"i{n}", "a", "b"][: 2 + n % 2]) for n in range(20)]
    kept, held = hold_out(rows, 0.3, seed=1)
    assert len(held) == 3
    assert all(len(query.history) == 2 and query.target == "b" for query in held)
    drawn = {query.user_id for query in held}
    assert [row.items for row in kept] == [row.items[:-1] if row.user_id in drawn else row.items for row in rows]
    assert {query.user_id for query in hold_out(rows[::-1], 0.3, seed=1)[1]} == drawn
    assert {query.user_id for query in hold_out(rows, 0.3, seed=2)[1]} != drawn
    assert hold_out(rows[:1], 0.5, seed=1)[1] == []


def finish(data: Path, output: Path, *more: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        patch.setitem(CAUSAL_PRESETS, "nano-causal", TINY_CAUSAL)
        assert run(arguments(data, output, *more)) == 0
    return output


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    return finish(data, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def finished_causal(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of a causal recommender."""
    return finish(data, tmp_path_factory.mktemp("finished") / "run", *CAUSAL)


@pytest.mark.parametrize("of", ["finished", "finished_causal"])
def test_a_round_is_taken_or_undone_whole(of: str, request: pytest.FixtureRequest, data: Path) -> None:
    finished: Path = request.getfixturevalue(of)
    for number in (2, 3):
        made, told = finished / f"round-{number}", decision(finished, number)
        before, after = ids_of(finished / f"round-{number - 1}" / "ids.jsonl"), ids_of(made / "chosen.jsonl")
        assert list(after) == list(before)
        changed = [item for item in before if before[item] != after[item]]
        assert 0 < len(changed) == told["tried"] <= 3
        assert len(set(after.values())) == len(IDS)
        offered = {row["item_id"]: row["candidates"] for row in lines_of(finished / "round-0" / "candidates.jsonl")}
        assert all(after[item] in offered[item] for item in changed)
        assert told["gain_predicted"] > 0
        last = made / ("left.jsonl" if of == "finished_causal" else "chosen.jsonl")
        left = ids_of(last)
        assert all(left[item] in (before[item], after[item]) for item in before)
        assert sum(left[item] != before[item] for item in before) == told["changed"]
        assert told["gain_found"] == pytest.approx(told["loss_control"] - told["loss_after"], abs=2e-6)
        assert told["accepted"] is (told["loss_after"] < told["loss_control"])
        source = {"gen": "taught", "rec": "tried"} if told["accepted"] else {"gen": "gen", "rec": "rec"}
        folder = made if told["accepted"] else finished / f"round-{number - 1}"
        for name, came in source.items():
            assert results(made / name) == results(folder / came)
        ids = last if told["accepted"] else folder / "ids.jsonl"
        assert (made / "ids.jsonl").read_bytes() == ids.read_bytes()
    lines = [orjson.loads(line) for line in (finished / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert {path.name for path in (finished / "final").iterdir()} >= {"gen", "rec", "ids.jsonl", "metrics.json"}
    # What is held out is what training lacks.
    held = {row["user_id"]: row for row in lines_of(finished / "round-0" / "held.jsonl")}
    rows = {row["user_id"]: row["items"] for row in lines_of(finished / "round-0" / "train.jsonl")}
    whole = {row["user_id"]: row["items"] for row in lines_of(data / "train.jsonl")}
    assert 0 < len(held) < len(SEQUENCES)
    assert {user: [*items, *([held[user]["target"]] if user in held else [])] for user, items in rows.items()} == whole


def test_a_round_that_is_undone_doubles_the_cost_of_switching(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Before, after as many epochs with the old IDs, and with the new: the last two decide.
    losses = iter([9.0, 1.0, 1.5, 0.4, 1.0, 0.5, 9.0, 1.0, 2.0])
    monkeypatch.setattr(selection_steps, "_held_loss", lambda *given: next(losses))
    output = tmp_path / "run"
    command = arguments(data, output, "--rounds", "4", "--switching-cost", "0.001")
    assert run(command) == 0
    told = [decision(output, number) for number in (2, 3, 4)]
    assert [one["accepted"] for one in told] == [False, True, False]
    assert [one["switching_cost"] for one in told] == [0.001, 0.002, 0.002]
    for name in ("gen", "rec", "ids.jsonl", "ids.jsonl.run.json"):
        for undone, before in ((2, 1), (4, 3)):
            old, new = output / f"round-{before}" / name, output / f"round-{undone}" / name
            same = results(old) == results(new) if old.is_dir() else old.read_bytes() == new.read_bytes()
            assert same, name
    said = capsys.readouterr().err
    assert said.count("changed; gain predicted") == 6  # when it is judged, and in the table at the end
    assert "found 0.5000 nats an item: accepted" in said
    assert run(command) == 0
    said = capsys.readouterr().err
    assert said.count("done before") > 15
    assert said.count("found -0.5000 nats an item: undone") == 1


def test_a_name_that_is_the_worse_once_learnt_goes_back(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the items that changed gains by its old name, the second as much by either, the third loses."""
    asked = []

    def gains(self: object, tokens: list[list[object]], contexts: list[Contexts], advance: object) -> list[Any]:
        asked.append(max(len(one.target) for one in contexts))
        if len(asked) == 1:
            return [np.ones(len(names)) for names in tokens]
        assert {len(names) for names in tokens} == {0, 1}
        left = iter([0.5, 0.0, -0.5])
        return [np.array([next(left)]) if names else np.zeros(0) for names in tokens]

    monkeypatch.setattr(selection_steps.Scorer, "gains", gains)
    output = tmp_path / "run"
    assert run(arguments(data, output, "--rounds", "2", "--contexts", "1", "--go-back")) == 0
    made = output / "round-2"
    before, chosen, left = (
        ids_of(path) for path in (output / "round-1" / "ids.jsonl", made / "chosen.jsonl", made / "left.jsonl")
    )
    changed = [item for item in before if before[item] != chosen[item]]
    assert len(changed) == 3
    assert left == {**chosen, changed[0]: before[changed[0]]}
    assert (decision(output, 2)["tried"], decision(output, 2)["changed"]) == (3, 2)
    assert asked == [1, 2]  # twice as many contexts, for one name


@pytest.mark.parametrize(("of", "more"), [("finished", ()), ("finished_causal", CAUSAL)])
def test_goes_on_after_being_killed_anywhere(
    of: str, more: tuple[str, ...], request: pytest.FixtureRequest, data: Path, tmp_path: Path
) -> None:
    output, kills = tmp_path / "run", 0
    while run_until_killed(arguments(data, output, *more), kills):
        kills += 1
    assert kills > 10
    assert results(output) == results(request.getfixturevalue(of))


def test_ids_of_a_file_with_other_choices_of_words(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids, output = tmp_path / "ids.jsonl", tmp_path / "run"
    write_jsonl(ids, ({"item_id": f"i{n}", "id": f"{text} acme"} for n, text in enumerate(IDS)))
    assert run(arguments(data, output, "--ids", str(ids), "--rounds", "2", gen=False)) == 0
    assert ids_of(output / "round-1" / "ids.jsonl") == ids_of(ids)
    assert not (output / "final" / "gen").exists()
    for item, name in ids_of(output / "round-2" / "chosen.jsonl").items():
        assert set(name.split()) <= {*ids_of(ids)[item].split()}
    assert run(["audit", str(output), "--data", str(data), "-o", str(tmp_path / "audit.json")]) in (0, 1)
    assert "internal" not in capsys.readouterr().err
    found = orjson.loads((tmp_path / "audit.json").read_bytes())["checks"]
    of_models = {row["subject"]: row["verdict"] for row in found if row["name"] == "IDs and model belong together"}
    assert {str(output / "round-2" / name) for name in ("mixed", "tried", "same", "control", "rec")} <= of_models.keys()
    assert set(of_models.values()) == {"PASS"}  # what a round tries and leaves has each the IDs that it was trained on


def test_a_control_changes_as_many_at_random(data: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(arguments(data, output, "--rounds", "2", method="random")) == 0
    found, chosen = decision(output, 2), decision(finished, 2)
    assert found["changed"] == chosen["changed"]
    assert found["gain_predicted"] < chosen["gain_predicted"]


def test_the_single_commands_are_shown(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(data, tmp_path / "run", "--rounds", "2", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line if line.startswith("#") else shlex.split(line)[1] for line in lines]
    base = tmp_path / "run"
    assert words == [
        "# round 0: hold-out, hold-out, gen-ids, gen-ids",
        f"# hold-out: {base}/round-0/train.jsonl", f"# hold-out: {base}/round-0/held.jsonl", "gen-ids", "gen-ids",
        "# round 1: train-rec", "train-rec", "# round 2: select, " + "train-rec, " * 4 + "init-gen, judge",
        f"# select: {base}/round-2/chosen.jsonl", *["train-rec"] * 4, "init-gen",
        f"# judge: {base}/round-2/decision.json",
    ]  # fmt: skip
    assert not base.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--mode", "rec-only"), "with --mode rec-only"),
        (("--user-ids", "history"), "with --user-ids history"),
        (("--gen.temperature", "2"), "--gen.temperature is for --method soft"),
        (("--rec.vocab-size", "300"), "--rec.vocab-size, but the recommender has the vocabulary of --gen"),
        (
            ("--rec", "nano-causal", "--templates", "t.txt"),
            "--templates with --rec nano-causal, which reads",
        ),
        (("--method", "soft"), "--share-changed is for --method select"),
        (("--round-epochs", "1"), "--round-epochs 1"),
        (("--share-changed", "0"), "--share-changed 0"),
    ],
)
def test_options_that_do_not_go_together(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    said: str,
) -> None:
    assert said in refusal(capsys, arguments(data, tmp_path / "run", *more), 2)


def test_begins_from_something(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither --gen nor --ids" in refusal(capsys, arguments(data, tmp_path / "run", gen=False), 2)
    assert "--gen is missing" in refusal(capsys, ["alternate", str(data), "-o", str(tmp_path / "run")], 2)
    given = arguments(data, tmp_path / "run", "--ids", "ids.jsonl", "--ids.beams", "4", gen=False)
    assert "--ids.beams without --gen" in refusal(capsys, given, 2)


def test_a_recommender_of_other_ids_is_refused(
    data: Path,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = tmp_path / "ids.jsonl"
    write_jsonl(ids, ({"item_id": f"i{n}", "id": f"acme {text}"} for n, text in enumerate(IDS)))
    rec = shutil.copytree(finished / "round-1" / "rec", tmp_path / "rec")
    command = arguments(data, tmp_path / "run", "--ids", str(ids), "--rec", str(rec))
    assert "was trained on other IDs" in refusal(capsys, command, 1)


@pytest.mark.parametrize("knows", [False, True])
def test_a_recommender_that_knows_what_is_held_out_is_told(
    knows: bool, data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rec = shutil.copytree(finished / "round-1" / "rec", tmp_path / "rec")
    if knows:
        record = orjson.loads((rec / "run.json").read_bytes())
        record["inputs"]["train"]["sha256"] = sha256_file(data / "train.jsonl")
        (rec / "run.json").write_bytes(orjson.dumps(record))
    ids = tmp_path / "ids.jsonl"
    write_jsonl(ids, ({"item_id": f"i{n}", "id": f"acme {text}"} for n, text in enumerate(IDS)))
    assert run(arguments(data, tmp_path / "run", "--ids", str(ids), "--rec", str(rec))) == 1
    assert ("was trained on the targets that are held out" in capsys.readouterr().err) == knows


def test_a_causal_recommender_is_taken_as_it_was_trained(
    data: Path, finished_causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rec = shutil.copytree(finished_causal / "final" / "rec", tmp_path / "rec")
    ids = finished_causal / "final" / "ids.jsonl"
    command = arguments(data, tmp_path / "run", "--ids", str(ids), "--rec", str(rec), "--rounds", "1", gen=False)
    record = orjson.loads((rec / "run.json").read_bytes())
    (rec / "run.json").write_bytes(orjson.dumps(record | {"separator": "newline"}))
    assert run([*command, "--dry-run"]) == 0
    commands = capsys.readouterr().out
    assert commands.count("--separator newline") == 4  # two epochs with the new IDs, and two with the old
    assert commands.count("--max-history 50") == 4  # as `train-rec` settles it for a causal one
    (rec / "run.json").write_bytes(orjson.dumps(record | {"item_head": {"weight": 1.0, "lambda": 0.5}}))
    assert "has an item head, which --method select does not score with" in refusal(capsys, command, 1)
    given = arguments(data, tmp_path / "run", "--rec.no-item-slots")
    assert "--rec.item-slots is for a causal --rec" in refusal(capsys, given, 2)


def test_no_candidate_is_longer_than_the_places_of_an_item(finished_causal: Path) -> None:
    backbone = load_causal_backbone(finished_causal / "round-1" / "rec")
    slots = backbone.model.config.item_slots
    texts = [" ".join(["red tent"] * n) for n in range(1, 9)] + ["\u6f22"]
    found = can_name(backbone, texts)
    assert found[:-1] == [len(row) + 1 <= slots for row in id_tokens(backbone.tokenizer, texts[:-1])]
    assert (found[0], *found[-2:]) == (True, False, False)
    assert can_name(backbone, []) == []
