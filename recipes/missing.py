"""What of a pyproject.toml's dependencies this Python lacks or has in a version out of bounds, one a line.

Usage: python recipes/missing.py pyproject.toml
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement


def main(file: str) -> None:
    with open(file, "rb") as stream:
        wanted = [Requirement(line) for line in tomllib.load(stream)["project"]["dependencies"]]
    for one in wanted:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            print(one)
            continue
        if not one.specifier.contains(found, prereleases=True):  # 2.11.0+cu130 is 2.11.0 too
            print(f"{one} (there is {found})")


if __name__ == "__main__":
    main(*sys.argv[1:])
