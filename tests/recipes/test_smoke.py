"""The paper's experiments at `--size smoke`, whole: each recipe's tables, its record, and that it is not done twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.formats.records import read_ids, read_queries

from ..cli.test_pretrained_causal import byte_level_tokenizer, save_llama
from ..encoder_folder import tiny_bert

ROOT = Path(__file__).parents[2]
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not there")

METRICS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")


@pytest.fixture
def path(warm_path: str) -> str:
    return warm_path


def recipe(path: str, name: str, *words: str, script: str = "run.sh") -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), "IDGR_INSTALLED": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [BASH, ROOT / "recipes" / name / script, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done


def tables(text: str) -> list[dict[str, dict[str, float]]]:
    """The Markdown tables of `recipes/table.py`: for each, the figures by row and metric."""
    found: list[dict[str, dict[str, float]]] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"\d+ users", cells[0]):
            assert cells[1:] == list(METRICS)
            found.append({})
        elif line.startswith("| "):
            found[-1][cells[0]] = dict(zip(METRICS, map(float, cells[1:]), strict=True))
    return found


def check(figures: dict[str, float], file: Path, n_users: int) -> None:
    """That a row shows what the file says of so many users, and that this can be so."""
    metrics = json.loads(file.read_bytes())
    assert metrics["n_users"] == n_users
    assert figures == {name: round(metrics[name], 4) for name in METRICS}
    assert 0 <= metrics["ndcg@5"] <= metrics["hr@5"] <= metrics["hr@10"] <= 1
    assert metrics["ndcg@10"] <= metrics["hr@10"]


def trained(out: Path) -> dict[str, bytes]:
    """The records of all that training made: each tells when it was made."""
    records = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("run.json")}
    commands = ("init-gen", "train-gen", "train-rec", "train-sasrec", "train-adapter")
    return {name: record for name, record in records.items() if json.loads(record)["command"] in commands}


def test_standard(path: str, tmp_path: Path) -> None:
    """Table 4; the Markov baseline is a count, so its figures are those of expected.tsv on any machine."""
    out = tmp_path / "out"
    words = ("--dataset", "demo", "--size", "smoke", "--rows", "textual semantic", "--out", str(out))
    done = recipe(path, "standard", *words)
    rows = ["textual", "semantic", "sasrec", "markov", "popularity"]
    (table,) = tables(done.stdout)
    assert list(table) == rows
    for row in rows:
        check(table[row], out / row / "metrics.json", 240)
    verdicts = [line for line in done.stdout.splitlines() if re.match(r"OK|FAIL", line)]
    assert {line.split()[1] for line in verdicts} == {"markov", "popularity"}
    assert {line.split()[0] for line in verdicts} == {"OK"}
    tests = json.loads((out / "significance.json").read_bytes())["comparisons"]
    assert len(tests) == 2 * (len(rows) - 1)
    before = trained(out)
    assert sorted(before) == ["sasrec/rec/run.json", "semantic/rec/run.json", "textual/rec/run.json"]
    recipe(path, "standard", *words, "--stage", "2", "--stop-stage", "4")
    assert trained(out) == before


def test_accuracy(path: str, tmp_path: Path) -> None:
    """The table over seeds: each row's figures are those of its users."""
    data, out = tmp_path / "data", tmp_path / "out"
    assert run(["prep", "demo", "--items", "60", "--users", "90", "-o", str(data)]) == 0
    short = ("--seeds", "3", "--epochs", "1", "--near-epochs", "1", "--sasrec-epochs", "1", "--out", str(out))
    done = recipe(path, "standard", "--data", str(data), *short, script="accuracy.sh")
    head, _, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert head.startswith("| 1 seeds | HR@5 | NDCG@5 | HR@10 | NDCG@10 |")
    shown = {cells[0]: cells[1:-1] for cells in ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)}
    places = {name: out / "seed-3" / name for name in ("near", "near-sasrec", "textual", "sasrec")}
    places |= {name: out / name for name in ("star", "markov", "popularity")}
    assert list(shown) == list(places)
    for name, place in places.items():
        metrics = json.loads((place / "metrics.json").read_bytes())
        assert shown[name] == [f"{metrics[metric]:.4f}" for metric in METRICS]
    settings = json.loads((out / "seed-3" / "textual" / "rec" / "run.json").read_bytes())["options"]
    assert (settings["objective"], settings["seed"]) == ("trie", 3)
    for row in ("near", "near-sasrec"):
        told = json.loads((out / "seed-3" / row / "rec" / "run.json").read_bytes())
        options = told["options"]
        assert (options["tell-items"], options["near-items"], told["item_head"]["weight"]) == (True, 50, 1)
        assert ("item-vectors" in told["inputs"]) == (row == "near-sasrec")
    assert len(json.loads((out / "seed-3" / "significance.json").read_bytes())["comparisons"]) == 2 * 5


