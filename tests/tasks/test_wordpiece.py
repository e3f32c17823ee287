"""BERT's tokens. The expected pieces are those of Hugging Face's `tokenizers` 0.23."""

from __future__ import annotations

import unicodedata

import pytest

from pockengine.errors import InputError
from pockengine.tasks import encode_texts
from pockengine.tasks.wordpiece import basic_tokens

_PIECES = "[PAD] [UNK] [CLS] [SEP] un ##aff ##able ##a affable cafe , ! 中 the".split()
_VOCABULARY = {piece: index for index, piece in enumerate(_PIECES)}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World!", ["hello", ",", "world", "!"]),
        ("naïve Ünïcödé ẞ İstanbul", ["naive", "unicode", "ß", "istanbul"]),
        ("a中文b 日本", ["a", "中", "文", "b", "日", "本"]),
        ("한국어", ["한국어"]),
        ("$5.00 a_b c^d `x` ~", "$ 5 . 00 a _ b c ^ d ` x ` ~".split()),
        ("“quotes” — dash… ™", ["“", "quotes", "”", "—", "dash", "…", "™"]),
        ("tab\tnew\nline\u00a0space\u2003wide", ["tab", "new", "line", "space", "wide"]),
        ("x\u200b\u0000\ufffdy\u00ad", ["xy"]),
        ("", []),
    ],
)
def test_basic_tokens(text: str, tokens: list[str]) -> None:
    """Case, accents, ideographs, punctuation, spaces and control characters go BERT's way."""
    assert [unicodedata.normalize("NFC", token) for token in basic_tokens(text)] == tokens


def test_longest_pieces() -> None:
    """The longest known piece wins; a word with an unknown rest is unknown as a whole."""
    ids, mask = encode_texts(["unaffable, affable zebra unaffablez"], _VOCABULARY, 10)
    pieces = [_PIECES[index] for index in ids[0]]
    assert pieces == "[CLS] un ##aff ##able , affable [UNK] [UNK] [SEP] [PAD]".split()
    assert mask[0].tolist() == [1] * 9 + [0]


def test_too_long_texts_lose_their_end() -> None:
    """A row is closed by [SEP] whatever is cut off."""
    ids, mask = encode_texts(["unaffable the", "the"], _VOCABULARY, 4)
    assert [[_PIECES[index] for index in row] for row in ids] == [
        ["[CLS]", "un", "##aff", "[SEP]"],
        ["[CLS]", "the", "[SEP]", "[PAD]"],
    ]
    assert mask.sum(1).tolist() == [4, 3]


def test_very_long_words_are_unknown() -> None:
    """A word of more than 100 characters is not taken apart."""
    ids, _ = encode_texts(["a" * 101], _VOCABULARY, 4)
    assert ids[0].tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize(
    ("vocabulary", "length", "message"),
    [(_VOCABULARY, 2, "length 2"), ({"[PAD]": 0}, 8, r"no \[UNK\] in the vocabulary")],
)
def test_bad_arguments(vocabulary: dict[str, int], length: int, message: str) -> None:
    """A length without room and a vocabulary of another kind are refused."""
    with pytest.raises(InputError, match=message):
        encode_texts(["the"], vocabulary, length)
