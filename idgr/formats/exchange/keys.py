"""Keys of users and items as words that other programs' files can hold, and back."""

from __future__ import annotations

from urllib.parse import unquote

# What pandas, through which RecBole reads, takes for a missing value, and RecBole's own padding.
_TAKEN = frozenset(
    (
        "#N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
        "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "[PAD]",
    )
)  # fmt: skip


def to_token(key: str) -> str:
    """A key without white space, quotes or control characters, which is no word that another program has taken.

    What must not stand there is written as in a URL (`a b` is `a%20b`), and so is the percent sign, so that no two keys
    give the same token. Most keys stay as they are.
    """
    if key in _TAKEN:
        return _escaped(key[0]) + key[1:]
    if key.isalnum():
        return key
    return "".join(_escaped(letter) if letter in '%"' or not _seen(letter) else letter for letter in key)


def to_key(token: str) -> str:
    """The key that `to_token` made the token from."""
    return unquote(token) if "%" in token else token


def _seen(letter: str) -> bool:
    return letter.isprintable() and not letter.isspace()


def _escaped(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())
