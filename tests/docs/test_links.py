"""README.md is short, links lead to files, and command lines of the pages are such that idgr takes them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from idgr.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes").glob("*/*.md"))]

SEED = re.compile(r"^N(\+\d+)?$")  # a page says N for a seed


def command_lines(text: str) -> list[list[str]]:
    """Words behind `idgr`, up to a pipe, of every command line in a fenced block."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" | "):
                words = shlex.split(part, comments=True) if part.strip().startswith("idgr ") else []
                if words:
                    found.append([SEED.sub("0", word) for word in words[1:]])
    return found


def parse(words: list[str]) -> None:
    """Raise where idgr does not have such a command, argument or option."""
    command = typer.main.get_command(app)
    context = command.make_context("idgr", words[:1], resilient_parsing=True)
    while hasattr(command, "list_commands"):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, name
        context = command.make_context(name, list(words), resilient_parsing=hasattr(command, "list_commands"))


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_parse(page: Path) -> None:
    for words in command_lines(page.read_text()):
        parse(words)


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="--no-such"):
        parse(["eval", "recs.jsonl", "--no-such"])