def test_ablation(path: str, tmp_path: Path) -> None:
    """Tables 5 and 6."""
    out = tmp_path / "out"
    words = ("--dataset", "demo", "--size", "smoke", "--out", str(out))
    done = recipe(path, "ablation", *words)
    shown = {"table5": ["rec-only", "id-only", "alternate"], "table6": ["both", "user-only", "item-only"]}
    for (folder, rows), table in zip(shown.items(), tables(done.stdout), strict=True):
        assert list(table) == [*rows, "popularity", "markov"]
        for row in rows:
            check(table[row], out / folder / row / "metrics.json", 30)
        assert len(json.loads((out / folder / "significance.json").read_bytes())["comparisons"]) == 2 * 2
    options = {
        row: json.loads((out / "table6" / row / "rec" / "run.json").read_bytes())["options"] for row in shown["table6"]
    }
    assert {row: (found["user-ids"], found["history"]) for row, found in options.items()} == {
        "both": ("history", "shown"),
        "user-only": ("history", "none"),
        "item-only": ("none", "shown"),
    }
    assert {name.split("/")[0] for name in trained(out)} == {"gen", "table5", "table6"}


@pytest.mark.parametrize(("rec", "select"), [("nano", 0), ("nano-causal", 1)])
def test_distracting_texts(path: str, tmp_path: Path, rec: str, select: int) -> None:
    """Every row has its last training and its figures; those in one go have as many epochs as the others in all."""
    out = tmp_path / "out"
    short = ("--items", "20", "--users", "30", "--rec-epochs", "1", "--gen-epochs", "1", "--settle-epochs", "1")
    chosen = ("--select", str(select), "--select-rounds", "1", "--select-epochs", "2")
    done = recipe(path, "ablation", *short, *chosen, "--rec", rec, "--out", str(out), script="distracting.sh")
    epochs = {"keyphrase": 3, "rec-only": 1, "alternate": 1, "scratch-first": 3, "scratch-alternate": 3}
    if select:
        epochs |= dict.fromkeys(["select", "random", "words", "random-words", "rec-only-long"], 1)
        epochs |= {"scratch-long": 5, "scratch-words": 5, "scratch-random-words": 5}
    told = [line for line in done.stdout.splitlines() if "of the words tell" in line]
    assert len(told) == sum(not row.startswith("scratch-") for row in epochs)
    (table,) = tables(done.stdout[done.stdout.index("| 30 users |") :])
    assert set(table) == {*epochs, "popularity", "markov"}
    for row, n_epochs in epochs.items():
        check(table[row], out / f"{row}-metrics.json", 30)
        settings = json.loads((out / f"{row}-settled" / "run.json").read_bytes())["options"]
        assert settings["epochs"] == n_epochs


