"""Kill `idgr train-rec` at random moments, let it finish, and compare with a run that nothing stopped.

Not a test of the suite, since it takes minutes:
    python tests/training/kill_and_resume.py DATA IDS WORK [--kills 10] [--seed 0] -- OPTIONS OF TRAIN-REC
DATA is a folder of `idgr prep`, WORK an empty folder. Ends with code 1 where weights or metrics differ.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from idgr.engine.checkpoint import checkpoint_folder
from idgr.formats.run_info import hash_folder

TIMES = ("seconds", "instances_per_second")


def newest_step(output: Path) -> int:
    places = checkpoint_folder(output).glob("step-*")
    return max((int(place.name.split("-")[1]) for place in places), default=0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    draw = random.Random(given.seed)
    command = [sys.executable, "-m", "idgr", "train-rec", str(given.data / "train.jsonl"), "--ids", str(given.ids)]
    command += ["--valid", str(given.data / "valid.jsonl"), "--device", "cpu", "--checkpoint-minutes", "0.01", *options]

    planned = subprocess.run(
        [*command, "--dry-run", "-o", str(given.work / "none")], check=True, capture_output=True, text=True
    )
    steps = json.loads(planned.stdout)["steps"]
    subprocess.run([*command, "-o", str(given.work / "whole")], check=True)
    output, kills = given.work / "killed", 0
    while True:
        process = subprocess.Popen([*command, "-o", str(output)])
        if kills == given.kills:
            process.wait()
            break
        # At a random moment after a random step, so that kills fall into loading, steps, checkpoints and measuring.
        wanted = int(steps * (kills + draw.random()) / (given.kills + 1))
        while newest_step(output) < wanted and process.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 4.0))
        kind = draw.choice([signal.SIGKILL, signal.SIGTERM])
        process.send_signal(kind)
        code = process.wait()
        if code == 0:
            print(f"finished after {kills} kills, too early for {given.kills}", file=sys.stderr)
            break
        kills += 1
        print(f"kill {kills}: {kind.name}, exit code {code}", file=sys.stderr)

    whole, killed = hash_folder(given.work / "whole"), hash_folder(output)
    records = [
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMES}
            for line in (folder / "log.jsonl").read_text().splitlines()
        ]
        for folder in (given.work / "whole", output)
    ]
    same = whole == killed and records[0] == records[1] and kills == given.kills
    print(json.dumps({"kills": kills, "same": same, "weights": killed["model.safetensors"], "records": records[1]}))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
