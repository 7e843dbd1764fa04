"""Data files as streams of bytes: found out by their first bytes, decompressed on the way."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchchat.errors import EnvironmentFault, UsageError

CHUNK = 1 << 16
"""Bytes read at once."""

COMPRESSIONS: dict[bytes, str] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of a compressed file and the name of the compression."""
COMPRESSIONS |= {bytes([0x50 + number]) + b"\x2a\x4d\x18": "zstd" for number in range(16)}  # frames to be passed over


class BrokenStreamError(Exception):
    """Compressed data that is damaged or breaks off. `rest`: what stood after the last whole line."""

    def __init__(self, reason: str, rest: bytes = b""):
        super().__init__(reason)
        self.rest = rest


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows: its name as it was given, which messages and fingerprints use, and where it lies."""

    name: str
    path: Path

    def head(self) -> bytes:
        """The first bytes as they are on disk, at most 16. Raises UsageError where the file cannot be opened."""
        try:
            with self.path.open("rb") as file:
                return file.read(16)
        except PermissionError:
            raise UsageError(f"{self.name} may not be read by this user: change its permissions") from None
        except OSError as error:
            raise UsageError(f"{self.name} cannot be read: {error.strerror or error}") from None

    def chunks(self) -> Iterator[bytes]:
        """The file's content, decompressed. Raises BrokenStreamError where it can be decompressed no further."""
        compression = next((name for magic, name in COMPRESSIONS.items() if self.head().startswith(magic)), None)
        return self._stored() if compression is None else _decompressed(self._stored(), compression)

    def _stored(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise EnvironmentFault(f"{self.name} cannot be read any further: {error.strerror or error}") from error

    def sha256(self) -> str:
        """Hash of the file as it is on disk."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _decompressed(chunks: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """One or several compressed streams behind each other, perhaps with zero bytes between them."""
    new, error_types = _decoder(compression)
    decoder = new()
    try:
        for chunk in chunks:
            while chunk:
                if decoder.eof:
                    chunk = chunk.lstrip(b"\0")
                    if not chunk:
                        break
                    decoder = new()
                yield decoder.decompress(chunk)
                chunk = decoder.unused_data if decoder.eof else b""
    except error_types as error:
        raise BrokenStreamError(f"the {compression} data is damaged here ({error})") from None
    if not decoder.eof:
        raise BrokenStreamError(f"the {compression} data breaks off here")


def _decoder(compression: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """What makes a decompressor, and the errors by which it says that its input is damaged."""
    match compression:
        case "gzip":
            return lambda: zlib.decompressobj(wbits=31), (zlib.error,)
        case "bzip2":
            return bz2.BZ2Decompressor, (OSError, ValueError)
        case "xz":
            return lzma.LZMADecompressor, (lzma.LZMAError,)
        case _:
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj, (zstandard.ZstdError,)
