"""Long attacks on idgr, repeatable by their seed; the ordinary tests have a short form of each.

    python -m tests.hostile.attack kills --count 500 --jobs 2
    python -m tests.hostile.attack trees --count 150

`kills`: every command over an earlier output, killed before its n-th file operation: the output is then the old one or
the new one, whole, with its own record or none, other files are as they were, and the same command run again (every
fifth time) gives the new output and leaves nothing behind. `trees`: damaged prefix trees: the list is right, or one
line tells, exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from idgr.cli.main import run
from tests.hostile.damaged_files import damaged_files
from tests.hostile.killing import leftovers, run_killed, snapshot, which

SECONDS = 120  # after which a command counts as hanging
SLOW = ("init-gen", "train-rec", "train-sasrec", "zeroshot", "alternate")
TRAINING = ["--model", "gen", "--epochs", "1", "--valid-users", "8", "--valid-beams", "10"]


@dataclass(frozen=True)
class Target:
    """A command as it is attacked: `old` made the output that lies there, `new` is killed.

    Attributes:
        outputs: what it writes; beside a file lies its record.
        slow: whether it loads models or trains; such a command gets half the attacks of another.
    """

    name: str
    old: list[str]
    new: list[str]
    outputs: tuple[str, ...]
    slow: bool = False


def targets() -> list[Target]:
    """Commands of every kind: folders, files, several files, trainings and whole runs."""
    train = ["train-rec", "data/train.jsonl", "--ids", "ids.jsonl", "--valid", "data/valid.jsonl", *TRAINING]
    sasrec = ["train-sasrec", "data/train.jsonl", "--items", "data/items.jsonl", "--width", "8", "--epochs", "1"]
    recommend = ["recommend", "data/test.jsonl", "--baseline", "markov", "--train", "data/train.jsonl"]
    textual = ["recommend", "data/test.jsonl", "--rec", "rec", "--ids", "ids.jsonl"]
    score = ["eval", "recs.jsonl", "--truth", "data/test.jsonl", "--per-user", "users.jsonl", "-o", "metrics.json"]
    run = ["alternate", "data", "--gen", "gen", "--rec", "gen", "--rounds", "1", "--rec.epochs", "1"]
    run += ["--gen.epoch-instances", "16", "--rec.epoch-instances", "16", "--valid-users", "8", "-o", "run"]
    gen = ["init-gen", "data/items.jsonl", "--model", "gen", "--epochs", "1", "-o", "newgen", "--overwrite"]
    zero = ["zeroshot", "data", "--gen", "gen", "--rec", "rec", "-o", "zero"]

    def twice(name: str, words: list[str], old: list[str], new: list[str], *outputs: str) -> Target:
        return Target(name, [*words, *old], [*words, *new], outputs, name in SLOW)

    def seeds(name: str, words: list[str], *outputs: str) -> Target:
        return twice(name, words, ["--seed", "0"], ["--seed", "1"], *outputs)

    return [
        twice("prep", ["prep", "demo", "--items", "30", "-o", "shop", "--overwrite"], ["--users", "40"],
              ["--users", "50"], "shop"),
        twice("gen-ids", ["gen-ids", "data/items.jsonl", "--scheme", "shared", "--train", "data/train.jsonl", "-o",
                          "new.jsonl"], ["--words", "2"], ["--words", "3"], "new.jsonl"),
        seeds("init-gen", gen, "newgen"),
        seeds("train-rec", [*train, "--epoch-instances", "16", "-o", "newrec", "--overwrite"], "newrec"),
        seeds("train-sasrec", [*sasrec, "-o", "sasrec", "--overwrite"], "sasrec"),
        twice("recommend", [*textual, "-o", "lists.jsonl"], ["-k", "5"], ["-k", "6"], "lists.jsonl"),
        twice("recommend --baseline", [*recommend, "-o", "rule.jsonl"], ["-k", "5"], ["-k", "6"], "rule.jsonl"),
        twice("eval", score, ["--no-baselines"], ["--train", "data/train.jsonl"], "metrics.json", "users.jsonl"),
        twice("export", ["export", "data", "--to", "recbole"], ["-o", "recbole"], ["-o", "recbole"], "recbole"),
        twice("zeroshot", zero, ["--beams", "10"], ["--beams", "12"], "zero"),
        seeds("alternate", [*run, "--overwrite"], "run"),
    ]  # fmt: skip


def idgr(folder: Path, *words: str) -> list[str]:
    """Run a command to its end; its file operations."""
    return run_killed(words, folder)[1]


def prepare(folder: Path) -> None:
    """A small shop with models, as inputs, and a note of the user's."""
    folder.mkdir()
    idgr(folder, "prep", "demo", "--items", "40", "--users", "60", "-o", "data")
    idgr(folder, "init-gen", "data/items.jsonl", "--epochs", "1", "-o", "gen")
    idgr(folder, "gen-ids", "data/items.jsonl", "--model", "keyphrase", "--rec-tokenizer", "gen", "-o", "ids.jsonl")
    train = ["train-rec", "data/train.jsonl", "--ids", "ids.jsonl", "--valid", "data/valid.jsonl", *TRAINING]
    idgr(folder, *train, "--epoch-instances", "16", "-o", "rec")
    rule = ["recommend", "data/test.jsonl", "--baseline", "markov", "--train", "data/train.jsonl"]
    idgr(folder, *rule, "-o", "recs.jsonl")
    (folder / "notes.txt").write_text("the user's own")


