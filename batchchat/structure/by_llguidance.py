"""Matchers by llguidance, which is exact about what it can keep. (Token masks from an Earley parser over a lexer of
regular expression derivatives: https://github.com/guidance-ai/llguidance)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from batchchat.chats import Structure
from batchchat.errors import BadRow
from batchchat.scoring.extras import need
from batchchat.structure.calls import head, read_calls
from batchchat.structure.matching import Bytes, Matcher, TokenBytes, one_line

_WHITE_SPACE: Mapping[str, Mapping[str, Any]] = {
    "none": {"whitespace_flexible": False},
    "capped": {"whitespace_pattern": r" |\n[ ]{0,40}"},
    "free": {"whitespace_flexible": True},
}
"""Between the parts of a JSON value: nothing; a space, or a line break with an indentation; or any amount, which a
model may go on with until the answer's limit."""
_BITS = 32
_COMPILED = 256
"""Forms that are kept compiled: rows may have one each."""
_LACKS = re.compile(r"Unimplemented keys: \[(.*)\]")


class LLMatchers:
    """`matching.Matchers` for a vocabulary of `vocab_size` ids, of which `texts` knows the first ones."""

    def __init__(self, texts: TokenBytes, vocab_size: int):
        self._llguidance = _library()
        tokens = _Tokens(texts, vocab_size)
        self._tokenizer = self._llguidance.LLTokenizer(tokens, n_vocab=len(tokens.tokens))
        self._num_words = -(-len(tokens.tokens) // _BITS)
        self._vocab_size = vocab_size
        self._executor = self._llguidance.LLExecutor()
        self._compiled = lru_cache(_COMPILED)(self._compile)

    def matcher(self, structure: Structure) -> LLMatcher:
        return LLMatcher(self._compiled(structure).deep_copy())

    def allowed(self, matchers: Sequence[Matcher]) -> Any:
        import numpy

        pairs = [(matcher.state, place) for place, matcher in enumerate(matchers) if isinstance(matcher, LLMatcher)]
        assert len(pairs) == len(matchers), "matchers of another library"
        masks = numpy.zeros((len(pairs), self._num_words), numpy.int32)
        self._executor.unsafe_compute_mask_ptr(pairs, masks.ctypes.data, masks.strides[0], len(masks))
        return masks[:, : -(-self._vocab_size // _BITS)]

    def _compile(self, structure: Structure) -> Any:
        limits = self._llguidance.LLParserLimits(verbose_errors=False)
        found = self._llguidance.LLMatcher(self._tokenizer, grammar(structure), log_level=0, limits=limits)
        if found.is_error():
            raise BadRow(f"its form cannot be kept: {words(found.get_error())}")
        return found


class LLMatcher:
    """`matching.Matcher`."""

    def __init__(self, state: Any):
        self.state = state

    def take(self, ids: Sequence[int]) -> bool:
        return bool(self.state.consume_tokens(list(ids)))

    def fork(self) -> LLMatcher:
        return LLMatcher(self.state.deep_copy())

    @property
    def may_end(self) -> bool:
        return bool(self.state.is_accepting())

    @property
    def failure(self) -> str | None:
        return words(self.state.get_error()) if self.state.is_error() else None


def matchers(texts: TokenBytes, vocab_size: int) -> LLMatchers:
    return LLMatchers(texts, vocab_size)


def not_kept(structure: Structure) -> str | None:
    """In the library's own words. A warning of its counts, as something would not be kept."""
    library = _library().LLMatcher
    limits = _library().LLParserLimits(verbose_errors=False)
    _, found = library.validate_grammar_with_warnings(grammar(structure), limits=limits)
    if not found:
        return None
    mistake = words(found[0])
    if lacks := _LACKS.fullmatch(mistake):
        keywords = lacks[1].replace('"', "")
        return f"its json_schema has the keyword {keywords}, which cannot be enforced"
    return f"its {structure.kind} cannot be enforced: {mistake}"


def grammar(structure: Structure) -> str:
    """A form as the library reads it."""
    library = _library().LLMatcher
    match structure.kind:
        case "regex":
            return str(library.grammar_from_regex(_whole(structure.text)))
        case "choice":
            answers = " | ".join(json.dumps(answer, ensure_ascii=False) for answer in json.loads(structure.text))
            return str(library.grammar_from_lark(f"start: {answers}"))
        case "grammar":
            return str(library.grammar_from_lark(structure.text))
        case "json":
            return _of_schema({"type": "object"}, structure.white_space)
        case "json_schema":
            return _of_schema(json.loads(structure.text), structure.white_space)
        case "calls":
            return str(library.grammar_from_lark(_of_calls(structure)))


def words(error: str) -> str:
    """The library's error in one line."""
    text = error.partition("<non-verbose/>")[0].partition("<backtrace>")[0].partition(" Enable '")[0]
    return one_line(text)


def _of_schema(schema: Any, white_space: str) -> str:
    return str(_library().LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_options(white_space)))


def _options(white_space: str) -> Mapping[str, Any]:
    """What a schema says of these options itself (`x-guidance`) does not count: it could drop keywords unseen."""
    return {"lenient": False, "coerce_one_of": False, **_WHITE_SPACE[white_space]}


def _of_calls(structure: Structure) -> str:
    """In Lark's notation, what stands behind the text that opens a call: the call itself, others where they follow in
    the same breath, and what closes them."""
    syntax, schemas = read_calls(structure)
    names = range(len(schemas))
    more = "" if syntax.again is None else f"({_text(syntax.again)} call)*"
    lines = [f"start: {_text(syntax.before)} call {more} {_text(syntax.behind)}"]
    lines.append("call: " + " | ".join(f"call_{number}" for number in names))
    for number, (name, schema) in zip(names, schemas.items(), strict=True):
        held = {**schema, "x-guidance": _options(structure.white_space)}
        lines.append(f"call_{number}: {_text(head(syntax, name))} %json {json.dumps(held)}")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A text as Lark writes it; nothing for none."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _whole(pattern: str) -> str:
    """A pattern without the anchors that say what is so anyway: it has to match the whole answer."""
    body = pattern.removeprefix("^")
    ends = body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2 == 1
    return body[:-1] if ends else body


class _Tokens:
    """A vocabulary as the library asks for it. Beyond all ids lie its one end token, as which tokens end an answer is
    each request's own, and the bytes that no token has, so that every text can be spelled."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, texts: TokenBytes, vocab_size: int):
        known = texts.pieces[:vocab_size]
        bytes_ = {piece: token for token, piece in enumerate(known) if len(piece) == 1}
        missing = [piece for piece in Bytes.pieces if piece not in bytes_]
        self.tokens = [*known, *[b""] * (vocab_size - len(known)), b"", *missing]
        self.eos_token_id = vocab_size
        self.special_token_ids = [vocab_size]
        self._cut = texts.tokens
        self._bytes = bytes_ | {piece: vocab_size + 1 + number for number, piece in enumerate(missing)}

    def __call__(self, text: str | bytes) -> list[int]:
        spelled = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        try:
            return list(self._cut(spelled))
        except ValueError:  # no token has one of its bytes
            return [self._bytes[bytes([byte])] for byte in spelled]


def _library() -> Any:
    return need("llguidance", "generation.structured", "structured")
