"""What each token adds to an answer's text, in bytes: by it a text is kept out of an answer, and an answer in its form,
however it is cut."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PROBES = (
    "The cat isn't here, is it? No: 3.14 = pi…\n\n\tdef f(x):  return x",
    "Äpfel naïve e\u0301 東京 हिन्दी עברית العربية 😀 👩\u200d🔬 Привет",
)


class TokenTexts:
    """The bytes of a vocabulary's tokens, by id. UTF-8 marks where each character begins, so that a text stands in an
    answer exactly where its bytes stand in the answer's.

    Special tokens have no bytes: the answer's content leaves them out, and what stands on both sides of one comes
    together. `names` are their own texts, by which they can be kept out whole.
    """

    def __init__(
        self,
        pieces: Sequence[bytes],
        names: Mapping[int, bytes] | None = None,
        encode: Callable[[str], Sequence[int]] | None = None,
        thinks: bool = False,
    ):
        """`encode`: ids of a text as the tokenizer cuts it. `thinks`: the model reasons between think marks."""
        self.pieces = pieces
        self.thinks = thinks
        self._names = names or {}
        self._encode = encode
        self._ordered = sorted((piece, number) for number, piece in enumerate(pieces) if piece)
        self.holding: Callable[[bytes], Sequence[int]] = cache(self._holding)
        """Ids of the tokens in which a text stands whole."""
        self.starting: Callable[[bytes], Sequence[int]] = cache(self._starting)
        """Ids of the tokens that begin with a text."""

    def completing(self, text: bytes, tail: bytes) -> list[int]:
        """Ids of the tokens with which a text that `tail`, the answer's last bytes, begins would be complete."""
        begun = [size for size in range(1, len(text)) if tail.endswith(text[:size])]
        return [number for size in begun for number in self.starting(text[size:])]

    def joined(self, ids: Iterable[int]) -> bytes:
        """The bytes of some tokens in a row; ids beyond the vocabulary have none."""
        return b"".join(self.pieces[number] for number in ids if number < len(self.pieces))

    def named(self, token: int) -> bytes:
        """A token's bytes; of a special one those of its name. An id beyond the vocabulary has none."""
        if token in self._names:
            return self._names[token]
        return self.pieces[token] if token < len(self.pieces) else b""

    def tokens(self, text: bytes) -> Sequence[int]:
        """Ids whose bytes, in a row, are a text: cut as the tokenizer does where that gives the same bytes, else the
        longest pieces first. Raises ValueError for a text with bytes that no token has."""
        try:
            found = () if self._encode is None else self._encode(text.decode("utf-8"))
        except UnicodeDecodeError:  # the text ends within a character
            found = ()
        return found if found and self.joined(found) == text else tuple(self._cut(text))

    def _cut(self, text: bytes) -> Iterator[int]:
        by_piece, longest = self._by_piece
        place = 0
        while place < len(text):
            sizes = range(min(longest, len(text) - place), 0, -1)
            size = next((size for size in sizes if text[place : place + size] in by_piece), None)
            if size is None:
                raise ValueError(f"no token is written with the byte {text[place]:#04x}")
            yield by_piece[text[place : place + size]]
            place += size

    @cached_property
    def _by_piece(self) -> tuple[Mapping[bytes, int], int]:
        """Ids of the pieces, the lowest of equal ones, and the longest piece's size."""
        by_piece = {piece: number for number, piece in reversed(list(enumerate(self.pieces))) if piece}
        return by_piece, max(map(len, by_piece), default=0)

    def _holding(self, text: bytes) -> Sequence[int]:
        whole = [number for number, piece in enumerate(self.pieces) if text in piece]
        return [*whole, *(number for number, name in self._names.items() if text in name)]

    def _starting(self, text: bytes) -> Sequence[int]:
        first = bisect_left(self._ordered, (text,))
        found = []
        for piece, number in self._ordered[first:]:
            if not piece.startswith(text):
                break
            found.append(number)
        return found


def token_texts(
    tokenizer: Any,
    decode: Callable[[Sequence[int]], str],
    silent: Collection[int],
    encode: Callable[[str], Sequence[int]],
    thinks: bool = False,
) -> TokenTexts | None:
    """The texts of a tokenizer's tokens as `decode` writes them behind another one; `silent` ones, special tokens, have
    none. None where the text of a row of tokens is not the texts of its tokens in a row."""
    anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    before = decode(anchor)
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    pieces = []
    for number, name in enumerate(names):
        text = "" if name is None or number in silent else decode([*anchor, number])
        if text and not text.startswith(before):
            return None
        added = text[len(before) :]
        pieces.append(_raw(name) if _INCOMPLETE in added else added.encode("utf-8", "surrogatepass"))
    names_of_silent = {number: decode([number]).encode("utf-8", "surrogatepass") for number in silent}
    found = TokenTexts(pieces, names_of_silent, encode, thinks)
    for probe in _PROBES:
        ids = [number for number in tokenizer(probe, add_special_tokens=False)["input_ids"] if number not in silent]
        if (before.encode() + found.joined(ids)).decode("utf-8", "replace") != decode([*anchor, *ids]):
            return None
    return found


def spellings(texts: Iterable[str]) -> tuple[str, ...]:
    """Each text as it is and with its combining marks joined to their letters and taken apart: the same to a reader."""
    forms = ((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))) for text in texts)
    return tuple(dict.fromkeys(spelling for three in forms for spelling in three))


def _raw(name: str) -> bytes:
    """The bytes of a token that is no whole text: named by its number, or written in the letters for bytes that GPT-2
    brought in."""
    if by_number := _BYTE.fullmatch(name):
        return bytes([int(by_number[1], 16)])
    letters = _byte_letters()
    return bytes(letters[letter] for letter in name) if all(letter in letters for letter in name) else name.encode()


@cache
def _byte_letters() -> dict[str, int]:
    """Printable bytes of Latin-1 stand for themselves, the others for the letters from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [number for number in range(256) if number not in printable]
    return {chr(number): number for number in printable} | {chr(256 + n): number for n, number in enumerate(others)}
