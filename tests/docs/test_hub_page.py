"""The blocks of docs/hub.md run, and what would be pushed is what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from .pages import run_page


def test_a_folder_to_push_is_written(tmp_path: Path, warm_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page("hub.md", tmp_path, warm_path, monkeypatch)
    card = ModelCard.load("pushed/README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "idgr")
    metrics, kept = (json.loads(Path(path).read_text()) for path in ("metrics.json", "rec/run.json"))
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert found["test", "ndcg@10"] == metrics["ndcg@10"]
    assert found["valid", "ndcg@10"] == kept["kept"]["ndcg@10"]
    assert {one.dataset_name for one in card.data.eval_results} == {"A made-up shop"}
    assert Path("pushed/model.safetensors").read_bytes() == Path("rec/model.safetensors").read_bytes()
