"""README.md is short, links lead to files, and command lines of the pages are such that idgr takes them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from idgr.cli.main import app

ROOT = Path(__file__).parents[2]
FOLDERS = {"": "*.md", "docs": "*.md", "recipes": "*/*.md"}
PAGES = [page for folder, pattern in FOLDERS.items() for page in sorted((ROOT / folder).glob(pattern))]

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


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links: lower case, hyphens for spaces, no other punctuation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text())
    missing = []
    for link, anchor in links:
        if "://" not in link:
            target = page.parent / link if link else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                missing.append(f"{link}#{anchor}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_parse(page: Path) -> None:
    for words in command_lines(page.read_text()):
        parse(words)


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="--no-such"):
        parse(["eval", "recs.jsonl", "--no-such"])
