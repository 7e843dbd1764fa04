"""Matchers by xgrammar. (A pushdown automaton whose masks are worked out ahead but for few tokens: arXiv 2411.15100,
https://github.com/mlc-ai/xgrammar)

It passes over what it does not know of a form with a line on standard error, or none. So it is given forms written anew
in what it keeps (`xgrammar_schemas`, `xgrammar_patterns`), and what cannot be written so is refused.
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
from batchchat.structure.grammars import beyond_lark, with_patterns
from batchchat.structure.matching import Matcher, TokenBytes, one_line
from batchchat.structure.utf8 import Utf8Tokens
from batchchat.structure.xgrammar_patterns import NotRead, whole
from batchchat.structure.xgrammar_schemas import NotKept, rewritten

_WHITE_SPACE: Mapping[str, Mapping[str, Any]] = {
    "none": {"any_whitespace": False, "separators": (",", ":")},
    "capped": {"any_whitespace": True, "max_whitespace_cnt": 41},
    "free": {"any_whitespace": True},
}
"""Between the parts of a JSON value. What is capped is put in the place of the library's own rule."""
_GAP = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\bwhitespace(?:_\d+)?\{0, 41\}')
"""In a grammar as the library writes it: texts and sets of characters, and where white space may be."""
_CAPPED = 'gap ::= "" | " " | ("\\n" [ ]{0,40})'
"""A space, or a line break with an indentation."""
_BITS = 32
_COMPILED = 256
"""Forms that are kept compiled: rows may have one each."""
_INSTEAD = "which xgrammar cannot enforce; where llguidance can, engine.grammar_backend=llguidance keeps it"


class XGMatchers:
    """`matching.Matchers` for a vocabulary of `vocab_size` ids, of which `texts` knows the first ones."""

    def __init__(self, texts: TokenBytes, vocab_size: int):
        self._library = _library()
        known = texts.pieces[:vocab_size]
        # Its one end token lies beyond all ids, as which tokens end an answer is each request's own.
        pieces = [*known, *[b""] * (vocab_size + 1 - len(known))]
        info = self._library.TokenizerInfo(pieces, vocab_size=len(pieces), stop_token_ids=[vocab_size])
        self._compiler = self._library.GrammarCompiler(info, cache_enabled=False)
        self._batch = self._library.BatchGrammarMatcher()
        self._utf8 = Utf8Tokens(pieces)
        self._num_words = -(-len(pieces) // _BITS)
        self._vocab_size = vocab_size
        self._compiled = lru_cache(_COMPILED)(self._compile)

    def matcher(self, structure: Structure) -> XGMatcher:
        return XGMatcher(self._library.GrammarMatcher(self._compiled(structure)), self._utf8)

    def allowed(self, matchers: Sequence[Matcher]) -> Any:
        import numpy

        own = [matcher for matcher in matchers if isinstance(matcher, XGMatcher)]
        assert len(own) == len(matchers), "matchers of another library"
        masks = numpy.zeros((len(own), self._num_words), numpy.int32)
        self._batch.batch_fill_next_token_bitmask([matcher.state for matcher in own], masks)
        masks &= numpy.stack([self._utf8.allowed(matcher.begun) for matcher in own])
        return masks[:, : -(-self._vocab_size // _BITS)]

    def _compile(self, structure: Structure) -> Any:
        try:
            return self._compiler.compile_grammar(_grammar(structure))
        except (NotKept, NotRead, RuntimeError, RecursionError) as error:
            raise BadRow(f"its form cannot be kept: {_words(error)}") from error


class XGMatcher:
    """`matching.Matcher`. The library takes bytes for characters that are none, which are kept out here."""

    failure: str | None = None

    def __init__(self, state: Any, utf8: Utf8Tokens, begun: bytes = b""):
        self.state = state
        self.begun = begun
        self._utf8 = utf8

    def take(self, ids: Sequence[int]) -> bool:
        return all(self._take(int(token)) for token in ids)

    def _take(self, token: int) -> bool:
        begun = self._utf8.after(self.begun, token)
        self.begun = begun or b""
        return begun is not None and bool(self.state.accept_token(token))

    def fork(self) -> XGMatcher:
        return XGMatcher(self.state.fork(), self._utf8, self.begun)

    @property
    def may_end(self) -> bool:
        return not self.begun and bool(self.state.is_completed())


def matchers(texts: TokenBytes, vocab_size: int) -> XGMatchers:
    return XGMatchers(texts, vocab_size)


def not_kept(structure: Structure) -> str | None:
    try:
        _grammar(structure)
    except NotKept as what:
        return f"its json_schema has {what}, {_INSTEAD}"
    except NotRead as part:
        return f"its {structure.kind} holds {part}, {_INSTEAD}"
    except RecursionError:
        return f"its {structure.kind} is nested too deeply"
    except RuntimeError as error:
        return f"its {structure.kind} cannot be enforced: {_words(error)}"
    return None


def _grammar(structure: Structure) -> Any:
    """A form as the library reads it. Raises NotKept, NotRead, RuntimeError with its words, RecursionError."""
    kinds = _library().Grammar
    match structure.kind:
        case "regex":
            return kinds.from_regex(whole(structure.text))
        case "choice":
            answers = " | ".join(json.dumps(answer, ensure_ascii=False) for answer in json.loads(structure.text))
            return kinds.from_lark(f"start: {answers}")
        case "grammar":
            if (part := beyond_lark(structure.text)) is not None:
                raise NotRead(part)
            return kinds.from_lark(with_patterns(structure.text, whole))
        case "json":
            return _of_schema({"type": "object"}, structure.white_space)
        case "json_schema":
            return _of_schema(json.loads(structure.text), structure.white_space)
        case "calls":
            return _of_calls(structure)


def _of_schema(schema: Any, white_space: str) -> Any:
    kinds = _library().Grammar
    found = kinds.from_json_schema(json.dumps(rewritten(schema)), strict_mode=False, **_WHITE_SPACE[white_space])
    if white_space != "capped":
        return found
    return kinds.from_ebnf(f"{_GAP.sub(_gap, str(found))}\n{_CAPPED}\n")


def _gap(found: re.Match[str]) -> str:
    return "gap" if found.group().startswith("whitespace") else found.group()


def _of_calls(structure: Structure) -> Any:
    """What stands behind the text that opens a call: the call itself, others where they follow in the same breath, and
    what closes them. Arguments are grammars of their own, as only those have a rule for white space."""
    syntax, schemas = read_calls(structure)
    names = range(len(schemas))
    more = "" if syntax.again is None else f"({_text(syntax.again)} call)*"
    lines = [f"start: {_text(syntax.before)} call {more} {_text(syntax.behind)}"]
    lines.append("call: " + " | ".join(f"call_{number}" for number in names))
    lines += [f"call_{n}: {_text(head(syntax, name))} @arguments_{n}" for n, name in zip(names, schemas, strict=True)]
    held = {f"arguments_{n}": _of_schema(one, structure.white_space) for n, one in enumerate(schemas.values())}
    return _library().Grammar.from_lark("\n".join(lines) + "\n", named_grammars=held)


def _text(text: str) -> str:
    """A text as Lark writes it; nothing for none."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _words(error: Exception) -> str:
    """The library's error in one line, without the place in its own source."""
    return one_line(str(error).rpartition(".cc:")[2].partition(": ")[2] or str(error))


def _library() -> Any:
    return need("xgrammar", "engine.grammar_backend=xgrammar", "xgrammar")
