"""CTranslate2 as a contender in `bench decode`: what another engine's beam search costs, without the tree.

Its beam search takes no rule about the next token that depends on those before, so it has no tree: it bounds from
outside what a search with the tree may take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import torch

from idgr.bench.decode_contenders import Answer, Done, Task, run_contender
from idgr.decoding.beam import Ranking, SearchOptions
from idgr.errors import IdgrError, UsageError
from idgr.models.device import pick_device

if TYPE_CHECKING:
    from idgr.decoding.trie import Trie

ONE_BY_ONE = False  # it answers several users at a time as well

_INTO = "ctranslate2"


def check_runs(device: str, dtype: str) -> None:
    """Raise `IdgrError` where CTranslate2 is missing; how it runs on a device depends on the processor as well."""
    if find_spec("ctranslate2") is None:
        raise IdgrError("--beside ctranslate2 needs ctranslate2, which is not installed", "pip install 'idgr[bench]'")


def convert(folder: str) -> None:
    """Write a causal model as CTranslate2 reads it, into a new folder within the model's own.

    Raises:
        UsageError: its converter cannot read the model.
    """
    from ctranslate2.converters import TransformersConverter

    into = Path(folder, _INTO)
    try:
        TransformersConverter(folder).convert(str(into))
    except Exception as error:  # what it raises depends on the versions of both libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"ctranslate2 cannot convert the model ({reason})", "leave --beside ctranslate2 out"
        ) from error
    # A tokenizer may lack special tokens that no search here asks for; as null, they are not read.
    facts = orjson.loads((into / "config.json").read_bytes())
    named = {name: facts["eos_token"] if value is None else value for name, value in facts.items()}
    (into / "config.json").write_bytes(orjson.dumps(named))


def unconstrained() -> Callable[[Task], Done]:
    """Beam search of as many new tokens as a mean ID has, over what `convert` wrote."""
    return lambda task: run_contender(task, lambda _, trie: (_answers(task, trie), None))


class Engine:
    """A model that `convert` wrote, ready for searches.

    Args:
        folder: that of the model itself.
        device: cpu or cuda.
        dtype: fp32 or bf16.

    Raises:
        UsageError: CTranslate2 does not run it so.
    """

    def __init__(self, folder: str, device: str, dtype: str) -> None:
        import ctranslate2

        path = Path(folder, _INTO)
        self.names: list[str] = orjson.loads((path / "vocabulary.json").read_bytes())
        precision = {"fp32": "float32", "bf16": "bfloat16"}[dtype]
        threads = torch.get_num_threads()
        try:
            self.generator = ctranslate2.Generator(
                str(path), device=device, compute_type=precision, inter_threads=1, intra_threads=threads
            )
        except (RuntimeError, ValueError) as error:
            what = f"ctranslate2 cannot run the model in {dtype} ({error})"
            raise UsageError(what, "leave --beside ctranslate2 out") from error

    def search(
        self, prompts: Sequence[Sequence[int]], end: int, steps: int, options: SearchOptions, batch_size: int
    ) -> list[list[list[int]]]:
        """The best `options.k` answers of so many tokens to each prompt, best first; none holds the token `end`."""
        found = self.generator.generate_batch(
            [[self.names[token] for token in prompt] for prompt in prompts],
            max_batch_size=batch_size,
            beam_size=options.beams,
            num_hypotheses=options.k,
            length_penalty=options.length_penalty,
            max_length=steps,
            # It looks at `min_length` only where the prompt is part of the answer.
            end_token=[end],
            suppress_sequences=[[self.names[end]]],
            include_prompt_in_result=False,
        )
        return [one.sequences_ids for one in found]


def _answers(task: Task, trie: Trie) -> Answer:
    engine = Engine(task.folder, pick_device(task.device).type, task.dtype)
    asked = [[*prompt, trie.eos] for prompt in task.prompts]
    steps = round(float(trie.lengths.mean()))

    def answer(users: Sequence[int]) -> list[Ranking]:
        engine.search([asked[user] for user in users], trie.eos, steps, task.options, task.batch_size)
        return []

    return answer
