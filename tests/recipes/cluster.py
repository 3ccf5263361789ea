"""A stand-in for SLURM: sbatch, srun and scontrol of a cluster of one machine, which does at once what it is asked.

What it holds to, as SLURM's manual tells:

- The script is copied away before it runs. Its `#SBATCH` lines end at the first command; options before its name come
  first. The environment that a job sees is what SLURM sets.
- A step of srun has one core a task, unless SRUN_CPUS_PER_TASK or --cpus-per-task says otherwise (SLURM 22.05); one
  that asks for more threads than cores is refused here. It sees the GPUs that the job was given.
- A signal before the time limit (`--signal=NAME@SECONDS`) goes to all processes of all steps, with `B:` to the script
  alone. Then comes TERM for all, then KILL, and a job that is over its time is not queued again by itself.
- At preemption TERM goes to the steps, then KILL to all; then, and where a node fails, the job is queued again if it
  has --requeue. `scontrol requeue` kills what the job still runs. A job that is queued again runs the same copy.
- When the first process of a task has ended, what it has started is killed.

The environment's CLUSTER is the folder that it works in. EVENTS there, a JSON list, says how each run of a job is cut
short: `["limit" | "preempt" | "fail", PATTERN]`, as soon as a path of that pattern exists.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("CLUSTER", "."))
KILL_WAIT = 100.0  # seconds, at most, between TERM and KILL; and between the first signal and TERM
MAX_ARRAY = 1001
KNOWN = {
    *("job-name", "array", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem-per-cpu", "time"),
    *("requeue", "signal", "open-mode", "output", "parsable", "dependency"),
}


def refuse(what: str) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {what}", file=sys.stderr)
    sys.exit(1)


def write_notes(words: list[str]) -> None:
    with (HOME / "notes").open("a") as notes:
        notes.write(shlex.join([Path(sys.argv[0]).name, *words]) + "\n")


def options_of(script: str, given: list[str]) -> dict[str, str]:
    words: list[str] = []
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            words += shlex.split(line.removeprefix("#SBATCH "), comments=True)
        elif line.strip() and not line.startswith("#"):
            break
    options: dict[str, str] = {}
    for word in [*words, *given]:
        name, _, value = word.removeprefix("--").partition("=")
        if name not in KNOWN:
            refuse(f"unrecognized option '--{name}'")
        options[name] = value
    return options


def array_tasks(text: str) -> list[int]:
    """The tasks of `--array`: numbers and ranges, as 1-3,7."""
    tasks: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]) or int(found[2] or found[1]) >= MAX_ARRAY:
            refuse(f"Invalid job array specification: {text}")
            raise AssertionError
        tasks += range(int(found[1]), int(found[2] or found[1]) + 1)
    return tasks


class Job:
    """A job, or a task of an array, from its start until it is not queued again."""

    def __init__(self, number: int, options: dict[str, str], script: list[str], task: int | None) -> None:
        self.number, self.options, self.script = number, options, script
        self.folder = HOME / f"job-{number}"
        (self.folder / "steps").mkdir(parents=True, exist_ok=True)
        spooled = self.folder / "slurm_script"
        shutil.copy(script[0], spooled)
        self.words = [str(spooled), *script[1:]]
        nodes, tasks = int(options.get("nodes", "1")), int(options.get("ntasks-per-node", "1"))
        name = options.get("output", "slurm-%j.out").replace("%x", options.get("job-name", "job"))
        self.log = name.replace("%j", str(number)).replace("%A", str(number)).replace("%a", str(task))
        self.environment = os.environ | {
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": f"node[1-{nodes}]",
            "SLURM_NTASKS": str(nodes * tasks),
            "SLURM_SUBMIT_DIR": str(Path.cwd()),
        }
        if "cpus-per-task" in options:
            self.environment["SLURM_CPUS_PER_TASK"] = options["cpus-per-task"]
        if "gpus-per-node" in options:
            self.environment["SLURM_GPUS_ON_NODE"] = options["gpus-per-node"]
        if task is not None:
            self.environment["SLURM_ARRAY_TASK_ID"] = str(task)

    def run(self) -> int:
        """Until it is done; the code that it ends with."""
        events = json.loads((HOME / "EVENTS").read_text()) if (HOME / "EVENTS").exists() else []
        for restarts in range(100):
            (self.folder / "requeue").unlink(missing_ok=True)
            again = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
            mode = "ab" if self.options.get("open-mode") == "append" else "wb"
            with open(self.log, mode) as log:
                batch = subprocess.Popen(
                    [shutil.which("bash") or "bash", *self.words],
                    env=self.environment | again,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            queued = self._follow(batch, events[restarts] if restarts < len(events) else None)
            with (HOME / "ends").open("a") as ends:
                ends.write(f"{batch.returncode} {'queued again' if queued else 'done'}\n")
            if not queued:
                return batch.returncode
        raise AssertionError("queued again without end")

    def _follow(self, batch: subprocess.Popen[bytes], event: list[str] | None) -> bool:
        """Wait for the script, send what comes; whether the job is queued again."""
        queued = False
        while batch.poll() is None and not self._asked():
            if event is not None and any(Path.cwd().glob(event[1])):
                queued = getattr(self, f"_{event[0]}")(batch) and "requeue" in self.options
                event = None
            time.sleep(0.01)
        if self._asked() and batch.poll() is None:  # scontrol requeue ends what still runs
            os.killpg(batch.pid, signal.SIGTERM)
            self._send_steps(signal.SIGKILL)
        batch.wait()
        return queued or self._asked()

    def _limit(self, batch: subprocess.Popen[bytes]) -> bool:
        if found := re.fullmatch(r"(B:)?([A-Z0-9]+)@\d+", self.options.get("signal", "")):
            number = signal.Signals[f"SIG{found[2]}"]
            self._send_batch(batch, number) if found[1] else self._send_steps(number)
            if self._over(batch):
                return False
        self._send_steps(signal.SIGTERM)
        self._send_batch(batch, signal.SIGTERM)
        if not self._over(batch):
            self._fail(batch)
        return False

    def _preempt(self, batch: subprocess.Popen[bytes]) -> bool:
        self._send_steps(signal.SIGCONT)
        self._send_steps(signal.SIGTERM)
        return self._over(batch) or self._fail(batch)

    def _fail(self, batch: subprocess.Popen[bytes]) -> bool:
        self._send_batch(batch, signal.SIGKILL)
        self._send_steps(signal.SIGKILL)
        batch.wait()
        return True

    def _over(self, batch: subprocess.Popen[bytes]) -> bool:
        """Whether the script ends, or asks to be queued again, in time."""
        end = time.monotonic() + KILL_WAIT
        while batch.poll() is None and not self._asked() and time.monotonic() < end:
            time.sleep(0.01)
        return batch.poll() is not None or self._asked()

    def _asked(self) -> bool:
        return (self.folder / "requeue").exists()

    def _send_batch(self, batch: subprocess.Popen[bytes], number: int) -> None:
        if batch.poll() is None:
            os.killpg(batch.pid, number) if number == signal.SIGKILL else batch.send_signal(number)

    def _send_steps(self, number: int) -> None:
        for step in (self.folder / "steps").iterdir():
            kill_group(int(step.name), number)


def kill_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def sbatch(words: list[str]) -> int:
    write_notes(words)
    place = next((n for n, word in enumerate(words) if not word.startswith("--")), None)
    if place is None:
        refuse("no script")
        raise AssertionError
    options = options_of(Path(words[place]).read_text(), words[:place])
    tasks = array_tasks(options["array"]) if "array" in options else [None]
    number = 4711 + len(list(HOME.glob("job-*")))
    print(number if "parsable" in options else f"Submitted batch job {number}", flush=True)
    codes = [Job(number + n, options, words[place:], task).run() for n, task in enumerate(tasks)]
    return max(codes)


def srun(words: list[str]) -> int:
    cores = os.environ.get("SRUN_CPUS_PER_TASK", "1")
    while words[0].startswith("--"):
        name, _, value = words.pop(0).partition("=")
        cores = value if name == "--cpus-per-task" else cores
    if int(os.environ.get("OMP_NUM_THREADS", "1")) > int(cores):
        refuse(f"{os.environ['OMP_NUM_THREADS']} threads on {cores} cores")
    steps = HOME / f"job-{os.environ['SLURM_JOB_ID']}" / "steps"
    gpus = ",".join(map(str, range(int(os.environ.get("SLURM_GPUS_ON_NODE", "0")))))
    tasks: list[tuple[subprocess.Popen[bytes], Path]] = []
    per_node = int(os.environ["SLURM_NTASKS"]) // int(re.findall(r"\d+", os.environ["SLURM_JOB_NODELIST"])[-1])
    for number in range(int(os.environ["SLURM_NTASKS"])):
        told = {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number % per_node), "CUDA_VISIBLE_DEVICES": gpus}
        told |= {"SLURM_CPUS_PER_TASK": cores}
        process = subprocess.Popen(words, env=os.environ | told, start_new_session=True)
        note = steps / str(process.pid)
        note.touch()
        tasks.append((process, note))
    worst = 0
    for process, note in tasks:
        code = process.wait()
        kill_group(process.pid, signal.SIGKILL)
        note.unlink()
        worst = max(worst, code if code >= 0 else 128 - code)
    return worst


def scontrol(words: list[str]) -> int:
    write_notes(words)
    if words[:2] == ["show", "hostnames"]:
        for number in range(int(re.findall(r"\d+", words[2])[-1])):
            print(f"node{number + 1}")
        return 0
    if words[0] != "requeue":
        refuse(f"invalid keyword: {words[0]}")
    script = HOME / f"job-{words[1]}" / "slurm_script"
    if "#SBATCH --requeue" not in script.read_text():
        refuse(f"Requested operation is presently disabled for job {words[1]}")
    script.with_name("requeue").touch()
    time.sleep(10)  # what called this is ended first
    return 0


COMMANDS: dict[str, Any] = {"sbatch": sbatch, "srun": srun, "scontrol": scontrol}


def install(folder: Path) -> None:
    """Put the commands into a folder of a PATH."""
    for name in COMMANDS:
        command = folder / name
        command.write_text(f"#!{sys.executable} -SE\n{Path(__file__).read_text()}")
        command.chmod(0o755)


if __name__ == "__main__":
    sys.exit(COMMANDS[Path(sys.argv[0]).name](sys.argv[1:]))
