"""Messages over a socket: pickled, each after its length. Both ends are processes of one run of one user."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_LENGTH = struct.Struct("!Q")
_READ = 1 << 18


class Channel:
    """The run's end. It never blocks: a replica that reads nothing must not hold up the others."""

    def __init__(self, sock: socket.socket):
        sock.setblocking(False)
        self._socket = sock
        self._in = bytearray()
        self._out = bytearray()
        self.closed = False
        """The other end is gone, and everything that it sent was read."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        return bool(self._out) and not self.closed

    def send(self, message: Any) -> None:
        """Send at once what the socket takes; the rest waits for `flush`."""
        self._out += frame(message)
        self.flush()

    def flush(self) -> None:
        try:
            while self._out:
                sent = self._socket.send(memoryview(self._out)[:_READ])
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:  # the other end is gone; reading on tells when
            self._out.clear()

    def receive(self) -> list[Any]:
        """What has come by now."""
        try:
            while chunk := self._socket.recv(_READ):
                self._in += chunk
            self.closed = True
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
        return list(_messages(self._in))

    def close(self) -> None:
        self._socket.close()


class BlockingChannel:
    """The replica's end."""

    def __init__(self, sock: socket.socket):
        sock.setblocking(True)
        self._socket = sock
        self._in = bytearray()

    def send(self, message: Any) -> None:
        """Raises OSError where the run is gone."""
        self._socket.sendall(frame(message))

    def messages(self) -> Iterator[Any]:
        """Every message, as it comes, until the run is gone."""
        with suppress(OSError):
            while chunk := self._socket.recv(_READ):
                self._in += chunk
                yield from _messages(self._in)


def frame(message: Any) -> bytes:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


def _messages(buffer: bytearray) -> Iterator[Any]:
    """The whole messages at the beginning of a buffer, which lose their place in it."""
    begin = 0
    while len(buffer) - begin >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer, begin)
        end = begin + _LENGTH.size + length
        if len(buffer) < end:
            break
        yield pickle.loads(memoryview(buffer)[begin + _LENGTH.size : end])
        begin = end
    del buffer[:begin]
