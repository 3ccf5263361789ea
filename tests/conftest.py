"""Fixtures shared by all tests: everything runs offline, on the CPU, on models made in-process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.warm import warm_commands

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A forked process may not use its parent's threads, and their number decides how sums are rounded."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def warm_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PATH whose `idgr` answers without importing torch each time."""
    with warm_commands(tmp_path_factory.mktemp("warm")) as commands:
        yield f"{commands}:{os.environ['PATH']}"
