"""A history that grew costs what is new of it, and its list is that of a fresh read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgr.decoding.beam import BeamSearch, SearchOptions
from idgr.decoding.exact import ExactSearch
from idgr.decoding.prompt_memory import PromptMemory
from idgr.decoding.trie import build_trie
from idgr.errors import UsageError
from idgr.prompts.histories import HistoryRenderer
from idgr.recommender.told_items import ToldItems
from idgr.stages.ranker_options import RankerOptions
from idgr.stages.rankers import load_ranker

from .oracle import EOS, tiny_llama, tiny_t5

NEWLINE = 39
WIDTH = tiny_llama(0).config.hidden_size


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("slots", "told"), [(9, True), (9, False), (0, True), (0, False)])
@torch.inference_mode()
def test_only_new_items_are_read(slots: int, told: bool, exact: bool) -> None:
    """Four histories that grow by an item at a time, of which one loses its oldest at last."""
    generator = np.random.default_rng(7)
    model = tiny_llama(3, item_slots=slots, num_attention_heads=4, num_key_value_heads=2)
    ids = [[4 + item, *generator.integers(4, 39, size=item % 5).tolist()] for item in range(30)]
    grown = [*ids, *([*row, 4 + item] for item, row in enumerate(ids))]
    end = EOS if slots else NEWLINE
    vectors = torch.randn(len(grown), WIDTH, generator=torch.Generator().manual_seed(0))
    options, added = SearchOptions(6, 6, normalize="full"), ToldItems.of(vectors, grown, end) if told else None
    kind: Any = ExactSearch if exact else BeamSearch
    known, fresh = (kind(model, build_trie(grown, end), options, told=added) for _ in range(2))
    known.decoder.remember(PromptMemory(1 << 24))
    renderer = HistoryRenderer(end, grown, 5, 100, leads=end == EOS)
    histories = generator.permutation(30)[:28].reshape(4, 7).tolist()
    read = list[int]()
    for n in range(4):
        shown = [row[: n + first] for row, first in zip(histories, (1, 2, 3, 1), strict=True)]
        prompts = [renderer.render(row, 0).tokens for row in shown]
        before = known.decoder.network.n_read
        found, wanted = known.search(prompts, batch_size=3), fresh.search(prompts, batch_size=3)
        read.append(known.decoder.network.n_read - before)
        for one, other in zip(found, wanted, strict=True):
            assert one.items == other.items
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    new = [
        sum(len(ids[row[n + first - 1]]) + 1 for row, first in zip(histories, (1, 2, 3, 1), strict=True))
        for n in range(4)
    ]
    assert read[1:3] == new[1:3]
    # Of the third, all but the EOS before the first item is read again.
    again = sum(len(ids[item]) + 1 for item in histories[2][1:5]) - 1
    assert read[3] == new[3] + again
    assert known.search(prompts, batch_size=4) == known.search(prompts, batch_size=4)
    assert known.decoder.network.n_read == sum(read)


def test_the_longest_beginning_is_found_and_the_oldest_goes() -> None:
    """Beside a plain search through all that was kept; room for five prompts of six tokens."""
    generator = np.random.default_rng(1)
    memory, kept = PromptMemory(5 * 6 * 4), list[tuple[int, ...]]()
    for _ in range(400):
        prompt = generator.integers(0, 2, size=generator.integers(1, 7)).tolist()
        states = torch.tensor(prompt, dtype=torch.float32)
        longest = 0
        for other in kept:
            n = 0
            while n < min(len(prompt), len(other)) and prompt[n] == other[n]:
                n += 1
            longest = max(longest, n)
        found = memory.beginning(prompt)
        assert (0 if found is None else len(found)) == longest
        assert found is None or torch.equal(found, states[:longest])
        memory.keep(prompt, states)
        kept = list(memory._states)
        assert memory._ordered == sorted(kept)
        assert memory.n_bytes == 4 * sum(map(len, kept)) <= memory.most_bytes
        assert all(one == other or one != other[: len(one)] for one in kept for other in kept)
        assert any(tuple(prompt) == other[: len(prompt)] for other in kept)


def test_none_for_a_t5(tmp_path: Path) -> None:
    tiny_t5(0).save_pretrained(tmp_path)
    (tmp_path / "ids.jsonl").write_text('{"item_id": "a", "id": "word"}\n')
    options = RankerOptions(rec=str(tmp_path), ids=str(tmp_path / "ids.jsonl"), force=True, cache=True)
    with pytest.raises(UsageError, match=r"--cache given, but .* is a T5"):
        load_ranker(options)