def test_choosing_ids(path: str, tmp_path: Path) -> None:
    """What chosen IDs and a generator's are worth, and the items that moved: the targets whose IDs are others."""
    data, out = tmp_path / "data", tmp_path / "out"
    assert run(["prep", "demo", "--items", "40", "--users", "60", "-o", str(data)]) == 0
    short = ("--epochs", "1", "--settle-epochs", "1", "--gen-epochs", "1", "--valid-users", "20", "--held-out", "0.3")
    rows = ["select", "rec-only", "names-back", "untaught", "soft", "id-only", "scratch-soft"]
    words = ("--data", str(data), "--rows", " ".join(rows), *short, "--out", str(out))
    done = recipe(path, "ablation", *words, script="choose.sh")
    start, end = done.stdout.index("| gain |"), done.stdout.index("| 60 users |")
    (table,) = tables(done.stdout[end:])
    assert list(table) == [*rows, "popularity", "markov"]
    for row in rows:
        check(table[row], out / f"{row}-metrics.json", 60)
    chosen = out / "select" / "round-2"
    first, last = ({one.item_id: one.id for one in read_ids(folder / "ids.jsonl")} for folder in (out, chosen))
    targets = {query.target for query in read_queries(data / "test.jsonl", need_target=True)}
    moved = {item for item in first if first[item] != last[item]}
    assert bool(moved) == json.loads((chosen / "decision.json").read_bytes())["accepted"]
    assert done.stdout[start:end].count("\n") == 2 + min(20, len(moved & targets))


def test_foundation(path: str, tmp_path: Path) -> None:
    """Tables 2, 3 and 7."""
    out = tmp_path / "out"
    done = recipe(path, "foundation", "--size", "smoke", "--out", str(out))
    rows = ["both", "gen-only", "rec-only", "round-1"]
    (table,) = tables(done.stdout)
    assert list(table) == [*rows, "popularity", "markov"]
    for row in rows:
        check(table[row], out / "demo-3" / row / "metrics.json", 30)
    stats = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
    assert {Path(line["data"]).name for line in stats} == {"demo-1", "demo-2", "demo-3"}
    assert [line["group"] for line in stats] == ["sparse", "medium", "dense"]
    fused = json.loads((out / "data" / "stats.json").read_bytes())
    assert fused["fused"] == ["demo-1", "demo-2"]
    assert "demo-3" not in (out / "data" / "train.jsonl").read_text()
    before = trained(out)
    recipe(path, "foundation", "--size", "smoke", "--out", str(out), "--stage", "4", "--stop-stage", "5")
    assert trained(out) == before


def test_llm_bs(path: str, tmp_path: Path) -> None:
    """Table 4's last two rows, on IDs of both sources."""
    out = tmp_path / "out"
    words = ("--dataset", "demo", "--size", "smoke", "--rows", "dual-gct dual-gct-aat", "--out", str(out))
    done = recipe(path, "llm-bs", *words)
    rows = ["dual-gct", "dual-gct-aat", "sasrec", "markov", "popularity"]
    (table,) = tables(done.stdout)
    assert list(table) == rows
    for row in rows:
        check(table[row], out / row / "metrics.json", 240)
    verdicts = [line for line in done.stdout.splitlines() if re.match(r"OK|FAIL", line)]
    assert {line.split()[0] for line in verdicts} == {"OK"}
    assert len(json.loads((out / "significance.json").read_bytes())["comparisons"]) == 2 * (len(rows) - 1)
    assert len(json.loads((out / "significance-adapter.json").read_bytes())["comparisons"]) == 2
    assert sorted(file.name for file in (out / "ids").glob("*.jsonl")) == ["dual-purity.jsonl", "dual.jsonl"]
    base, *purity = (json.loads(line) for line in (out / "ids" / "dual-purity.jsonl").read_text().splitlines())
    assert purity[0]["entropy_bits"] < purity[0]["chance_bits"] < base["entropy_bits"]
    adapted = json.loads((out / "dual-gct-aat" / "recs.jsonl.run.json").read_bytes())
    assert adapted["inputs"]["adapter"]["path"] == str(out / "dual-gct-aat" / "adapter")
    options = json.loads((out / "dual-gct" / "rec" / "run.json").read_bytes())["options"]
    assert (options["word-tokens"], options["contrast-semantic"], options["contrast-behavior"]) == (True, 0.1, 0.1)
    before = trained(out)
    assert sorted(before) == ["dual-gct-aat/adapter/run.json", "dual-gct/rec/run.json", "sasrec/rec/run.json"]
    recipe(path, "llm-bs", *words, "--stage", "2", "--stop-stage", "5")
    assert trained(out) == before


