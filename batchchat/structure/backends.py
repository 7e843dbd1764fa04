"""The libraries that answers can be kept in their forms by, each imported when it is first asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from batchchat.chats import GrammarBackend
from batchchat.structure import by_llguidance, by_xgrammar
from batchchat.structure.matching import BYTES, Backend, Matchers, TokenBytes

BACKENDS: Mapping[GrammarBackend, Backend] = {"llguidance": by_llguidance, "xgrammar": by_xgrammar}


@lru_cache(maxsize=8)
def matchers_of(backend: GrammarBackend, texts: TokenBytes, vocab_size: int) -> Matchers:
    """Matchers for a vocabulary, kept for the next one that asks for them."""
    return BACKENDS[backend].matchers(texts, vocab_size)


def byte_matchers(backend: GrammarBackend) -> Matchers:
    """Matchers that take an answer byte by byte."""
    return matchers_of(backend, BYTES, len(BYTES.pieces))
