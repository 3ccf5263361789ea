"""The commands that compute, on a tiny shop, and what each waits for while it runs on the stand-in.

`python -m tests.cuda.commands` prints the table of docs/gpu.md. With `--real FILE` the commands run on a GPU, whose
waits are those that PyTorch warns of (`torch.cuda.set_sync_debug_mode`), and FILE gets a line of JSON for each command.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.cuda import stand_in

WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord"]
IDS = ["amber basil", "amber basil cedar", "amber delta", "basil", "basil ember fjord", "cedar amber basil"]
IDS += ["cedar amber delta", "delta ember", "ember", "fjord amber cedar delta"]

TRAIN = "train-rec {shop}/train.jsonl --ids {shop}/ids.jsonl --valid {shop}/valid.jsonl --valid-beams 10 --epochs 1"
TRAIN += " --batch-size 4 --lr 1e-3 --dropout 0 "
CAUSAL = TRAIN + "--model {shop}/causal --arch causal "
ASK = "recommend {shop}/valid.jsonl --ids {shop}/ids.jsonl -k 5 --beams 6 "
SHORT = "--beams 4 --groups 2 --length-step 4 --max-length-rounds 1 --penalty-stop 0.2"
ITEM_MODEL = (
    "{shop}/train.jsonl --items {shop}/items.jsonl --valid {shop}/valid.jsonl --epochs 2 --width 8 --dropout 0 "
)

# Without dropout, whose numbers a GPU draws otherwise.
# `{name}` is what the command of that name has written on the CPU in fp32.
COMMANDS = {
    "init-gen": "init-gen {shop}/items.jsonl --pairs {shop}/ids.jsonl --model {shop}/t5 --epochs 4 --batch-size 4 "
    "--lr 1e-2 --held-out 0.2 --dropout 0",
    "gen-ids": "gen-ids {shop}/items.jsonl --model {init-gen} --batch-size 4 " + SHORT,
    "gen-ids causal": "gen-ids {shop}/items.jsonl --model {shop}/causal " + SHORT,
    "train-rec full": TRAIN + "--model {shop}/t5 --objective full --ema 0.5 --epochs 2",
    "train-rec trie": TRAIN + "--model {shop}/t5 --objective trie --accumulate 2 --max-tokens-per-batch 64",
    "train-rec causal encoder": TRAIN + "--model {shop}/t5 --objective trie --causal-encoder",
    "train-rec user IDs": TRAIN + "--model {shop}/t5 --user-ids history --gen {init-gen} --items {shop}/items.jsonl",
    "train-sasrec": "train-sasrec " + ITEM_MODEL,
    "train-sasrec texts": "train-sasrec " + ITEM_MODEL + "--text-vectors {shop}/reader",
    "train-two-tower": "train-two-tower " + ITEM_MODEL,
    "train-text-ranker": "train-text-ranker {shop} --epochs 2 --candidates 8 --width 4 --dropout 0",
    "train-rec causal": CAUSAL + "--objective trie",
    "train-rec causal full": CAUSAL + "--objective full",
    "train-rec causal beside": CAUSAL + "--items {shop}/items.jsonl --reconstruction 1 --preference 0.5 "
    "--contrast-semantic 0.2 --contrast-behavior 0.1 --item-vectors {train-sasrec}",
    "train-rec causal told": CAUSAL + "--item-head 1 --item-vectors {train-sasrec} --tell-items --item-head-dropout 0 "
    "--near-items 4 --items {shop}/items.jsonl",
    "train-rec causal --lora": CAUSAL + "--lora 2 --word-tokens",
    "train-adapter": "train-adapter {shop}/train.jsonl --rec {train-rec causal} --ids {shop}/ids.jsonl --rank 2 "
    "--valid {shop}/valid.jsonl --valid-beams 10 --epochs 1 --batch-size 4 --dropout 0",
    "train-gen": "train-gen {shop}/train.jsonl --items {shop}/items.jsonl --ids {shop}/ids.jsonl --gen {init-gen} "
    "--rec {train-rec full} --anchor 0.1 --lr 1e-3 --epochs 1 --dropout 0",
    "train-gen straight-through": "train-gen {shop}/train.jsonl --items {shop}/items.jsonl --ids {shop}/ids.jsonl "
    "--gen {init-gen} --rec {train-rec trie} --straight-through --lr 1e-3 --epochs 1 --dropout 0",
    "alternate": "alternate {shop} --gen {init-gen} --rec {train-rec full} --rounds 1 --rec.epochs 1 --valid-beams 10 "
    "--rec.dropout 0 --gen.dropout 0 " + SHORT.replace("--", "--ids."),
    "recommend beam full": ASK + "--rec {train-rec full} --batch-size 4",
    "train-rec compiled": TRAIN + "--model {shop}/t5 --objective full --compile",
    "recommend compiled": ASK + "--rec {train-rec full} --batch-size 4 --compile",
    "recommend causal compiled": ASK + "--rec {train-rec causal} --compile",
    "recommend beam trie": ASK + "--rec {train-rec trie}",
    "recommend causal encoder": ASK + "--rec {train-rec causal encoder}",
    "recommend exact full": ASK + "--rec {train-rec full} --search exact",
    "recommend exact trie": ASK + "--rec {train-rec trie} --search exact",
    "recommend user IDs": ASK + "--rec {train-rec user IDs} --gen {init-gen} --items {shop}/items.jsonl",
    "recommend causal": ASK + "--rec {train-rec causal} --normalize full --calibration-weight 0.3",
    "recommend causal full": ASK + "--rec {train-rec causal full}",
    "recommend causal exact": ASK + "--rec {train-rec causal} --search exact",
    "recommend causal told": ASK + "--rec {train-rec causal told} --item-head-weight 1",
    "recommend --adapter": ASK + "--rec {train-rec causal} --adapter {train-adapter}",
    "recommend sasrec": "recommend {shop}/valid.jsonl -k 5 --rec {train-sasrec}",
    "recommend sasrec texts": "recommend {shop}/valid.jsonl -k 5 --rec {train-sasrec texts} --items {shop}/items.jsonl",
    "recommend two-tower": "recommend {shop}/valid.jsonl -k 5 --rec {train-two-tower}",
    "recommend text ranker": "recommend {shop}/valid.jsonl -k 5 --rec {train-text-ranker} --items {shop}/items.jsonl",
    "zeroshot": "zeroshot {shop} --scheme keyphrase --rec {train-rec full} -k 5 --beams 6",
}
# Commands that have no `--precision`.
NO_PRECISION = ("gen-ids", "zeroshot", "recommend sasrec", "recommend two-tower", "recommend text ranker")


@dataclass
class Done:
    """A command that has run.

    Attributes:
        output: the file or folder that it has written.
        steps: what each step of a training waited for.
        depths: what a search waited for, from a depth, or of an exact search a pass, to the next.
        all: all that the command waited for.
    """

    output: Path
    steps: list[Counter[str]] = field(default_factory=list)
    depths: list[Counter[str]] = field(default_factory=list)
    all: Counter[str] = field(default_factory=Counter)

    def take(self) -> Counter[str]:
        """What was waited for since the last call."""
        found = Counter(stand_in.take_waits())
        self.all.update(found)
        return found


class Shop:
    """A folder of inputs, where each command runs once for a device and precision.

    Args:
        run: idgr's command line.
    """

    def __init__(self, folder: Path, run: Callable[[list[str]], int]) -> None:
        self.folder, self.run = folder, run
        self.done: dict[tuple[str, str, str], Done] = {}
        self.folder_of_outputs = folder / "out"
        self.folder_of_outputs.mkdir()
        make_inputs(folder)

    def result(self, name: str, device: str = "cpu", precision: str = "fp32") -> Done:
        key = (name, device, precision)
        if key not in self.done:
            self.done[key] = self._run(name, device, precision)
        return self.done[key]

    def words(self, name: str, device: str, precision: str, output: Path) -> list[str]:
        """The command line."""
        words = [self._filled(word) for word in _split(COMMANDS[name])]
        words += ["--device", device, "-o", str(output)]
        return words if name.startswith(NO_PRECISION) else [*words, "--precision", precision]

    def _filled(self, word: str) -> str:
        if not word.startswith("{"):
            return word
        name, _, rest = word[1:].partition("}")
        return f"{self.folder if name == 'shop' else self.result(name).output}{rest}"

    def _run(self, name: str, device: str, precision: str) -> Done:
        output = self.folder_of_outputs / f"{name} {device} {precision}".replace(" ", "_")
        done = Done(output)
        words = self.words(name, device, precision, output)
        stand_in.take_waits()
        with counting(done):
            code = self.run(words)
        done.take()
        if code:
            raise AssertionError(f"exit code {code}: idgr {' '.join(words)}")
        return done


def _split(command: str) -> list[str]:
    """At spaces, but for those within braces."""
    words: list[str] = []
    for word in command.split():
        if words and words[-1].count("{") > words[-1].count("}"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


@contextmanager
def counting(done: Done) -> Iterator[None]:
    """Note inside the block what steps of trainings and depths of searches wait for."""
    from idgr.decoding.beam import BeamSearch
    from idgr.decoding.exact import ExactSearch
    from idgr.decoding.expansion import Expansion
    from idgr.engine import trainer

    gradients, step, children, batch, user = (
        trainer.accumulate_gradients,
        trainer.optimizer_step,
        Expansion.children,
        BeamSearch._batch,
        ExactSearch._user,
    )
    searching = False

    def counted_gradients(*arguments: Any) -> Any:
        done.take()
        return gradients(*arguments)

    def counted_step(*arguments: Any) -> None:
        step(*arguments)
        done.steps.append(done.take())

    def counted_children(*arguments: Any, **options: Any) -> Any:
        # From before the question of a depth to before that of the next one.
        nonlocal searching
        waited = done.take()
        if searching:
            done.depths.append(waited)
        searching = True
        return children(*arguments, **options)

    def begun(search: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal searching
            searching = False
            return search(*arguments)

        return counted

    with (
        mock.patch.object(trainer, "accumulate_gradients", counted_gradients),
        mock.patch.object(trainer, "optimizer_step", counted_step),
        mock.patch.object(Expansion, "children", counted_children),
        mock.patch.object(BeamSearch, "_batch", begun(batch)),
        mock.patch.object(ExactSearch, "_user", begun(user)),
    ):
        yield


def make_inputs(folder: Path) -> None:
    """Items, IDs and histories as `prep` writes them; a T5, a Llama and a reader of texts with random weights."""
    from idgr.formats.jsonl import write_jsonl
    from idgr.models.backbone import CausalPreset, Preset, new_backbone, new_causal_backbone, save_backbone
    from idgr.models.tokenizer import train_tokenizer
    from idgr.prompts.templates import load_templates, template_words
    from tests.encoder_folder import tiny_bert

    n = len(IDS)
    texts = [f"title: the {text}; brand: {text.split()[0]}" for text in IDS]
    write_jsonl(folder / "items.jsonl", ({"item_id": f"I{i}", "text": text} for i, text in enumerate(texts)))
    write_jsonl(folder / "ids.jsonl", ({"item_id": f"I{i}", "id": text} for i, text in enumerate(IDS)))
    users = [[f"I{(start + step) % n}" for step in range(4 + start % 3)] for start in range(n)]
    write_jsonl(folder / "train.jsonl", ({"user_id": f"U{u}", "items": row[:-2]} for u, row in enumerate(users)))
    for name, end in (("valid.jsonl", -2), ("test.jsonl", -1)):
        rows = ({"user_id": f"U{u}", "history": row[:end], "target": row[end]} for u, row in enumerate(users))
        write_jsonl(folder / name, rows)
    tokenizer = train_tokenizer([*texts, *IDS, *template_words(load_templates())], 400)
    t5 = new_backbone(Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=400), tokenizer, seed=1)
    shape = CausalPreset(d_model=16, d_ff=24, num_layers=1, num_heads=2, vocab_size=400)
    for name, backbone in (("t5", t5), ("causal", new_causal_backbone(shape, tokenizer, seed=3))):
        (folder / name).mkdir()
        save_backbone(backbone, folder / name)
    tiny_bert([*WORDS, "the", "title", "brand"], folder / "reader")


def told(waits: list[Counter[str]]) -> str:
    """The most that any of some steps waited for."""
    if not waits:
        return ""
    most = max(waits, key=lambda one: one.total())
    return str(most.total()) + (f" ({', '.join(f'{why} {n}' for why, n in sorted(most.items()))})" if most else "")


@contextmanager
def real_waits() -> Iterator[None]:
    """Count inside the block, as the stand-in's, the waits that PyTorch warns of on a GPU."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def take_waits() -> Counter[str]:
            told = [str(one.message) for one in caught]
            caught.clear()
            return Counter("read" for message in told if "synchronizing CUDA operation" in message)

        torch.cuda.set_sync_debug_mode("warn")
        try:
            with mock.patch.object(stand_in, "take_waits", take_waits):
                yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def on_a_gpu(file: Path) -> None:
    """Run every command on the GPU, in both precisions, and write what its steps wait for."""
    from idgr.cli.main import run
    from idgr.formats.jsonl import write_jsonl

    rows = []
    with tempfile.TemporaryDirectory() as place, real_waits():
        shop = Shop(Path(place), run)
        for name in COMMANDS:
            for precision in ("fp32",) if name.startswith(NO_PRECISION) else ("fp32", "bf16"):
                done = shop.result(name, "cuda", precision)
                most = max((one.total() for one in done.steps or done.depths), default=done.all.total())
                rows.append({"bench": "waits", "contender": name, "waits": most, "why": precision})
    write_jsonl(file, rows)


def main() -> None:
    if sys.argv[1:2] == ["--real"]:
        on_a_gpu(Path(sys.argv[2]))
        return
    stand_in.load()
    os.environ["IDGR_COMPILE_BACKEND"] = "none"  # PyTorch's compiler knows no such device
    import torch

    from idgr.cli.main import run

    torch.set_num_threads(1)
    print("| command | waits a step | waits a depth | waits in all |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        shop = Shop(Path(place), run)
        for name in COMMANDS:
            done = shop.result(name, "cuda")
            print(f"| {name} | {told(done.steps)} | {told(done.depths)} | {done.all.total()} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
