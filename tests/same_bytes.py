"""Every stage on a small demo shop, at two commits: whether all outputs are the same, byte for byte.

    python tests/same_bytes.py OLD NEW [--work FOLDER]

Left out are what tells the time (`run.json`, `log.jsonl`) and options that only one of the commits has. Takes about
four minutes; needs git and the extras `lora` and `schemes`. Not part of the suite.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = """
prep demo --items 60 --users 120 -o data
prep demo --items 40 --users 60 --seed 1 -o other
prep fuse data other --max-users 50 -o fused
stats data other -o stats.jsonl
gen-ids data/items.jsonl --model keyphrase -o keyphrase.jsonl
gen-ids data/items.jsonl --scheme shared --train data/train.jsonl -o shared.jsonl
gen-ids data/items.jsonl --scheme sequential --train data/train.jsonl -o sequential.jsonl
gen-ids data/items.jsonl --scheme collaborative --train data/train.jsonl -o collaborative.jsonl
gen-ids data/items.jsonl --scheme category -o category.jsonl
gen-ids data/items.jsonl --scheme title -o title.jsonl
gen-ids data/items.jsonl --scheme random --seed 3 -o random.jsonl
gen-ids data/items.jsonl --scheme semantic -o semantic.jsonl
init-gen data/items.jsonl --epochs 2 -o gen
gen-ids data/items.jsonl --model gen -o ids.jsonl
gen-ids data/items.jsonl --model gen --shard 1/2 -o part1.jsonl
gen-ids data/items.jsonl --model gen --shard 2/2 -o part2.jsonl
gen-ids data/items.jsonl --model gen --assign part?.jsonl -o assigned.jsonl
train-rec data/train.jsonl --ids ids.jsonl --valid data/valid.jsonl --tokenizer gen --epochs 2 -o rec
train-rec data/train.jsonl --ids ids.jsonl --tokenizer gen --epochs 1 --paper --user-ids history --gen gen \
  --items data/items.jsonl -o users
train-rec data/train.jsonl --ids shared.jsonl --valid data/valid.jsonl --items data/items.jsonl --arch causal \
  --reconstruction 0.5 --epochs 2 --ema 0.9 -o causal
train-adapter data/train.jsonl --rec causal --ids shared.jsonl --valid data/valid.jsonl --epochs 1 --rank 2 -o adapter
train-gen data/train.jsonl --items data/items.jsonl --ids ids.jsonl --rec rec --gen gen -o gen2
alternate data --gen gen --rounds 2 --valid-users 50 -o run
train-sasrec data/train.jsonl --items data/items.jsonl --valid data/valid.jsonl --epochs 2 -o sasrec
train-two-tower data/train.jsonl --items data/items.jsonl --valid data/valid.jsonl --epochs 2 -o tower
train-text-ranker data --epochs 2 --candidates 20 -o ranker
recommend data/test.jsonl --rec ranker --items data/items.jsonl -o ranked.jsonl
gen-ids data/items.jsonl --scheme dual --item-vectors sasrec -o dual.jsonl
recommend data/test.jsonl --rec rec --ids ids.jsonl -k 10 -o recs.jsonl
recommend data/test.jsonl --rec rec --ids ids.jsonl --search exact --trie tree -o exact.jsonl
recommend data/test.jsonl --rec causal --ids shared.jsonl --adapter adapter --prompts prompts.jsonl -o adapted.jsonl
recommend data/test.jsonl --rec sasrec -o sasrec.jsonl
recommend data/test.jsonl --baseline markov --train data/train.jsonl -o markov.jsonl
recommend data/valid.jsonl --rec rec --ids ids.jsonl -o valid-rec.jsonl
recommend data/valid.jsonl --rec sasrec -o valid-sasrec.jsonl
blend valid-rec.jsonl valid-sasrec.jsonl --truth data/valid.jsonl -o weight.json
blend recs.jsonl sasrec.jsonl --weight weight.json -o blend.jsonl
eval recs.jsonl --truth data/test.jsonl --train data/train.jsonl --segments --per-user users1.jsonl -o metrics.json
eval sasrec.jsonl --truth data/test.jsonl --train data/train.jsonl --per-user users2.jsonl -o metrics2.json
compare users1.jsonl users2.jsonl --resamples 999 -o tests.json
zeroshot other --gen gen --rec rec --empty-text key -o zero
ids diff ids.jsonl shared.jsonl --items data/items.jsonl -o diff.jsonl
ids purity ids.jsonl --items data/items.jsonl -o purity.jsonl
export data --to trec --recs recs.jsonl -o trec
export data --to recbole -o recbole
import trec/run.trec -o imported.jsonl
audit run --data data -o audit.json
""".replace("\\\n", "")
TELLS_TIME = ("run.json", "log.jsonl", ".lock")


def outputs(house: Path, work: Path) -> dict[str, str]:
    """The hash of everything that the commands at a commit write and print, by name."""
    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = {}
    for line in COMMANDS.strip().splitlines():
        words = [match for word in line.split() for match in ([word] if "?" not in word else [f"./{word}"])]
        done = subprocess.run(
            [sys.executable, "-m", "idgr", *words], cwd=work, env=environment, capture_output=True, check=False
        )
        found[f"$ {line}"] = f"{done.returncode} {hashlib.sha256(done.stdout).hexdigest()}"
        if done.returncode not in (0, 1):
            print(f"{house}: idgr {line}\n{done.stderr.decode()}", file=sys.stderr)
    for path in sorted(work.rglob("*")):
        if path.is_file() and not path.name.endswith(TELLS_TIME):
            text = path.read_bytes()
            if path.suffix == ".json":
                text = json.dumps(without_times(json.loads(text)), sort_keys=True).encode()
            found[path.relative_to(work).as_posix()] = hashlib.sha256(text).hexdigest()
    return found


def without_times(value: object) -> object:
    """Without hashes of records, which tell the time, and the evidence that names them."""
    if isinstance(value, dict):
        return {name: without_times(inner) for name, inner in value.items() if name != "scored"}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commits", nargs=2)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    place = given.work or Path(tempfile.mkdtemp())
    made = []
    for number, commit in enumerate(given.commits):
        house = place / f"commit-{number}"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(house), commit], check=True)  # noqa: S607
        try:
            made.append(outputs(house, place / "work"))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(house)], check=True)  # noqa: S607
        (place / "work").rename(place / f"work-{number}")
    before, after = made
    different = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    for name in sorted(before.keys() ^ after.keys()):
        print(f"only {'before' if name in before else 'after'}: {name}")
    for name in different:
        print(f"differs: {name}")
    print(f"{len(before.keys() & after.keys())} outputs of {len(COMMANDS.strip().splitlines())} commands compared")
    sys.exit(bool(different or before.keys() - after.keys()))


if __name__ == "__main__":
    main()
