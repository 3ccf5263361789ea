"""A split as RecBole's atomic files, already cut: RecBole splits and augments nothing of its own.

`NAME.train.inter` holds an instance for every prefix of a training sequence, `NAME.valid.inter` and `NAME.test.inter`
one for every target, `NAME.item` the whole catalogue, where NAME is the folder's name, as RecBole wants it.
`recbole.yaml` holds the options that make RecBole read them so. RecBole needs the held-out items in its files; they
stand in the files of their own sets only.

Checked with RecBole 1.2.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from idgr.formats.exchange.keys import to_token
from idgr.formats.exchange.prepared import PreparedData
from idgr.formats.jsonl import replace_file
from idgr.formats.records import Item

# An attribute that fewer items have tells nothing of others; titles are among those.
SHARED_BY = 5

_HEAD = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
_YAML = """\
# How RecBole reads these files: the split is theirs, all items are ranked. `data_path` is the folder above this one.
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
benchmark_filename: [train, valid, test]
alias_of_item_id: [item_id_list]
load_col:
  inter: [user_id, item_id_list, item_id]
  item: [{columns}]
MAX_ITEM_LIST_LENGTH: {longest}
eval_args: {{group_by: user, order: TO, split: {{LS: valid_and_test}}, mode: full}}
train_neg_sample_args: null
"""


def write_recbole(folder: Path, name: str, data: PreparedData, max_history: int) -> None:
    """Write the files into a folder.

    Args:
        name: what the folder will be called.
        max_history: so many of the newest items of a history are written.
    """
    sets: dict[str, Iterable[tuple[str, list[str], str]]] = {
        "train": (
            (sequence.user_id, sequence.items[:end], sequence.items[end])
            for sequence in data.train
            for end in range(1, len(sequence.items))
        ),
        "valid": ((target.user_id, target.history, target.item_id) for target in data.valid),
        "test": ((target.user_id, target.history, target.item_id) for target in data.test),
    }
    longest = 1
    for part, rows in sets.items():
        with replace_file(folder / f"{name}.{part}.inter") as stream:
            stream.write(_HEAD.encode())
            for user, history, target in rows:
                shown = history[-max_history:]
                longest = max(longest, len(shown))
                stream.write(f"{to_token(user)}\t{' '.join(map(to_token, shown))}\t{to_token(target)}\n".encode())
    attributes = shared_attributes(data.items)
    with_class = any(attributes)
    with replace_file(folder / f"{name}.item") as stream:
        stream.write(b"item_id:token\tclass:token_seq\n" if with_class else b"item_id:token\n")
        for item, words in zip(data.items, attributes, strict=True):
            row = [to_token(item.item_id), " ".join(map(to_token, words))]
            stream.write("\t".join(row if with_class else row[:1]).encode() + b"\n")
    with replace_file(folder / "recbole.yaml") as stream:
        stream.write(_YAML.format(columns="item_id, class" if with_class else "item_id", longest=longest).encode())


def shared_attributes(items: list[Item], shared_by: int = SHARED_BY) -> list[list[str]]:
    """What items have in common, for FDSA and S3-Rec: pieces `key=value` of their fields.

    Args:
        items: with texts such as `title: …; categories: a, b`, or with fields.
        shared_by: pieces that fewer items have are left out.

    Returns:
        For each item its pieces, in the order of the fields.
    """
    pieces = [list(dict.fromkeys(_pieces(item))) for item in items]
    counts = Counter(piece for row in pieces for piece in row)
    return [[piece for piece in row if counts[piece] >= shared_by] for row in pieces]


def _pieces(item: Item) -> Iterator[str]:
    for name, values in item.values().items():
        for value in values:
            yield f"{name}={value}"