def state(folder: Path, output: str) -> dict[str, str]:
    """An output and its record; a record that is not of the file that lies there counts as none."""
    place = folder / output
    found = snapshot(place)
    record = folder / f"{output}.run.json"
    if place.is_file() and record.is_file() and _is_of(record, place):
        found["record"] = snapshot(record)["."]
    return found


def _is_of(record: Path, output: Path) -> bool:
    told = orjson.loads(record.read_bytes())["outputs"]
    return bool(told.get(output.name) == hashlib.sha256(output.read_bytes()).hexdigest())


def others(folder: Path, target: Target) -> dict[str, str]:
    """Everything in the folder that is not the command's to write."""
    mine = {*target.outputs, *(f"{name}.run.json" for name in target.outputs)}
    return {name: told for name, told in snapshot(folder).items() if name.split("/")[0] not in mine}


@dataclass(frozen=True)
class Ready:
    """A target with its folder before the attack, and the states that it may be in."""

    target: Target
    folder: Path
    old: list[dict[str, str]]
    new: list[dict[str, str]]
    operations: int


def make_ready(base: Path, room: Path, target: Target) -> Ready:
    folder = room / target.name.replace(" ", "_")
    shutil.copytree(base, folder)
    idgr(folder, *target.old)
    done = folder.with_name(f"{folder.name}-new")
    shutil.copytree(folder, done)
    operations = idgr(done, *target.new)
    old, new = ([state(one, output) for output in target.outputs] for one in (folder, done))
    return Ready(target, folder, old, new, len(operations))


def attack(ready: Ready, at: int, work: Path, *, again: bool) -> str:
    """Kill the command before one operation. "old", "new" or "mixed" where its outputs are several.

    Raises:
        AssertionError: something is half written, lost or touched, or the next run does not mend it.
    """
    folder = work / "folder"
    shutil.copytree(ready.folder, folder)
    untouched = others(folder, ready.target)
    killed, _ = run_killed(ready.target.new, folder, at)
    states = set()
    for output, old, new in zip(ready.target.outputs, ready.old, ready.new, strict=True):
        bare = [{key: told for key, told in one.items() if key != "record"} for one in (old, new)]
        if ready.target.name == "alternate" and killed:
            continue  # a run is made of many outputs, which going on completes
        now = state(folder, output)
        states.add(which(now, old=old, new=new, old_without_record=bare[0], new_without_record=bare[1]))
    assert others(folder, ready.target) == untouched, "files of others were touched"
    if again:
        # An `alternate --overwrite` begins anew; all others give the new output whatever was left.
        run_killed(ready.target.new, folder)
        for output, new in zip(ready.target.outputs, ready.new, strict=True):
            which(state(folder, output), new=new)
        assert not leftovers(folder), f"left behind: {leftovers(folder)}"
    shutil.rmtree(folder)
    return states.pop() if len(states) == 1 else "several"


