"""The packages of the extra `schemes`: whether they are there, and keeping them to one thread.

Their sums depend in the last digits on how threads share them out, and a cluster on the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from idgr.errors import IdgrError

_TREES = ("semantic-tree", "behavior-tree", "dual")
_OF_VECTORS = ("clusters", "semantic", *_TREES)
_NEEDED = {"collaborative": ("scikit-learn",)} | dict.fromkeys(_OF_VECTORS, ("scikit-learn", "faiss-cpu"))


def check_packages(scheme: str) -> None:
    """Raise `IdgrError` where a package that the scheme needs is not installed."""
    for package in _NEEDED.get(scheme, ()):
        check_package(package, f"--scheme {scheme}")


def check_package(package: str, option: str) -> None:
    """Raise `IdgrError` where a package that an option needs is not installed."""
    try:
        version(package)
    except PackageNotFoundError:
        todo = "pip install 'idgr[schemes]'"
        raise IdgrError(f"{option} needs {package}, which is not installed", todo) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the linear algebra and OpenMP libraries that are loaded so far to one thread. Import them before."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
