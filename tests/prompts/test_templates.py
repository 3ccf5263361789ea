"""The packaged templates, files of templates, and the draw of one for each instance and epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.errors import IdgrError
from idgr.prompts.templates import draw_templates, load_templates, split_template, template_words


def test_ten_different_templates_come_with_the_package() -> None:
    templates = load_templates()
    assert len(set(templates)) == 10
    assert all(template.count("{history}") == 1 for template in templates)


def test_a_file_of_templates(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# a comment {user}\n\n  bought {history} \nsaw {{braces}} {history}, then\n", encoding="utf-8")
    templates = load_templates(path)
    assert templates == ["bought {history}", "saw {{braces}} {history}, then"]
    assert split_template(templates[1]) == ("saw {braces} ", ", then")
    assert [words.split()[0] for words in template_words(templates)] == ["bought", "bought", "saw", "saw"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"no slot", "{history} stands 0 times"),
        (b"{history} and {history}", "{history} stands 2 times"),
        (b"{history} of {item}", "unknown slot {item}"),
        (b"{history} of {}", "unknown slot {}"),
        (b"{history!r}", "unknown slot {history}"),
        (b"{history:>9}", "unknown slot {history}"),
        (b"for {user}: {history}", "unknown slot {user}"),
        (b"{history", "not a template"),
        (b"{history} }", "not a template"),
        (b"caf\xe9 {history}", "not valid UTF-8"),
    ],
)
def test_a_wrong_template_is_named_with_its_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(b"# mine\nseen {history}\n" + line + b"\n")
    with pytest.raises(IdgrError) as caught:
        load_templates(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


def test_a_file_of_comments_holds_no_template(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(IdgrError, match="holds no template"):
        load_templates(path)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.integers(1, 12),
    st.integers(0, 2**31),
    st.integers(0, 50),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
)
def test_a_draw_depends_on_seed_epoch_and_instance_alone(
    n_templates: int, seed: int, epoch: int, instances: list[int]
) -> None:
    together = draw_templates(n_templates, seed, epoch, np.array(instances))
    alone = [int(draw_templates(n_templates, seed, epoch, np.array([number]))[0]) for number in instances]
    assert together.tolist() == alone
    assert together.min() >= 0
    assert together.max() < n_templates


def test_draws_are_even_and_change_with_seed_and_epoch() -> None:
    instances = np.arange(20_000)
    first = draw_templates(10, 0, 0, instances)
    assert np.abs(np.bincount(first, minlength=10) / len(instances) - 0.1).max() < 0.01
    for seed, epoch in ((1, 0), (0, 1), (1, 1)):
        assert abs((draw_templates(10, seed, epoch, instances) == first).mean() - 0.1) < 0.02
