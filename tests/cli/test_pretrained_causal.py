"""A causal language model that idgr has not trained recommends, an ID a line, by the scores of `transformers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.cli.main import run
from idgr.formats.jsonl import write_jsonl
from idgr.models.backbone import Backbone, load_causal_backbone, save_backbone
from idgr.models.separator import newline_token, separator_token
from idgr.models.tokenizer import encode, id_tokens, train_tokenizer

from ..decoding.oracle import tiny_llama, tiny_t5

IDS = ("chi pro hair dryer", "chi hair brush", "red nail polish", "blue nail polish", "aloe", "aloe cream", "soap bar")
KEYS = [f"I{n}" for n in range(len(IDS))]
HISTORIES = [["I0", "I2", "I3"], ["I4"], [], ["I6", "I5", "I1", "I2"]]
SMOLLM2 = Path(__file__).parents[2] / "models" / "smollm2"  # of recipes/pretrained.sh


def byte_level_tokenizer() -> Any:
    """A byte-level BPE as SmolLM2's, with merges of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*IDS, " ".join(IDS), *IDS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **{"pad_token": "<pad>", "eos_token": "<end>"})


def save_llama(tokenizer: Any, folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    save_backbone(Backbone(tiny_llama(5, len(tokenizer), **changes), tokenizer), folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set, its IDs, and a Llama as it comes."""
    place = tmp_path_factory.mktemp("pretrained")
    (place / "data").mkdir()
    save_llama(byte_level_tokenizer(), place / "llama")
    rows = zip(KEYS, IDS, strict=True)
    write_jsonl(place / "data" / "items.jsonl", ({"item_id": key, "text": f"title: {text}"} for key, text in rows))
    write_jsonl(place / "ids.jsonl", ({"item_id": key, "id": text} for key, text in zip(KEYS, IDS, strict=True)))
    write_jsonl(place / "data" / "train.jsonl", [{"user_id": "a", "items": KEYS[:4]}, {"user_id": "b", "items": KEYS}])
    queries = [{"user_id": f"u{n}", "history": row, "target": "I1"} for n, row in enumerate(HISTORIES[:2])]
    write_jsonl(place / "data" / "test.jsonl", queries)
    asked = ({"user_id": f"u{n}", "history": row} for n, row in enumerate(HISTORIES))
    write_jsonl(place / "histories.jsonl", asked)
    return place


def lists(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recommend(place: Path, output: Path, *more: str, rec: str = "llama") -> int:
    given = ["recommend", str(place / "histories.jsonl"), "--rec", str(place / rec), "--ids", str(place / "ids.jsonl")]
    return run([*given, "-k", "3", "--beams", "7", "--device", "cpu", "-o", str(output), *more])


def plain_scores(folder: Path, ids: Sequence[str], history: Sequence[str]) -> dict[str, float]:
    """By ID: the sum of the log-softmax of its tokens and of the newline, behind a line for each ID of the history."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    before = tokenizer("".join(f"{line}\n" for line in history) or "\n")["input_ids"]
    found = {}
    for text in ids:
        answer = tokenizer(f"{text}\n")["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([[*before, *answer]])).logits[0, len(before) - 1 : -1]
        found[text] = float(logits.log_softmax(-1)[range(len(answer)), answer].sum())
    return found


def check_lists(
    place: Path, rows: list[dict[str, Any]], histories: Sequence[Sequence[str]], k: int, weight: float = 0.0, p: int = 0
) -> None:
    """See that lists are the best k by plain scores, less `weight` times those without a history, by length ** p."""
    text_of = dict(zip(KEYS, IDS, strict=True))
    for row, history in zip(rows, histories, strict=True):
        left = [key for key in KEYS if key not in history]
        wanted = plain_scores(place / "llama", [text_of[key] for key in left], [text_of[key] for key in history])
        alone = plain_scores(place / "llama", list(wanted), []) if weight else dict.fromkeys(wanted, 0.0)
        lengths = dict(zip(IDS, map(len, id_tokens(byte_level_tokenizer(), IDS)), strict=True))
        for text in wanted:
            wanted[text] = (wanted[text] - weight * alone[text]) / (lengths[text] + 1) ** p
        best = sorted(left, key=lambda key: -wanted[text_of[key]])[:k]
        assert row["items"] == best
        assert row["scores"] == pytest.approx([wanted[text_of[key]] for key in best], abs=1e-4)


def test_scores_are_those_of_transformers(place: Path, tmp_path: Path) -> None:
    assert recommend(place, tmp_path / "recs.jsonl", "--force", "--prompts", str(tmp_path / "prompts.jsonl")) == 0
    check_lists(place, lists(tmp_path / "recs.jsonl"), HISTORIES, 3)
    assert lists(tmp_path / "prompts.jsonl")[0]["text"] == "chi pro hair dryer\nred nail polish\nblue nail polish"
    options = json.loads((tmp_path / "recs.jsonl.run.json").read_text())["options"]
    assert (options["separator"], options["normalize"]) == ("newline", "full")


@pytest.mark.parametrize(("weight", "penalty"), [("0.5", "0"), ("0.8", "1")])
def test_a_calibrated_score_is_a_difference(place: Path, tmp_path: Path, weight: str, penalty: str) -> None:
    more = ["--force", "--calibration-weight", weight, "--length-penalty", penalty, "--batch-size", "2"]
    assert recommend(place, tmp_path / "recs.jsonl", *more) == 0
    check_lists(place, lists(tmp_path / "recs.jsonl"), HISTORIES, 3, float(weight), int(penalty))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--normalize", "trie"], "--calibration-weight 1 with the softmax over valid children; add --normalize full"),
        (["--search", "exact"], "--calibration-weight 1 with --search exact; leave one of them out"),
    ],
)
def test_what_cannot_be_calibrated(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], hint: str
) -> None:
    assert recommend(place, tmp_path / "recs.jsonl", "--force", "--calibration-weight", "1", *options) == 2
    assert hint in capfd.readouterr().err


