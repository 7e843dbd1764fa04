"""Message text is data: what looks like a special token in it stays text.

A tokenizer finds its special tokens in any string, so a user who types `<|im_end|>` would end his own turn. Rows that
hold such text are rendered with each occurrence between two private-use characters that occur nowhere in the row. The
template's own tokens stand outside them. After rendering, the text is cut at these characters and inside each
occurrence, so that no piece holds a special token that came from the row, and the pieces are encoded one by one.

An occurrence stays whole while the template runs, so a template that looks for it (`'</think>' in content`) still
finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchchat.errors import BadRow

_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_PRIVATE = 0xF0000
_LAST_PRIVATE = 0xFFFFD
_ANCHORS = ("\n", "\x01", "|", "0")
_PROBES = ("a", "<", "é")


def require_characters(text: str) -> None:
    """Raises BadRow for a lone surrogate, which no tokenizer takes."""
    surrogate = _SURROGATE.search(text)
    if surrogate is not None:
        raise BadRow(
            f"a text holds the lone surrogate U+{ord(surrogate.group()):04X}, which is no character; write the row "
            "again with valid Unicode"
        )


def within_vocabulary(ids: Sequence[int], size: int) -> tuple[int, ...]:
    """The ids. Raises BadRow for one that is not below `size`."""
    for number in ids:
        if number >= size:
            raise BadRow(f"the prompt has the token id {number}, and the model's tokenizer has {size}; write another")
    return tuple(ids)


class LiteralText:
    """Marks and encodes text of one tokenizer (a transformers tokenizer, fast or slow)."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        specials = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        specials.update(tokenizer.all_special_tokens)
        specials.discard("")
        longest_first = sorted(specials, key=lambda token: (-len(token), token))
        self._specials = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._anchor = self._find_anchor()

    def occurs_in(self, value: Any) -> bool:
        """Whether any string in the nested `value`, keys included, holds a special token."""
        return any(self._specials.search(text) for text in _strings(value))

    def strip(self, text: str) -> str:
        """`text` without special tokens."""
        return self._specials.sub("", text)

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """`text` in pieces; True goes with those that are special tokens."""
        end = 0
        for match in self._specials.finditer(text):
            if match.start() > end:
                yield text[end : match.start()], False
            yield match.group(), True
            end = match.end()
        if end < len(text):
            yield text[end:], False

    def marks_for(self, value: Any) -> tuple[str, str]:
        """Two private-use characters that no string in `value` holds."""
        used = {char for text in _strings(value) for char in text if ord(char) >= _FIRST_PRIVATE}
        free = (chr(code) for code in range(_FIRST_PRIVATE, _LAST_PRIVATE + 1) if chr(code) not in used)
        return next(free), next(free)

    def mark(self, value: Any, marks: tuple[str, str]) -> Any:
        """The nested `value` with `marks` around each special token in its strings, keys included."""
        if isinstance(value, str):
            return self._specials.sub(lambda match: marks[0] + match.group() + marks[1], value)
        if isinstance(value, Mapping):
            return {self.mark(key, marks): self.mark(item, marks) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark(item, marks) for item in value]
        return value

    def encode_marked(self, rendered: str, marks: tuple[str, str]) -> list[int]:
        """Token ids of a text that was rendered from marked values.

        A template may have separated the marks (by `split` or `trim`) or escaped them (JSON in ASCII): a lone mark
        is dropped and still breaks the text there.
        """
        opened, closed = (f"(?:{re.escape(mark)}|{re.escape(json.dumps(mark)[1:-1])})" for mark in marks)
        pieces = re.split(f"{opened}({self._specials.pattern}){closed}|{opened}|{closed}", rendered)
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            if not piece:  # None stands for a lone mark
                continue
            parts = self._broken(piece) if number % 2 else [piece]
            for part in parts:
                ids += self._encode_inside(part) if ids else self.encode(part)
        return ids

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, its special tokens parsed, none added."""
        require_characters(text)
        encoded = self._tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids: list[int] = encoded["input_ids"]
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of `text` as text, inside a longer one: no special token, no space before it."""
        return [number for part in self._broken(text) for number in self._encode_inside(part)]

    def _broken(self, text: str) -> list[str]:
        """`text` in pieces that hold no special token: each occurrence is cut after its first character."""
        match = self._specials.search(text)
        if match is None:
            return [text] if text else []
        if len(match.group()) == 1:
            raise BadRow(
                f"the character {match.group()!r} is a special token of the tokenizer and cannot be written as text; "
                "take it out of the row"
            )
        cut = match.start() + 1
        return [*self._broken(text[:cut]), *self._broken(text[cut:])]

    def _encode_inside(self, piece: str) -> list[int]:
        """Ids of a piece that does not begin the text. Tokenizers with a word-boundary mark put a space before
        whatever begins a string; they see an anchor there, which is taken off again."""
        if self._anchor is None:
            return self.encode(piece)
        for anchor in _ANCHORS:
            head = self.encode(anchor)
            whole = self.encode(anchor + piece)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return self.encode(piece)

    def _find_anchor(self) -> str | None:
        """None where a text's beginning is encoded as its middle is."""
        anchor = _ANCHORS[0]
        head = self.encode(anchor)
        plain = all(self.encode(anchor + probe) == head + self.encode(probe) for probe in _PROBES)
        return None if plain else anchor


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
