"""onnxruntime as a contender in `bench decode`: what another engine's beam search costs, without the tree.

Its beam search (that of onnxruntime-genai) has no rule about the next token either, and takes one user at a time here,
since prompts in a batch have one length.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import torch

from idgr.bench.decode_contenders import Answer, Done, Task, run_contender
from idgr.decoding.beam import Ranking, SearchOptions
from idgr.errors import IdgrError, UsageError

if TYPE_CHECKING:
    from idgr.decoding.trie import Trie

ONE_BY_ONE = True

_INTO = "onnxruntime"
_NEEDED = ("onnxruntime_genai", "onnx", "onnx_ir")


def check_runs(device: str, dtype: str) -> None:
    """See that onnxruntime is there, and runs a model so.

    Args:
        device: cpu or cuda.
        dtype: fp32 or bf16.

    Raises:
        IdgrError: it is not installed.
        UsageError: it would not run on the device, or not in the precision.
    """
    if not all(map(find_spec, _NEEDED)):
        raise IdgrError(
            "--beside onnxruntime needs onnxruntime-genai and onnx, which are not installed",
            "pip install 'idgr[bench]'",
        )
    if (device, dtype) != ("cpu", "fp32"):
        raise UsageError(f"--beside onnxruntime on {device} in {dtype}, where it is not run", "take the CPU and fp32")


def convert(folder: str) -> None:
    """Write a causal model as onnxruntime-genai reads it, into a new folder within the model's own, and try it.

    Raises:
        UsageError: its builder cannot read the model, or it cannot run what was built.
    """
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    done = subprocess.run([*builder, "-i", folder, "-o", str(Path(folder, _INTO))], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UsageError(f"onnxruntime-genai cannot convert the model ({reason})", "leave --beside onnxruntime out")
    try:
        Engine(folder).search([0], 1, SearchOptions(1, 1))
    except RuntimeError as error:  # such as for heads whose width is no multiple of 16
        reason = " ".join(str(error).split())
        raise UsageError(
            f"onnxruntime-genai cannot run the model ({reason})", "leave --beside onnxruntime out"
        ) from error


def unconstrained() -> Callable[[Task], Done]:
    """Beam search of as many new tokens as a mean ID has, over what `convert` wrote."""
    return lambda task: run_contender(task, lambda _, trie: (_answers(task, trie), None))


class Engine:
    """A model that `convert` wrote into the folder of the model itself, ready for searches on the CPU."""

    def __init__(self, folder: str) -> None:
        import onnxruntime_genai

        threads = {"intra_op_num_threads": torch.get_num_threads(), "inter_op_num_threads": 1}
        config = onnxruntime_genai.Config(str(Path(folder, _INTO)))
        config.overlay(orjson.dumps({"model": {"decoder": {"session_options": threads}}}).decode())
        self.library: Any = onnxruntime_genai
        self.model = onnxruntime_genai.Model(config)

    def search(self, prompt: Sequence[int], steps: int, options: SearchOptions) -> list[list[int]]:
        """The best `options.k` answers of so many tokens to a prompt, best first; none holds EOS."""
        how = self.library.GeneratorParams(self.model)
        length = len(prompt) + steps  # below its least length it never takes EOS
        how.set_search_options(
            num_beams=options.beams,
            num_return_sequences=options.k,
            length_penalty=options.length_penalty,
            min_length=length,
            max_length=length,
            do_sample=False,
            early_stopping=False,
            batch_size=1,
        )
        generator = self.library.Generator(self.model, how)
        generator.append_tokens(np.array([prompt], dtype=np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [generator.get_sequence(place)[len(prompt) :].tolist() for place in range(options.k)]


def _answers(task: Task, trie: Trie) -> Answer:
    engine = Engine(task.folder)
    asked = [[*prompt, trie.eos] for prompt in task.prompts]
    steps = round(float(trie.lengths.mean()))

    def answer(users: Sequence[int]) -> list[Ranking]:
        for user in users:
            engine.search(asked[user], steps, task.options)
        return []

    return answer
