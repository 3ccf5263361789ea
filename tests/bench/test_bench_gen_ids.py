"""The contenders of `idgr bench gen-ids` do the same work, and their records say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from idgr.bench import gen_ids
from idgr.bench.processes import Measurement
from idgr.cli.main import run
from idgr.ids.generation import generate_ids
from idgr.ids.options import GenerationOptions
from idgr.models.backbone import Preset, new_backbone
from idgr.models.tokenizer import train_tokenizer

TINY = Preset(d_model=32, d_ff=48, num_layers=1, num_heads=2, d_kv=8, vocab_size=600)


def test_item_by_item_with_the_librarys_own_forward_pass_gives_our_ids() -> None:
    items = gen_ids.demo_items(5, seed=1)
    items += [replace(items[number % 2], item_id=f"again {number}") for number in range(9)]
    backbone = new_backbone(TINY, train_tokenizer([item.text for item in items], TINY.vocab_size), seed=0)
    gen_ids.make_talkative(backbone.model)
    backbone.model.eval()
    options = GenerationOptions(penalty_stop=0.3, max_length_rounds=2, batch_size=8)
    ids, attempts = gen_ids.plain_algorithm_1(backbone, items, options)
    made = generate_ids(items, lambda: backbone, backbone.tokenizer, options)
    assert any((record.attempt or 0) > 1 for record in made.ids)
    assert attempts > made.n_searches  # items of equal text share theirs with us
    for theirs, ours in zip(ids, made.ids, strict=True):
        assert theirs == (ours.id if ours.attempt is not None else "")


def test_a_record_for_each_contender(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def here(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Measurement:
        return Measurement(make()(*arguments), 1.0, 1.0, 100.0)

    monkeypatch.setattr(gen_ids, "measure", here)
    monkeypatch.setitem(gen_ids.PRESETS, "nano", TINY)
    assert run(["bench", "gen-ids", "--items", "6", "--shape", "nano", "--repeats", "2", "--device", "cpu"]) == 0
    records = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["contender"] for record in records] == ["item by item", "idgr"]
    assert records[0]["ratio"] == 1.0
    assert records[1]["same_ids"] == 1.0
    assert all(len(record["seconds"]) == 2 and record["peak_mib"] == 100 for record in records)


@pytest.mark.parametrize(
    ("options", "what"),
    [(["--shape", "huge"], "--shape huge"), (["--model", "a", "--tokenizer", "b"], "--tokenizer given with --model")],
)
def test_conflicts_are_found_first(options: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "gen-ids", *options]) == 2
    assert what in capsys.readouterr().err
