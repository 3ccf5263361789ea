"""`idgr push` and `idgr pull` against a hub on this machine: the same bytes come back, and commands read them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from idgr.cli.main import run
from idgr.formats.run_info import RunInfo, hash_folder
from idgr.models.backbone import Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer
from idgr.models.two_tower import TwoTowerConfig, new_two_tower, save_two_tower

from ..models.test_damage import ITEMS, WORDS, Shop, make_shop
from .server import TOKEN, Hub, running_hub

ROOT = Path(__file__).parents[2]
FOLDERS = ("t5", "llama", "sasrec", "tower", "gen")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A folder of every kind; what their records tell of this machine is in absolute paths."""
    place = tmp_path_factory.mktemp("shop")
    made = make_shop(place)
    tower, gen = place / "tower", place / "gen"
    tower.mkdir()
    save_two_tower(new_two_tower(TwoTowerConfig(len(ITEMS), width=8, units=2, max_history=3), 0), ITEMS, tower)
    RunInfo("train-two-tower", {"width": 8}, {"train": str(place / "ids.jsonl")}, 0).write(tower)
    gen.mkdir()
    tokenizer = train_tokenizer([*WORDS, "what comes next"], 400)
    save_backbone(new_backbone(Preset(16, 32, 1, 2, 8, 400), tokenizer, seed=0), gen)
    RunInfo("init-gen", {"model": str(place / "t5")}, {"model": str(place / "t5")}, 0).write(gen)
    (gen / "log.jsonl").write_text("{}\n")
    return Shop(place, made.folders | {"tower": tower, "gen": gen})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as made:
        yield made


def idgr(hub: Hub, place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run idgr in a process of its own, whose hub is ours: the library looks at its environment once."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    told = {"HF_ENDPOINT": hub.address, "HF_HOME": str(place / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    env = inherited | told | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"} | environment
    command = [sys.executable, "-m", "idgr", *words]
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pushed(shop: Shop, kind: str, place: Path) -> Path:
    """The folder that would be pushed."""
    assert run(["push", str(shop.folders[kind]), "me/x", "--license", "mit", "--to", str(place / "to")]) == 0
    return place / "to"


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_was_pushed_is_pulled_and_read(kind: str, shop: Shop, hub: Hub, tmp_path: Path) -> None:
    whole = bytes_of(pushed(shop, kind, tmp_path))
    done = idgr(hub, tmp_path, "push", str(shop.folders[kind]), "me/x", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/x"].private
    assert hub.files("me/x") == whole | {".gitattributes": b""}
    done = idgr(hub, tmp_path, "pull", "me/x", "-o", "rec")
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "rec") == whole
    weights = (shop.folders[kind] / "model.safetensors").read_bytes()
    assert (tmp_path / "rec" / "model.safetensors").read_bytes() == weights
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    if kind in ("tower", "gen"):
        return
    for name, folder in (("ours", shop.folders[kind]), ("theirs", tmp_path / "rec")):
        assert run(shop.arguments(kind, folder, tmp_path / f"{name}.jsonl")) == 0
    assert (tmp_path / "theirs.jsonl").read_bytes() == (tmp_path / "ours.jsonl").read_bytes()


def test_a_branch_an_earlier_push_and_a_second_pull(shop: Shop, hub: Hub, tmp_path: Path) -> None:
    push = ["push", str(shop.folders["t5"]), "me/x", "--license", "mit"]
    assert idgr(hub, tmp_path, "push", str(shop.folders["sasrec"]), *push[2:], "--public").returncode == 0
    assert not hub.repositories["me/x"].private
    done = idgr(hub, tmp_path, *push)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "idgr: error: me/x is public on the hub; give --public, or the name of another model"
    )
    done = idgr(hub, tmp_path, *push, "--public", "--revision", "next")
    assert done.returncode == 0, done.stderr
    assert "deleted there, since an earlier push left it: items.json" in done.stderr
    assert "items.json" in hub.files("me/x")
    assert "items.json" not in hub.files("me/x", "next")
    for revision, command in (("next", "train-rec"), ("main", "train-sasrec")):
        done = idgr(hub, tmp_path, "pull", "me/x", "--revision", revision, "-o", "rec", HF_TOKEN="")
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "rec" / "run.json").read_text())["command"] == command


def test_what_was_trained_here_is_not_replaced(shop: Shop, hub: Hub, tmp_path: Path) -> None:
    for command in (["pull", "me/x", "-o"], ["push", str(shop.folders["t5"]), "me/x", "--license", "mit", "--to"]):
        done = idgr(hub, tmp_path, *command, str(shop.folders["sasrec"]))
        assert done.returncode == 1
        assert "holds what did not come from the hub, which would be lost; give the name of a new" in done.stderr
    assert hub.asked == []


