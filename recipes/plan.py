"""A command of idgr in a recipe's --dry-run: printed, and where it trains, what it would take.

`prep` is run, since all else needs its files, and it is soon done. A training is asked by its own --dry-run, on this
machine; IDs that an earlier command would make are stood in for by keyphrases, a model by the preset nano or by what
`alternate` begins from. What else is missing is named, and then nothing is told of the training.

Usage: python recipes/plan.py OUT COMMAND [ARGUMENT …]   (OUT: the folder of the recipe's outputs)
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

TRAININGS = ("init-gen", "train-gen", "train-rec", "train-adapter", "train-sasrec", "train-two-tower")


def idgr(*words: str, output: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["idgr", *words], check=False, stdout=output, text=True)  # noqa: S607 # that of the PATH


def main(out: str, *words: str) -> int:
    command = list(words)
    if words[0] == "prep":
        say(shlex.join(["idgr", *command]))
        return idgr(*command).returncode
    if words[0] == "alternate":
        return alternate(out, command)
    say(shlex.join(["idgr", *command]))
    return training(out, command, {}) if words[0] in TRAININGS else 0


def say(line: str) -> None:
    print(line, flush=True)


def alternate(out: str, command: list[str]) -> int:
    """The single commands, and for the first of each training what it would take."""
    say(f"# {shlex.join(['idgr', *command])}")
    done = idgr(*command, "--dry-run", output=subprocess.PIPE)
    begins = {f"--{name}": value for name in ("gen", "rec") if (value := value_of(command, f"--{name}"))}
    if "--rec" in begins:
        begins["--model"] = begins["--rec"]
    told = set()
    for line in done.stdout.splitlines():
        say(line)
        name, *arguments = shlex.split(line)[1:] if line.startswith("idgr ") else [""]
        if name in told:
            say("#   as in the round before")
        elif name in TRAININGS:
            told.add(name)
            if (code := training(out, [name, *arguments], begins)) != 0:
                return code
    return done.returncode


def value_of(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


def training(out: str, command: list[str], begins: dict[str, str]) -> int:
    """What a training would take, as a comment; `begins` stands in for models that are not made yet."""
    data = Path(command[1]).parent
    words: list[str] = []
    missing = []
    for place, word in enumerate(command):
        flag = command[place - 1]
        if flag in ("-o", "--output") or not word.startswith(f"{out}/") or Path(word).exists():
            words.append(word)
        elif flag == "--ids":
            words.append(keyphrases(Path(out), data))
        elif flag in begins and not begins[flag].startswith(f"{out}/"):
            words.append(begins[flag])
        elif flag == "--model":
            words.append("nano")
        elif flag == "--tokenizer":
            words.pop()
        else:
            missing.append(word)
    if missing:
        say(f"#   not told: it needs {' and '.join(missing)}, made before")
        return 0
    done = idgr(*words, "--dry-run", output=subprocess.PIPE)
    if done.returncode == 0:
        say(f"#   {in_words(json.loads(done.stdout))}")
    return done.returncode


def keyphrases(out: Path, data: Path) -> str:
    """The file of IDs that stand in for those not made yet."""
    path = out / "plan" / f"{data.name}-ids.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if idgr("gen-ids", str(data / "items.jsonl"), "--model", "keyphrase", "-o", str(path)).returncode != 0:
            sys.exit(1)
    return str(path)


def in_words(found: dict[str, float]) -> str:
    """The forecast of a training in a line."""
    gpu = "" if "peak_gpu_mib" not in found else f", {found['peak_gpu_mib'] / 1024:.1f} GiB of the GPU's"
    total = f"{duration(found['total_seconds'])} on this machine, {found['peak_mib'] / 1024:.1f} GiB of memory{gpu}"
    each = f"{found['steps']} steps, an epoch of {duration(found['seconds_per_epoch'])}"
    return f"{total}: {each} and {duration(found['validation_seconds'])} to validate, {found['parameters']} parameters"


def duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