def test_llm_bs_with_a_sentence_encoder(path: str, tmp_path: Path) -> None:
    """IDs of the vectors of --text-vectors, in the place of TF-IDF."""
    encoder, out = tmp_path / "encoder", tmp_path / "out"
    encoder.mkdir()
    tiny_bert(["garden", "kitchen", "lamp", "red", "soap", "tent"], encoder)
    words = ["--dataset", "demo", "--size", "smoke", "--rows", "semantic semantic-tree", "--text-vectors", str(encoder)]
    recipe(path, "llm-bs", *words, "--sasrec", str(tmp_path), "--out", str(out), "--stop-stage", "3")
    for row in ("semantic", "semantic-tree"):
        record = json.loads((out / "ids" / f"{row}.jsonl.run.json").read_bytes())
        assert (record["options"]["scheme"], record["inputs"]["text-vectors"]["path"]) == (row, str(encoder))


def test_pretrained(path: str, tmp_path: Path) -> None:
    """A language model, here with random weights, as it comes and trained elsewhere, beside the text rule."""
    model, out = tmp_path / "model", tmp_path / "out"
    save_llama(byte_level_tokenizer(), model)
    words = ["--rec", str(model), "--train", "demo-2 demo-3", "--test", "demo-1", "--users", "20", "--draws", "0 1"]
    words += ["--sequences", "8", "--precision", "fp32"]
    words += ["--rows", "untrained calibrated trained text-ranker text-rule popularity markov"]
    words += ["--weights", "0 0.5", "--valid-users", "10"]
    done = recipe(path, "foundation", *words, "--out", str(out), script="pretrained.sh")
    lines = [re.split(r" *\| *", line.strip("| ")) for line in done.stdout.splitlines() if line.startswith("| ")]
    table = {name: cells for name, *cells in lines[1:]}
    assert list(table) == ["untrained", "calibrated", "trained", "text-ranker", "text-rule", "popularity", "markov"]
    for row in table:
        drawn = [out / "demo-1" / f"draw-{draw}" / row for draw in (0, 1)]
        figures = [json.loads((folder / "metrics.json").read_bytes()) for folder in drawn]
        assert [one["n_users"] for one in figures] == [20, 20]
        mean = sum(one["hr@10"] for one in figures) / 2
        assert table[row][2].startswith(f"{mean:.4f} ± ")
    assert len((out / "demo-1" / "significance.json").read_bytes()) > 0
    told = json.loads((out / "trained" / "run.json").read_bytes())
    assert (told["separator"], told["options"]["epoch-instances"]) == ("newline", 8)
    of = out / "calibration"
    figures = {
        weight: [json.loads((of / name / weight / "metrics.json").read_bytes()) for name in ("demo-2", "demo-3")]
        for weight in ("0", "0.5")
    }
    assert [one["n_users"] for one in figures["0.5"]] == [10, 10]
    best = max(figures, key=lambda weight: sum(one["ndcg@10"] for one in figures[weight]))
    assert (of / "weight").read_text() == f"{best}\n"
    record = json.loads((out / "demo-1" / "draw-0" / "calibrated" / "recs.jsonl.run.json").read_bytes())
    assert record["options"]["calibration-weight"] == float(best)


