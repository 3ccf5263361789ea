"""Tokenizers: a vocabulary of the catalogue's own, any Hugging Face tokenizer, and the one way text becomes tokens."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idgr.errors import IdgrError
from idgr.models.gguf import load_gguf_tokenizer
from idgr.models.gguf_header import find_gguf
from idgr.models.hub import find_folder, load_pretrained, told_as_unusable
from idgr.models.weight_files import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
_BYTES = 256
_LETTERS_A_TOKEN = 64  # four times the longest piece of a SentencePiece vocabulary
_MAX_TRAINING_TEXTS = 500_000
_TRAINING_LETTERS = 1 << 14  # of each text; generators read far less, and SentencePiece is slow on one long word
# What transformers notes of where and how a tokenizer was loaded.
_OF_THE_MACHINE = frozenset(
    (
        *("is_local", "local_files_only", "name_or_path", "cache_dir", "token", "use_auth_token", "trust_remote_code"),
        *("revision", "subfolder", "proxies", "force_download", "resume_download", "user_agent", "_commit_hash"),
        *("_from_auto", "auto_map", "gguf_file"),
    )
)
_LETTERS = re.compile(r"[^\W\d_]+")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A SentencePiece unigram vocabulary with byte fallback, trained on the catalogue's text.

    Text is normalised to NFKC with runs of white space made one space; nothing is ever unknown, since
    characters outside the vocabulary become their UTF-8 bytes. `<pad>`, `</s>`, `<unk>` are 0, 1, 2, as in T5.

    Args:
        texts: the catalogue's texts, in a fixed order; equal texts give an equal vocabulary.
        vocab_size: an upper bound; a small catalogue gives fewer pieces.

    Raises:
        IdgrError: there is no text to learn from.
    """
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    cut = (text[:_TRAINING_LETTERS] for text in texts)
    lines = [line for text in cut if (line := " ".join(unicodedata.normalize("NFKC", text).split()))]
    if not lines:
        raise IdgrError("no text to learn a vocabulary from", "give items with text")
    # SentencePiece takes as candidates only what stands in two different words, however often a word occurs. So each
    # word that occurs again is also written with a digit behind it, which no piece holds together with letters.
    counts = Counter(word for line in lines for word in _LETTERS.findall(line))
    lines += [f"{word}0" for word, count in counts.items() if count > 1]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=PAD,
        eos_piece=EOS,
        unk_piece=UNK,
        input_sentence_size=_MAX_TRAINING_TEXTS,
        max_sentence_length=1 << 20,
        num_threads=4,  # a fixed number: the sums of the threads' counts decide the last digits of the scores
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]

    inner = Tokenizer(Unigram(vocabulary, unk_id=2, byte_fallback=True))
    inner.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD, eos_token=EOS, unk_token=UNK)


def load_tokenizer(source: str, *, need_eos: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, of a folder with T5's `spiece.model`, of a GGUF file, or of a model on the hub.

    Args:
        need_eos: whether texts are to end in it; BERTs, which write nothing, have none.

    Raises:
        IdgrError: there is none, it has not the EOS that is needed, or the hub cannot be reached.
    """
    path = find_gguf(source)
    tokenizer = load_gguf_tokenizer(path, source) if path is not None else _from_folder(source)
    for key in [key for key in tokenizer.init_kwargs if key in _OF_THE_MACHINE or key.endswith("_file")]:
        del tokenizer.init_kwargs[key]  # else they would be saved, and tell of this machine
    if need_eos and tokenizer.eos_token_id is None:
        raise IdgrError("the tokenizer has no eos_token", "name one in tokenizer_config.json", where=source)
    return tokenizer


def _from_folder(source: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, T5Tokenizer

    folder = find_folder(source, "tokenizer")
    _check_tokenizer_files(folder, source)
    # T5's SentencePiece model alone, as it is often passed on, does not tell what it belongs to.
    bare = (folder / "spiece.model").is_file() and not (folder / "config.json").is_file()
    kind = T5Tokenizer if bare else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = load_pretrained(kind.from_pretrained, "tokenizer", source)
    return tokenizer


def _check_tokenizer_files(folder: Path, name: str) -> None:
    """Raise `IdgrError` where a tokenizer's settings name a file outside its folder, or no settings can be read."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return
    told = read_object(path, name)
    named = [(key, value) for key, value in told.items() if key.endswith("_file")]
    several = told.get("fast_tokenizer_files")
    named += [("fast_tokenizer_files", value) for value in (several if isinstance(several, list) else [])]
    settings = told.get("sp_model_kwargs")
    named += list(settings.items()) if isinstance(settings, dict) else []
    for key, value in named:
        # What old libraries noted of other machines' files is of no effect; a file that is there might be read.
        if not isinstance(value, str) or Path(value).name == value:
            continue
        if any(place.exists() for place in (folder / value, Path(value))):
            todo = f"put the file into the folder and take {key} out"
            raise IdgrError(f"its {path.name} names {value!r}, which is no file of the folder", todo, where=name)


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int | None = None
) -> list[list[int]]:
    """Token ids of each text, without end-of-sequence; what spells a special token, such as `</s>`, is left out.

    Args:
        max_tokens: keep at most the first so many tokens. No more of a text is looked at than honest text of so many
            tokens could be long, so that ten megabytes of it cost no more than ten kilobytes.
    """
    if not texts:
        return []
    if max_tokens is not None:
        texts = [text[: max_tokens * _LETTERS_A_TOKEN] for text in texts]
    with told_as_unusable("tokenizer", tokenizer.name_or_path):
        rows: list[list[int]] = tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
    # Hugging Face's unigram model finds `</s>` and its like in plain text, which SentencePiece never does.
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    rows = [row if special.isdisjoint(row) else [token for token in row if token not in special] for row in rows]
    return rows if max_tokens is None else [row[:max_tokens] for row in rows]


def decode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row of token ids, without special tokens."""
    with told_as_unusable("tokenizer", tokenizer.name_or_path):
        texts: list[str] = tokenizer.batch_decode(
            [list(row) for row in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    return texts


def id_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[str]) -> list[list[int]]:
    """The tokens of each textual ID under the recommender's tokenizer, without EOS.

    Raises:
        IdgrError: an ID has no tokens or unknown ones, is not read back from its tokens, or shares them with another.
    """
    rows = encode(tokenizer, ids)
    seen: dict[tuple[int, ...], str] = {}
    for text, row, back in zip(ids, rows, decode(tokenizer, rows), strict=True):
        if not row or tokenizer.unk_token_id in row or back.split() != text.split():
            raise IdgrError(
                f"the recommender's tokenizer reads the ID {text!r} back as {back!r}",
                "make the IDs with `gen-ids --rec-tokenizer`, or give --tokenizer the ID generator's folder",
            )
        if (twin := seen.setdefault(tuple(row), text)) != text:
            raise IdgrError(
                f"the IDs {twin!r} and {text!r} have the same tokens under the recommender's tokenizer",
                "make the IDs with `gen-ids --rec-tokenizer`",
            )
    return rows