def kills(count: int, seed: int, jobs: int, only: Sequence[str]) -> int:
    """Attack every command, or some; how many attacks failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as room:
        base = Path(room) / "base"
        prepare(base)
        chosen = [target for target in targets() if not only or target.name in only]
        random = np.random.default_rng(seed)
        weights = np.array([1 if target.slow else 2 for target in chosen])
        ends = (count * np.cumsum(weights) / weights.sum()).round().astype(int)
        for target, share in zip(chosen, np.diff(ends, prepend=0).tolist(), strict=True):
            ready = make_ready(base, Path(room), target)
            places = np.sort(random.choice(ready.operations, size=min(share, ready.operations), replace=False))
            places = [*places, *random.integers(0, ready.operations, size=share - len(places))]

            def one(numbered: tuple[int, int], ready: Ready = ready) -> str:
                order, at = numbered
                with tempfile.TemporaryDirectory(dir=room) as work:
                    try:
                        return attack(ready, int(at), Path(work), again=order % 5 == 0)
                    except AssertionError as fault:
                        return f"FAILED before operation {at}: {fault}"

            with ThreadPoolExecutor(jobs) as pool:
                found = Counter(pool.map(one, enumerate(places)))
            bad = {told: n for told, n in found.items() if told.startswith("FAILED")}
            failed += sum(bad.values())
            good = ", ".join(f"{n} {told}" for told, n in sorted(found.items()) if told not in bad)
            print(f"| {target.name} | {ready.operations} | {share} | {good} | {sum(bad.values())} |", flush=True)
            for told in bad:
                print(told, file=sys.stderr, flush=True)
    return failed


def trees(count: int, seed: int) -> int:
    """Damage a prefix tree; how many lists were wrong without a word, or ended otherwise than in one line."""
    bad: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "base"
        prepare(folder)
        words = ["recommend", "data/test.jsonl", "--rec", "rec", "--ids", "ids.jsonl", "-k", "5", "--trie", "tree"]
        idgr(folder, *words, "-o", "right.jsonl")
        right = (folder / "right.jsonl").read_bytes()
        for damaged in damaged_files(folder / "tree", count, seed):
            (folder / "tree").write_bytes(damaged.content)
            outcome = _outcome([*words, "-o", "lists.jsonl"], folder, right)
            bad[outcome] += 1
            if outcome not in ("right", "refused"):
                print(f"{outcome}: {damaged.what}", file=sys.stderr, flush=True)
    print(f"| damaged trees | {count} | {', '.join(f'{n} {told}' for told, n in sorted(bad.items()))} |")
    return sum(n for told, n in bad.items() if told not in ("right", "refused"))


def _outcome(words: Sequence[str], folder: Path, right: bytes) -> str:
    """ "right", "refused" or what is wrong with how a command ended that was given something damaged."""
    output, told = folder / words[-1], io.StringIO()
    output.unlink(missing_ok=True)
    signal.alarm(SECONDS)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stderr(told):
            code = run(list(words))
    except BaseException as fault:  # whatever it is, a user would have seen it
        return f"raised {type(fault).__name__}"
    finally:
        signal.alarm(0)
    said = told.getvalue()
    if "Traceback" in said or "fault in idgr" in said:
        return "fault in idgr"
    if code == 0:
        return "right" if output.read_bytes() == right else "wrong lists"
    return "refused" if code == 1 and said.count("idgr: error: ") == 1 else f"exit code {code}"


def _hang(number: int, frame: object) -> None:
    raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack idgr; exit code 1 if anything was lost, touched or wrong.")
    parser.add_argument("attack", choices=("kills", "trees"))
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="of kills: commands at a time")
    parser.add_argument("--only", action="append", default=[], help="of kills: the names of targets")
    given = parser.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    if given.attack == "kills":
        sys.exit(bool(kills(given.count, given.seed, given.jobs, given.only)))
    sys.exit(bool(trees(given.count, given.seed)))


if __name__ == "__main__":
    main()
