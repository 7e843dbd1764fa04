"""Sets of tokens as bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy
import torch

from batchchat.sampling.reasoning import NamedTexts
from batchchat.sampling.staging import staged
from batchchat.structure import TokenBytes

Mask = Any
"""A numpy array [words] int32, a bit for each token."""
_BITS = 32


class Texts(TokenBytes, NamedTexts, Protocol):
    """What each token of a vocabulary adds to a text (`prompts.token_texts`)."""

    def completing(self, text: bytes, tail: bytes) -> Sequence[int]:
        """The tokens with which a text that `tail` begins would be complete."""
        ...

    def holding(self, text: bytes) -> Sequence[int]:
        """The tokens in which a text stands whole, special ones by their names."""
        ...


def mask_of(tokens: Iterable[int], vocab_size: int) -> Mask:
    bits = numpy.zeros(-(-vocab_size // _BITS) * _BITS, numpy.uint8)
    bits[list(tokens)] = 1
    return numpy.packbits(bits, bitorder="little").view(numpy.int32)


def holds(mask: Mask, token: int) -> bool:
    """Whether a token is in the set."""
    return bool(int(mask[token // _BITS]) >> token % _BITS & 1)


@lru_cache(maxsize=8)
def vocabulary(texts: TokenBytes, vocab_size: int) -> tuple[Mask, Mask]:
    """The tokens that the tokenizer knows, and those of them that are text: a model's own rows beyond them are none."""
    known = range(min(len(texts.pieces), vocab_size))
    return mask_of(known, vocab_size), mask_of([token for token in known if texts.pieces[token]], vocab_size)


def banned(masks: Any, vocab_size: int, device: torch.device) -> torch.Tensor:
    """Masks [rows, words] as a tensor [rows, vocabulary] bool of what is not allowed."""
    if device.type == "cpu":
        bits = numpy.unpackbits((~masks).view(numpy.uint8), axis=1, count=vocab_size, bitorder="little")
        return torch.from_numpy(bits).view(torch.bool)
    words = staged(masks, device)
    bits = (words[:, :, None] >> torch.arange(_BITS, device=device, dtype=torch.int32)) & 1
    return bits.flatten(1)[:, :vocab_size] == 0
