"""The flat tree has exactly the paths of the IDs, and comes back from a file as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.decoding.trie import Trie, build_trie, load_trie, save_trie
from idgr.errors import IdgrError

from ..hostile.damaged_files import damaged_files
from .oracle import EOS, DictionaryTrie, random_ids

sequences = st.lists(
    st.lists(st.integers(2, 6), min_size=1, max_size=6).map(tuple), min_size=1, max_size=40, unique=True
).map(lambda rows: [list(row) for row in rows])


@settings(derandomize=True, deadline=None, max_examples=150)
@given(sequences)
def test_every_node_has_the_children_and_items_that_the_ids_give_it(ids: list[list[int]]) -> None:
    trie, plain = build_trie(ids, EOS), DictionaryTrie(ids, range(len(ids)))
    ranks = {item: rank for rank, item in enumerate(trie.item.tolist())}
    assert sorted(ids) == [ids[item] for item in trie.item] or EOS > 2
    seen = {0}
    for item, path in enumerate(trie.paths().tolist()):
        tokens = [*ids[item], EOS]
        assert path[len(tokens) :] == [-1] * (trie.depth - len(tokens))
        for t, node in enumerate([0, *path[: len(tokens)]]):
            seen.add(node)
            children = plain.children(tokens[:t])
            assert trie.n_children(np.array([node])).item() == len(children)
            if children:
                first = trie.first(np.array([node])).item()
                assert trie.token[first : first + len(children)].tolist() == children
            if t:
                assert trie.token[node] == tokens[t - 1]
            if node < len(trie.item_lo):
                below = [i for i, row in enumerate(ids) if [*row, EOS][:t] == tokens[:t]]
                assert sorted(ranks[i] for i in below) == list(range(trie.item_lo[node], trie.item_hi[node]))
    assert seen == set(range(len(trie)))
    assert trie.depth == max(map(len, ids)) + 1


@settings(derandomize=True, deadline=None, max_examples=50)
@given(sequences)
def test_gives_the_sequences_back(ids: list[list[int]]) -> None:
    assert build_trie(ids, EOS).tokens() == ids


def test_a_file_holds_the_same_tree(tmp_path: Path) -> None:
    ids = random_ids(np.random.default_rng(0), 200)
    trie, path = build_trie(ids, EOS), tmp_path / "ids.trie"
    save_trie(trie, path, "these ids")
    again = load_trie(path, "these ids")
    assert again is not None
    assert isinstance(again.token, np.memmap)
    assert (again.eos, again.tokens()) == (EOS, ids)
    for name in ("first_child", "item_lo", "item_hi", "tail", "item"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trie, name))
    assert load_trie(path, "other ids") is None


@pytest.mark.parametrize("content", [b"", b"\x05\x00\x00\x00\x00\x00\x00\x00hello", b"{}" * 40])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ids.trie"
    path.write_bytes(content)
    with pytest.raises(IdgrError, match=r"ids\.trie: is not a prefix tree"):
        load_trie(path, "")


def tree_file(folder: Path) -> tuple[Path, list[list[int]]]:
    ids = random_ids(np.random.default_rng(1), 60)
    save_trie(build_trie(ids, EOS), folder / "ids.trie", "x")
    return folder / "ids.trie", ids


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_is_refused_or_gives_the_same_tree(seed: int, tmp_path: Path) -> None:
    path, ids = tree_file(tmp_path)
    outcomes, said = [], []
    for damaged in damaged_files(path, 40, seed):
        assert damaged.content != path.read_bytes(), damaged.what
        (tmp_path / "damaged").write_bytes(damaged.content)
        try:
            found = load_trie(tmp_path / "damaged", "x")
        except IdgrError as fault:
            said.append(str(fault))
            outcomes.append("refused")
        else:
            # Damage to the fingerprint or the metadata's name makes it a tree of something else, which is made again;
            # damage to a name that nobody reads is none.
            assert found is None or found.tokens() == ids, damaged.what
            outcomes.append("other" if found is None else "same")
    assert outcomes.count("refused") > 30
    assert all(line.endswith("; delete it, and it is made again") for line in said)


def test_every_bit_of_a_trees_content_counts(tmp_path: Path) -> None:
    path = tmp_path / "ids.trie"
    save_trie(build_trie([[5, 6], [5, 7]], EOS), path, "x")
    whole = path.read_bytes()
    first = 8 + int.from_bytes(whole[:8], "little")
    for bit in range(8 * first, 8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(IdgrError, match="its content is not what was written"):
            load_trie(path, "x")


def test_no_tree_and_one_in_an_earlier_form_are_made_again(tmp_path: Path) -> None:
    assert load_trie(tmp_path / "none", "x") is None
    path, _ = tree_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"tree"', b'"eos_"'))
    assert load_trie(path, "x") is None


def test_equal_trees_give_equal_bytes(tmp_path: Path) -> None:
    """Also in processes with other hash seeds: all metadata is one entry."""
    path, _ = tree_file(tmp_path)
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    assert list(header["__metadata__"]) == ["tree"]
    for _ in range(20):
        tree_file(tmp_path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("header", [b"[]", b"1", b'{"__metadata__": 3}', b'{"token": {"data_offsets": ["a", 4]}}'])
def test_headers_of_other_kinds_are_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(IdgrError, match="is not a prefix tree"):
        load_trie(tmp_path / "t", "x")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.trie"
    save_trie(build_trie([[5, 6], [5, 7]], EOS), path, "x")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IdgrError, match="is not a prefix tree"):
        load_trie(path, "x")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "no IDs"),
        ([[4], []], "item 1 has no tokens"),
        ([[4, EOS, 5]], "the token that ends IDs"),
        ([[4, 5], [6], [4, 5]], "items 0 and 2 have the same"),
    ],
)
def test_ids_without_a_path_of_their_own_are_refused(ids: list[list[int]], message: str) -> None:
    with pytest.raises(IdgrError, match=message):
        build_trie(ids, EOS)


def test_a_large_tree_is_small() -> None:
    """At the shape of real IDs two thirds of the nodes are in tails, which cost four bytes each."""
    generator = np.random.default_rng(0)
    popular = generator.zipf(1.4, size=(20_000, 9)) % 3000 + 2
    ids = np.unique(popular, axis=0).tolist()
    trie: Trie = build_trie(ids, EOS)
    assert trie.nbytes / len(ids) <= 100
