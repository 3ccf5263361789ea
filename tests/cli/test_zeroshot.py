"""`idgr zeroshot` on a foreign catalogue, with models that have learnt elsewhere, on disk, in miniature."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from idgr.cli.main import run
from idgr.engine.options import TrainingOptions
from idgr.formats.jsonl import write_jsonl
from idgr.generator.training import train_generator
from idgr.models.backbone import PRESETS, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import encode, load_tokenizer, train_tokenizer

TINY = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=340)
HOME = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("tent", "stove", "lamp")]
FOREIGN = [f"{colour} {thing}" for colour in ("red", "teal") for thing in ("tent", "kayak", "lamp", "oar")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Foreign data, a recommender trained at home on IDs that are the titles, and generators that copy titles."""
    folder = tmp_path_factory.mktemp("zeroshot")
    (folder / "data").mkdir()
    rows = ({"item_id": f"x{n}", "text": f"title: {text}"} for n, text in enumerate(FOREIGN))
    write_jsonl(folder / "data" / "items.jsonl", rows)
    items = [f"x{n}" for n in range(len(FOREIGN))]
    write_jsonl(
        folder / "data" / "train.jsonl", [{"user_id": "a", "items": items[:5]}, {"user_id": "b", "items": items[2:6]}]
    )
    queries = [
        {"user_id": "a", "history": items[:5], "target": "x6"},
        {"user_id": "b", "history": items[2:6], "target": "x7"},
    ]
    write_jsonl(folder / "data" / "test.jsonl", queries)

    tokenizer = train_tokenizer([*HOME, *FOREIGN, "title: history: ; next:"], TINY.vocab_size)
    texts = [f"title: {text}" for text in (*HOME, *FOREIGN)]
    for name, epochs in (("gen", 20), ("base-gen", 10)):
        generator = new_backbone(TINY, tokenizer, seed=0)
        loop = TrainingOptions(epochs=epochs, lr=1e-2, batch_size=4, dropout=0.0)
        pairs = list(zip(texts, (*HOME, *FOREIGN), strict=True))
        train_generator(generator, pairs, loop, max_text_tokens=32, held_out=0.0, on_epoch=lambda record: None)
        (folder / name).mkdir()
        save_backbone(generator, folder / name)
    (folder / "base-rec").mkdir()
    save_backbone(new_backbone(TINY, tokenizer, seed=2), folder / "base-rec")
    write_jsonl(folder / "ids.jsonl", ({"item_id": f"h{n}", "id": text} for n, text in enumerate(HOME)))
    write_jsonl(folder / "train.jsonl", [{"user_id": "c", "items": [f"h{n}" for n in range(len(HOME))]}])
    command = ["train-rec", str(folder / "train.jsonl"), "--ids", str(folder / "ids.jsonl"), "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "nano", TINY)
        assert run([*command, "--tokenizer", str(folder / "gen"), "--device", "cpu", "-o", str(folder / "rec")]) == 0
    return folder


def zeroshot(place: Path, output: Path, *more: str) -> int:
    models = ["--gen", str(place / "gen"), "--rec", str(place / "rec")]
    return run(["zeroshot", str(place / "data"), *models, "--device", "cpu", *more, "-o", str(output)])


def test_writes_ids_recommendations_and_metrics(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert zeroshot(place, output) == 0
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines() if " zeroshot: " in line]
    assert said[:3] == [f"zeroshot: {step}" for step in ("1 of 3, IDs", "2 of 3, recommendations", "3 of 3, metrics")]
    assert len(said) == 4
    assert {path.name for path in output.iterdir()} == {"ids.jsonl", "recs.jsonl", "metrics.json", "run.json"}
    ids = [orjson.loads(line) for line in (output / "ids.jsonl").read_bytes().splitlines()]
    assert [row["item_id"] for row in ids] == [f"x{n}" for n in range(len(FOREIGN))]
    recs = [orjson.loads(line) for line in (output / "recs.jsonl").read_bytes().splitlines()]
    assert [row["user_id"] for row in recs] == ["a", "b"]
    assert not set(recs[0]["items"]) & {f"x{n}" for n in range(5)}
    metrics = orjson.loads((output / "metrics.json").read_bytes())
    assert metrics["n_users"] == 2
    assert set(metrics["baselines"]) == {"popularity", "markov"}

    tokenizer = load_tokenizer(str(place / "rec"))
    seen = {token for row in encode(tokenizer, HOME) for token in row}
    rows = encode(tokenizer, [row["id"] for row in ids])
    unseen = [token not in seen for row in rows for token in row]
    assert metrics["foreign"]["unseen_tokens"] == pytest.approx(sum(unseen) / len(unseen))
    assert metrics["foreign"]["items_with_unseen"] == sum(bool(set(row) - seen) for row in rows) / len(rows)
    record = orjson.loads((output / "run.json").read_bytes())
    assert set(record["outputs"]) == {"ids.jsonl", "recs.jsonl", "metrics.json"}
    assert set(record["inputs"]) == {"items", "train", "test", "gen", "rec"}


def test_swaps_in_the_untrained_counterpart(place: Path, tmp_path: Path) -> None:
    assert zeroshot(place, tmp_path / "both") == 0
    assert zeroshot(place, tmp_path / "rec", "--models", "rec-only", "--base-gen", str(place / "base-gen")) == 0
    assert zeroshot(place, tmp_path / "gen", "--models", "gen-only", "--base-rec", str(place / "base-rec")) == 0

    def read(name: str, file: str) -> bytes:
        return (tmp_path / name / file).read_bytes()

    assert read("gen", "ids.jsonl") == read("both", "ids.jsonl")
    assert read("gen", "recs.jsonl") != read("both", "recs.jsonl")
    assert read("rec", "ids.jsonl") != read("both", "ids.jsonl")
    assert orjson.loads(read("gen", "metrics.json"))["foreign"] is None  # an untrained one has seen nothing to compare


def test_refuses_a_base_without_its_choice(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--models", "gen-only"], ["--models", "rec-only"], ["--base-rec", str(place / "base-rec")]):
        assert zeroshot(place, tmp_path / "out", *more) == 2
        assert "--base-" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    models = ["--gen", str(place / "gen"), "--rec", str(place / "rec"), "-o", str(tmp_path / "out")]
    assert run(["zeroshot", str(tmp_path / "empty"), *models]) == 1
    assert "items.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_finished_is_left_as_it_is_if_asked(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, recs, ids = tmp_path / "out", tmp_path / "recs.jsonl", tmp_path / "ids.jsonl"
    listing = ["recommend", str(place / "data" / "test.jsonl"), "--rec", str(place / "rec"), "--ids", str(ids)]
    listing += ["--force", "--device", "cpu", "-o", str(recs)]
    naming = ["gen-ids", str(place / "data" / "items.jsonl"), "--model", str(place / "gen"), "-o", str(ids)]

    def made(*more: str, k: str = "10") -> tuple[list[str], list[int]]:
        """Which commands said that nothing is to be done; when each output was written."""
        for code in (run([*naming, *more]), run([*listing, "-k", k, *more]), zeroshot(place, out, "-k", k, *more)):
            assert code == 0
        said = [line.split()[1] for line in capfd.readouterr().err.splitlines() if "nothing to do" in line]
        return said, [file.stat().st_mtime_ns for file in (ids, recs, out / "metrics.json")]

    said, first = made("--skip-finished")
    assert said == []
    assert made("--skip-finished") == (["gen-ids:", "recommend:", "zeroshot:"], first)
    said, again = made()  # without it all are made again, as ever
    assert said == []
    assert all(then < now for then, now in zip(first, again, strict=True))
    said, other = made("--skip-finished", k="3")
    assert said == ["gen-ids:"]
    assert [then < now for then, now in zip(again, other, strict=True)] == [False, True, True]
    recs.write_bytes(recs.read_bytes()[:-5])  # damaged
    assert made("--skip-finished", k="3")[0] == ["gen-ids:", "zeroshot:"]
    (out / "recs.jsonl").unlink()
    assert made("--skip-finished", k="3")[0] == ["gen-ids:", "recommend:"]