def test_a_t5_has_neither_separator_nor_calibration(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = train_tokenizer([*IDS, "and more"], 400)
    (place / "t5").mkdir()
    save_backbone(Backbone(tiny_t5(1, len(tokenizer)), tokenizer), place / "t5")
    for option in (["--separator", "eos"], ["--calibration-weight", "1"]):
        assert recommend(place, tmp_path / "recs.jsonl", "--force", *option, rec="t5") == 2
        said = capfd.readouterr().err
        assert option[0] in said
        assert "is a T5" in said


def test_behind_eos_if_asked_and_of_the_newest_items_alone(place: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("newline", "eos", "short")]
    prompts = [Path(f"{path}.prompts") for path in outputs]
    options = [["--separator", "newline"], ["--separator", "eos"], ["--max-history", "1"]]
    for output, shown, more in zip(outputs, prompts, options, strict=True):
        assert recommend(place, output, "--force", "--prompts", str(shown), *more) == 0
    assert lists(outputs[0]) != lists(outputs[1])
    backbone = load_causal_backbone(place / "llama")
    rows = id_tokens(backbone.tokenizer, IDS)
    eos = separator_token(backbone.tokenizer, "eos")
    assert lists(prompts[1])[0]["tokens"] == [token for item in (0, 2, 3) for token in (eos, *rows[item])]
    assert [row["text"] for row in lists(prompts[2])] == ["blue nail polish", "aloe", "", "red nail polish"]


def test_the_kept_tree_is_that_of_its_separator(place: Path, tmp_path: Path) -> None:
    for name, separator in (("one", "newline"), ("two", "eos"), ("three", "newline")):
        kept = ["--trie", str(tmp_path / "tree"), "--separator", separator]
        assert recommend(place, tmp_path / name, "--force", *kept) == 0
    assert lists(tmp_path / "one") == lists(tmp_path / "three") != lists(tmp_path / "two")


def test_ids_stand_at_the_beginning_of_a_line_as_alone(place: Path) -> None:
    tokenizer = load_causal_backbone(place / "llama").tokenizer
    newline, rows = newline_token(tokenizer), id_tokens(tokenizer, IDS)
    assert newline is not None
    (whole,) = encode(tokenizer, ["".join(f"{text}\n" for text in IDS)])
    assert whole == [token for row in rows for token in (*row, newline)]


def zeroshot(place: Path, output: Path, *more: str) -> int:
    given = ["zeroshot", str(place / "data"), "--rec", str(place / "llama"), "--scheme", "keyphrase", "--device", "cpu"]
    return run([*given, "-o", str(output), *more])


def test_zeroshot_needs_no_generator(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert zeroshot(place, output, "-k", "3", "--batch-size", "1", "--max-history", "20", "--beams", "7") == 0
    assert [row["id"] for row in lists(output / "ids.jsonl")] == list(IDS)
    check_lists(place, lists(output / "recs.jsonl"), HISTORIES[:2], 3)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["n_users"] == 2
    assert metrics["foreign"] is None
    assert "hr@3" in metrics
    record = json.loads((output / "run.json").read_text())
    assert set(record["inputs"]) == {"items", "train", "test", "rec"}
    assert record["options"]["scheme"] == "keyphrase"
    assert "recommend" in capfd.readouterr().err
    assert run(["audit", str(output), "--data", str(place / "data")]) == 0
    found = " ".join(capfd.readouterr().err.split())
    assert "0 FAIL" in found


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--scheme", "textual"], "--gen is missing; give the ID generator, or --scheme keyphrase"),
        (["--gen", "llama"], "--gen given with --scheme keyphrase, which needs none"),
        (["--models", "gen-only", "--base-rec", "x"], "--models gen-only with --scheme keyphrase, a rule"),
    ],
)
def test_what_zeroshot_refuses(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    options: list[str], hint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    assert zeroshot(place, tmp_path / "out", *options) in (1, 2)
    said = capfd.readouterr().err
    assert hint in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_a_newline(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_llama(train_tokenizer([*IDS, "and more"], 400), place / "sentencepiece")
    assert recommend(place, tmp_path / "recs", "--force", "--separator", "newline", rec="sentencepiece") == 1
    said = "sentencepiece: a newline is not one token of its tokenizer; take --separator eos\n"
    assert said in capfd.readouterr().err
    assert recommend(place, tmp_path / "recs", "--force", rec="sentencepiece") == 0
    assert json.loads((tmp_path / "recs.run.json").read_text())["options"]["separator"] == "eos"


def test_places_of_items_are_for_eos(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_llama(byte_level_tokenizer(), place / "slots", item_slots=30)
    assert recommend(place, tmp_path / "recs", "--force", "--separator", "newline", rec="slots") == 1
    assert "the model begins an item every 30 places, behind EOS; take --separator eos" in capfd.readouterr().err


def test_training_keeps_its_separator(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rec = tmp_path / "rec"
    train = ["train-rec", str(place / "data" / "train.jsonl"), "--ids", str(place / "ids.jsonl"), "--device", "cpu"]
    more = ["--model", str(place / "llama"), "--separator", "newline", "--epochs", "1", "-o", str(rec)]
    assert run([*train, *more]) == 0
    record = json.loads((rec / "run.json").read_text())
    assert (record["separator"], record["options"]["separator"], record["eos_token_id"]) == ("newline", "newline", 1)
    asked = ["recommend", str(place / "histories.jsonl"), "--rec", str(rec), "-k", "3", "--beams", "7"]
    assert run([*asked, "--prompts", str(tmp_path / "prompts"), "-o", str(tmp_path / "recs")]) == 0
    assert lists(tmp_path / "prompts")[3]["text"] == "soap bar\naloe cream\nchi hair brush\nred nail polish"
    assert run([*asked, "--separator", "eos", "-o", str(tmp_path / "other")]) == 2
    assert "--separator eos, but" in capfd.readouterr().err
    assert run([*train, "--arch", "t5", "--separator", "newline", "-o", str(tmp_path / "t5")]) == 2
    assert "--separator newline is for --arch causal; leave it out" in capfd.readouterr().err


def test_the_first_layers_of_a_model(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    train = ["train-rec", str(place / "data" / "train.jsonl"), "--ids", str(place / "ids.jsonl"), "--device", "cpu"]
    train += ["--epochs", "1", "--lr", "1e-12", "--weight-decay", "0"]
    rec = tmp_path / "rec"
    assert run([*train, "--model", str(place / "llama"), "--layers", "1", "-o", str(rec)]) == 0
    assert json.loads((rec / "config.json").read_text())["num_hidden_layers"] == 1
    whole, (short, report) = (
        AutoModelForCausalLM.from_pretrained(place / "llama"),
        AutoModelForCausalLM.from_pretrained(rec, output_loading_info=True),
    )
    assert not any(report.values())
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        states = whole.model(tokens, output_hidden_states=True).hidden_states[1]
        wanted = whole.lm_head(whole.model.norm(states))
        torch.testing.assert_close(short(tokens).logits, wanted, rtol=1e-4, atol=1e-4)
    assert recommend(place, tmp_path / "recs.jsonl", rec=str(rec)) == 0

    for more, hint in (
        (["--model", str(place / "llama"), "--layers", "3"], "--layers 3, but the model has 2; give at most 2"),
        (["--arch", "causal", "--layers", "1"], "--layers with --model nano-causal, whose weights are random"),
        (["--layers", "1"], "--layers is for --arch causal; leave it out"),
    ):
        assert run([*train, *more, "-o", str(tmp_path / "none")]) == 2
        assert hint in capfd.readouterr().err


@pytest.mark.skipif(not (SMOLLM2 / "config.json").is_file(), reason=f"{SMOLLM2} is not here")
def test_smollm2_reads_ids_line_by_line() -> None:
    from idgr.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(SMOLLM2))
    newline = newline_token(tokenizer)
    assert newline is not None
    rows = id_tokens(tokenizer, IDS)
    (whole,) = encode(tokenizer, ["".join(f"{text}\n" for text in IDS)])
    assert whole == [token for row in rows for token in (*row, newline)]
