"""The fuzzer's corpus, once through: what was found before must stay found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harnesses import HARNESSES

CORPUS = Path(__file__).with_name("corpus")
SEEDS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_harness_has_seeds() -> None:
    assert {path.parent.name for path in SEEDS} == set(HARNESSES)


@pytest.mark.parametrize("name", HARNESSES)
def test_no_seed_crashes(name: str) -> None:
    for seed in SEEDS:
        if seed.parent.name == name:
            try:
                HARNESSES[name](seed.read_bytes())
            except BaseException as fault:
                raise AssertionError(f"the seed {seed.relative_to(CORPUS)}") from fault


def test_a_harness_finds_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("idgr.formats.jsonl.orjson.loads", broken)
    with pytest.raises(RuntimeError):
        HARNESSES["records"](b'0{"item_id": "a", "text": "x"}')
