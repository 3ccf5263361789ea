"""How to search a tree and what to return."""

from __future__ import annotations

from dataclasses import dataclass

from idgr.errors import UsageError

# With this power of any length that an ID has, a score stays within what float32 can hold and tell apart.
MAX_LENGTH_PENALTY = 10.0


@dataclass(frozen=True)
class SearchOptions:
    """How to search and what to return.

    Attributes:
        k: how many items to return.
        beams: how many prefixes to follow, at least k.
        length_penalty: p in score = sum of log-probabilities / (number of tokens with EOS) ** p, from -10 to 10.
        normalize: "full" for the softmax over the whole vocabulary (Eq. 2), "trie" for one over the valid children.
        compile: whether passes through the model go through `torch.compile`, in few sizes; rounding may differ.

    Raises:
        UsageError: a number or name is out of range, or k is above beams.
    """

    k: int = 10
    beams: int = 20
    length_penalty: float = 0.0
    normalize: str = "full"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"-k {self.k} is below 1", "ask for at least one item")
        if self.beams < self.k:
            raise UsageError(f"--beams {self.beams} is below -k {self.k}", f"give --beams {self.k} or more")
        if not abs(self.length_penalty) <= MAX_LENGTH_PENALTY:  # nor a NaN
            least, most = -MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY
            raise UsageError(f"--length-penalty {self.length_penalty}", f"give a number from {least:g} to {most:g}")
        # torch takes no lengths, which are integers, to the power of a negative one.
        object.__setattr__(self, "length_penalty", float(self.length_penalty))
        if self.normalize not in ("full", "trie"):
            raise UsageError(f"--normalize {self.normalize!r} is unknown", "give full or trie")
