"""The seed of one request."""

from __future__ import annotations

import hashlib


def request_seed(run_seed: int, chat_id: str, sample: int, turn: int) -> int:
    """63 bits that depend on nothing but the arguments: no batch, order, process or time. With a sign they fit into the
    whole numbers of every file format.

    The chat id comes last, behind numbers that hold no separator, so no two requests share the hashed text.
    """
    text = f"{run_seed}/{sample}/{turn}/{chat_id}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") >> 1
