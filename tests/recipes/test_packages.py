"""The conda recipe tells what pyproject.toml tells; the wheel holds the package, its mark of types, and no tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import idgr

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"torch": "pytorch", "isal": "python-isal"}  # where conda-forge has another


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def in_conda(requirement: str) -> str:
    found = Requirement(requirement)
    assert found.marker is None
    return f"{CONDA_NAMES.get(found.name, found.name)} {found.specifier}"


def test_the_conda_recipe_is_that_of_the_project() -> None:
    recipe, told = yaml.safe_load((ROOT / "recipes/conda/recipe.yaml").read_text()), project()
    assert recipe["context"]["version"] == idgr.__version__
    python = f"python {told['project']['requires-python']}"
    assert recipe["requirements"]["run"] == [python, *map(in_conda, told["project"]["dependencies"])]
    assert recipe["requirements"]["host"] == [python, "pip", *map(in_conda, told["build-system"]["requires"])]
    scripts = [f"{name} = {place}" for name, place in told["project"]["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["about"]["summary"] == told["project"]["description"]
    assert recipe["about"]["license"] == told["project"]["license"]
    assert (ROOT / "recipes/conda" / recipe["source"]["path"]).resolve() == ROOT


def test_the_package_says_that_it_has_types() -> None:
    assert (ROOT / "idgr" / "py.typed").is_file()
    assert project()["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["idgr"]}


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling, which builds the wheel, is not installed")
def test_the_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("idgr", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {path.relative_to(source).as_posix() for path in (source / "idgr").rglob("*") if path.is_file()}
    metadata = {name for name in names if name.startswith(f"idgr-{idgr.__version__}.dist-info/")}
    assert names - metadata == package
    assert "idgr/py.typed" in names