def test_tree(path: str, tmp_path: Path) -> None:
    """The tree beside free answers and ranked candidates: each row tells what it ranks; the rest is in test_answers."""
    model, out = tmp_path / "model", tmp_path / "out"
    save_llama(byte_level_tokenizer(), model)
    words = ["--rec", str(model), "--dataset", "demo", "--users", "8", "--precision", "fp32", "--sequences", "8"]
    words += ["--freeze", "1", "--free-beams", "2", "--candidates", "5", "--told-sequences", "8"]
    words += ["--sasrec-epochs", "1", "--rows", "tree free told popularity popularity-20"]
    done = recipe(path, "foundation", *words, "--out", str(out), script="tree.sh")
    head, _, *lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    table = {name: cells for name, *cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    assert head == "| 8 users | ranks | hr@1 | hr@5 | ndcg@5 | hr@10 | ndcg@10 | seconds |"
    ranks = {row: cells[0] for row, cells in table.items()}
    n_items = len((out / "data" / "items.jsonl").read_bytes().splitlines())
    whole = f"all {n_items} items"
    assert ranks == dict.fromkeys(["tree", "free", "told", "popularity"], whole) | {"popularity-20": "5 candidates"}
    for row, cells in table.items():
        metrics = json.loads((out / row / "metrics.json").read_bytes())
        assert (metrics["n_users"], cells[3]) == (8, f"{metrics['ndcg@5']:.4f}")
    assert table["popularity-20"][2] == "1.0000"  # of five candidates one is always the target
    told = json.loads((out / "free" / "free.json").read_bytes())
    assert f"of 8 answers {told['name_no_item']:.1%} name no item" in done.stdout
    options = json.loads((out / "trained" / "run.json").read_bytes())["options"]
    assert (options["freeze"], options["epoch-instances"]) == (1, 8)
    assert json.loads((out / "told-model" / "run.json").read_bytes())["options"]["tell-items"] is True


def test_names(path: str, tmp_path: Path) -> None:
    """IDs of a language model, here with random weights, and of rules: what of them is garbled, a recommender each."""
    model, out = tmp_path / "model", tmp_path / "out"
    save_llama(byte_level_tokenizer(), model, max_position_embeddings=1024)
    (model / "run.json").write_text('{"prompt": "plain"}')  # as one that was taught, which is asked without examples
    rows = ["model", "keyphrase", "shared", "clusters"]
    words = ["--model", str(model), "--dataset", "demo", "--items", "12", "--users", "10", "--alone", "0"]
    words += ["--rows", " ".join(rows)]
    words += ["--max-text-tokens", "32", "--epochs", "1", "--out", str(out)]
    done = recipe(path, "foundation", *words, script="names.sh")
    head, _, *lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    table = {name: cells for name, *cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    assert head.startswith(
        "| 12 items | garbled | repeat a word | second attempts | words an ID | items a second | hr@5 |"
    )
    assert list(table) == rows
    assert [float(table[row][0].rstrip("%")) > 50 for row in rows[:3]] == [True, False, False]
    assert [table[row][2] == "–" for row in table] == [False, True, True, True]
    for row in table:
        metrics = json.loads((out / row / "metrics.json").read_bytes())
        assert table[row][5:] == [f"{metrics[metric]:.4f}" for metric in METRICS]
    options = [json.loads((out / row / "rec" / "run.json").read_bytes())["options"] for row in table]
    assert options[0] == options[1] == options[2]
    bought = [
        item for line in (out / "data" / "train.jsonl").read_text().splitlines() for item in json.loads(line)["items"]
    ]
    whole = [
        item for line in (out / "whole" / "train.jsonl").read_text().splitlines() for item in json.loads(line)["items"]
    ]
    kept = {json.loads(line)["item_id"] for line in (out / "data" / "items.jsonl").read_text().splitlines()}
    assert len(kept) == 12
    assert set(bought) <= kept
    count = Counter(whole)
    assert min(count[item] for item in kept) >= max(count[item] for item in set(whole) - kept)
    assert len((out / "significance.json").read_bytes()) > 0