FAULTS = {
    "no token": (
        {"HF_TOKEN": ""},
        None,
        "me/x: the hub does not tell who you are, or that you may see it (401); check",
    ),
    "no right": ({}, None, "you/x: the hub does not allow you that (403); take a name of your own"),
    "none": ({}, None, "me/none: the hub has no such model, or does not show it to you (404); check the name, and log"),
    "busy": ({}, 500, "me/x: the hub answered: no luck today (500); run it again later"),
    "offline": ({"HF_HUB_OFFLINE": "1"}, None, "me/x: HF_HUB_OFFLINE keeps the hub from being asked; unset it"),
    "gone": ({"HF_ENDPOINT": "http://127.0.0.1:9"}, None, "me/x: the hub cannot be reached ("),
    "name": ({}, None, "idgr: error: 'a b/c' is no name of a model on the hub ("),
    "revision": ({}, None, "me/x: has no revision 'v9' on the hub; give a branch, a tag or the hash of a commit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_hub_are_one_line(fault: str, shop: Shop, hub: Hub, tmp_path: Path) -> None:
    environment, hub.status, said = FAULTS[fault]
    hub.add("me/x", {"run.json": b"{}"})
    push = ["push", str(shop.folders["sasrec"]), "you/x" if fault == "no right" else "me/x", "--license", "mit"]
    pull = ["pull", {"none": "me/none", "name": "a b/c"}.get(fault, "me/x"), "-o", "rec"]
    pull += ["--revision", "v9"] if fault == "revision" else []
    asked = {"no right": [push], "none": [pull], "name": [pull], "revision": [pull]}.get(fault, [push, pull])
    for words in asked:
        done = idgr(hub, tmp_path, *words, **environment)
        last = done.stderr.splitlines()[-1]
        assert (done.returncode, said in last) == (2 if fault == "name" else 1, True), done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "rec").exists()


def spoilt(files: dict[str, bytes], how: str) -> tuple[dict[str, bytes], str]:
    """Files as somebody may have put them on the hub, and what is said of them."""
    record = json.loads(files["run.json"])
    if how == "pickle listed":
        record["outputs"]["pytorch_model.bin"] = "0" * 64
        said = "its run.json lists 'pytorch_model.bin', which is no file of idgr's models"
        return files | {"pytorch_model.bin": b"x", "run.json": json.dumps(record).encode()}, said
    if how == "pickle alone":
        return {"config.json": b"{}", "pytorch_model.bin": b"x"}, "holds its weights as pickle, which idgr does not"
    if how == "path":
        record["outputs"]["../../evil.json"] = "0" * 64
        return files | {"run.json": json.dumps(record).encode()}, "its run.json lists '../../evil.json', which is no"
    if how == "other bytes":
        return files | {"model.safetensors": b"x"}, "its model.safetensors is not the one that its run.json tells"
    if how == "damaged":
        record["outputs"]["model.safetensors"] = hashlib.sha256(b"x").hexdigest()
        return files | {"model.safetensors": b"x", "run.json": json.dumps(record).encode()}, "holds no usable model"
    if how == "missing":
        return {name: data for name, data in files.items() if name != "config.json"}, "lacks config.json, which its"
    return {"config.json": b"{}", "model.safetensors": b"x"}, "has no run.json on the hub, so idgr did not make it"


@pytest.mark.parametrize(
    "how", ["pickle listed", "pickle alone", "path", "other bytes", "damaged", "missing", "not ours"]
)
def test_what_is_no_folder_of_idgr_is_refused(how: str, shop: Shop, hub: Hub, tmp_path: Path) -> None:
    files, said = spoilt(bytes_of(pushed(shop, "t5", tmp_path)), how)
    hub.add("me/x", files)
    done = idgr(hub, tmp_path, "pull", "me/x", "-o", "rec")
    assert done.returncode == 1, done.stderr
    assert f"idgr: error: me/x: {said}" in done.stderr
    assert not [path for _, path in hub.asked if path.endswith((".bin", "evil.json"))]
    assert {path.name for path in tmp_path.iterdir()} - {"hf"} == {"to"}


def test_a_model_that_others_put_there_is_left_alone(shop: Shop, hub: Hub, tmp_path: Path) -> None:
    hub.add("me/x", {"config.json": b"{}", "model.safetensors": b"x"})
    done = idgr(hub, tmp_path, "push", str(shop.folders["t5"]), "me/x", "--license", "mit")
    assert done.returncode == 1
    assert "me/x: holds a model on the hub that was not pushed by idgr; give the name of a new model" in done.stderr
    assert len(hub.repositories["me/x"].commits) == 1


def test_push_needs_a_licence_and_a_folder_as_it_was_written(
    shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    rec = shutil.copytree(shop.folders["sasrec"], tmp_path / "rec")
    words = ["push", str(rec), "me/x", "--to", str(tmp_path / "to")]
    assert run(words) == 2
    assert "Missing option '--license'" in capfd.readouterr().err
    assert run([*words, "--license", "my own"]) == 2
    assert "--license 'my own' is no licence of the hub; give one of https://huggingface.co" in capfd.readouterr().err
    (rec / "optimizer.pt").write_bytes(b"x")
    (rec / "notes.txt").write_text("not listed")
    assert run([*words, "--license", "mit"]) == 0
    names = {"README.md", "config.json", "items.json", "model.safetensors", "run.json"}
    assert {path.name for path in (tmp_path / "to").iterdir()} == names
    told = json.loads((tmp_path / "to" / "run.json").read_text())["outputs"]
    assert told == hash_folder(tmp_path / "to")
    (rec / "model.safetensors").write_bytes(b"x")
    assert run([*words, "--license", "mit"]) == 1
    assert f"{rec}: its model.safetensors is not the one that its run.json tells" in capfd.readouterr().err
    assert run(["push", str(shop.folders["adapter"]), "me/x", "--license", "mit"]) == 1
    assert "is no folder of a model: it was made by `idgr train-adapter`" in capfd.readouterr().err
