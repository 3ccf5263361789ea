"""docs/notebook.ipynb runs from its first cell to its last, and holds no outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra test)")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra test)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra test)")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (place := tmp_path / "place").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": os.fspath(place)}}
    )
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = ["".join(one.data["text/plain"] for one in cell.outputs if "data" in one) for cell in cells]
    assert "'users': 120, 'items': 30, 'interactions': 720" in shown[1]
    assert "'ndcg@10'" in shown[3]
    assert all(name in shown[4] for name in ("this model", "popularity", "markov"))
    assert shown[5].startswith("shape: (5, 5)")
    assert shown[-1].count("('i") == 3
    users = [json.loads(line)["user_id"] for line in (place / "recs.jsonl").read_text().splitlines()]
    assert len(users) == 120


def test_the_notebook_holds_no_outputs() -> None:
    told = json.loads(NOTEBOOK.read_text())
    for cell in told["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not any(line.startswith(("!", "%")) for line in cell["source"])
