"""Text as its tokens come is the text of all tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.prompts import ByteCodec, Codec, TokenizerCodec
from batchchat.prompts.stream import TextStream
from tests.support import zoo

CODECS: dict[str, Codec] = {
    "bytes": ByteCodec(),
    "byte_bpe": TokenizerCodec(zoo.byte_bpe()),
    "metaspace_bpe": TokenizerCodec(zoo.metaspace_bpe()),
}


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("ab cé東😀\n.'"), min_size=1, max_size=30))
def test_pieces_add_up(name: str, text: str) -> None:
    codec = CODECS[name]
    ids = codec.encode_text(text)
    stream = TextStream(codec)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == codec.decode(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
