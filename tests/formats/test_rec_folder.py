"""What a recommender's record tells, where someone has changed it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from idgr.errors import IdgrError
from idgr.formats.json_file import read_object
from idgr.formats.rec_folder import CONFIG, item_model_type, read_recommender_facts
from idgr.formats.run_info import read_run
from idgr.prompts.templates import split_template

FACTS: dict[str, Any] = {
    "command": "train-rec",
    "options": {},
    "objective": "full",
    "templates": ["history: {history} next:", "{{a}} {history}"],
    "max_history": 20,
    "max_prompt_tokens": 512,
    "ids_fingerprint": "0",
    "inputs": {"train": {"path": "train.jsonl", "sha256": None}},
    "outputs": {},
}


def folder(tmp_path: Path, changes: dict[str, Any]) -> Path:
    (tmp_path / "run.json").write_bytes(orjson.dumps({**FACTS, **changes}))
    return tmp_path


@pytest.mark.parametrize(
    "text", ["", "x", "{history}{history}", "{history} {user}", "{", "{history!r}", "{history:>9}"]
)
def test_a_template_without_its_slot_is_refused(tmp_path: Path, text: str) -> None:
    assert read_recommender_facts(folder(tmp_path, {})).templates == FACTS["templates"]
    for template in FACTS["templates"]:
        split_template(template)
    with pytest.raises(ValueError, match=r"slot|stands|template"):
        split_template(text)
    with pytest.raises(IdgrError, match=r"its run\.json tells templates .*; give a folder that `idgr train-rec` wrote"):
        read_recommender_facts(folder(tmp_path, {"templates": [*FACTS["templates"], text]}))


def test_a_causal_encoder_is_told_or_not(tmp_path: Path) -> None:
    assert read_recommender_facts(folder(tmp_path, {})).causal_encoder is False
    assert read_recommender_facts(folder(tmp_path, {"causal_encoder": True})).causal_encoder is True
    with pytest.raises(IdgrError, match=r"its run\.json tells causal_encoder 'yes'; give a folder"):
        read_recommender_facts(folder(tmp_path, {"causal_encoder": "yes"}))


@pytest.mark.parametrize("entry", [{}, {"path": "train.jsonl"}, {"sha256": "0"}, {"path": None, "sha256": None}, None])
def test_an_input_without_path_or_hash_is_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(IdgrError, match=r"run\.json: its input 'train' has no path and hash; make the output again"):
        read_run(folder(tmp_path, {"inputs": {"train": entry}}))


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    for name in (CONFIG, "run.json"):
        os.mkfifo(tmp_path / name)
    assert item_model_type(tmp_path) is None
    with pytest.raises(IdgrError, match="is no regular file"):
        read_object(tmp_path / "run.json", "make it again")
