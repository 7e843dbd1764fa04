"""Where engines take requests from, and where the next turn of a chat arrives as soon as its last is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from batchchat.chats import Request

Pick = Callable[[list[Request]], tuple[list[Request], list[Request]]]
"""From the ready requests to those that are computed now and those that are not."""

_Entry = tuple[int, tuple[int, int, int], Request]


class Feed:
    """A bounded look-ahead over a lazy stream of requests, longest prompt first.

    `stream` is pulled only while fewer than `look_ahead` requests are ready, so memory does not grow with the
    input. Requests put back in (`put`: the next turn of a chat, a request to be computed again) go before the
    stream. Longest first keeps the tail of a job short and shows a batch that does not fit at once; equal lengths
    leave in input order, so one input always gives one order.
    """

    def __init__(
        self,
        stream: Iterator[Request],
        look_ahead: int,
        open_ended: bool = False,
        on_take: Callable[[int], None] | None = None,
    ):
        """`open_ended`: more may be put in from another thread until `close()`, so that an empty feed is not a done
        one (`exhausted` stays False and `wait` blocks). `on_take` is called with the number of requests that are about
        to be handed out (the run makes durable what was done before)."""
        self._stream: Iterator[Request] | None = stream
        self._look_ahead = max(1, look_ahead)
        self._ready: list[_Entry] = []
        self._open = open_ended
        self._on_take = on_take
        self._changed = threading.Condition()

    def put(self, request: Request) -> None:
        """Make a request ready."""
        with self._changed:
            self._ready.append(_entry(request))
            self._changed.notify_all()

    def take(self, count: int) -> list[Request]:
        """Up to `count` ready requests, longest prompt first; an empty list when none is ready now."""
        self._fill()
        with self._changed:
            self._ready.sort()
            chosen = [request for _, _, request in self._ready[:count]]
            del self._ready[:count]
        return self._handed_out(chosen)

    def choose(self, pick: Pick) -> list[Request]:
        """The requests that `pick` chooses among all that are ready, longest prompt first; the rest stays ready.

        This is how an engine plans a batch without holding requests that it does not compute yet."""
        self._fill()
        with self._changed:
            self._ready.sort()
            chosen, rest = pick([request for _, _, request in self._ready])
            assert len(chosen) + len(rest) == len(self._ready), "a request is chosen or left, never both or neither"
            self._ready = [_entry(request) for request in rest]
        return self._handed_out(chosen)

    def withdraw(self, count: int) -> list[Request]:
        """Up to `count` ready requests, those that would be taken last; they are ready no more."""
        with self._changed:
            self._ready.sort()
            kept = max(0, len(self._ready) - count)
            withdrawn = [request for _, _, request in self._ready[kept:]]
            del self._ready[kept:]
        return withdrawn

    @property
    def exhausted(self) -> bool:
        """True when nothing is ready and nothing more will come, but for next turns of requests still in flight."""
        self._fill()
        return not self._ready and self._stream is None and not self._open

    @property
    def num_ready(self) -> int:
        """How many are ready; of a longer stream no more than the look-ahead."""
        self._fill()
        return len(self._ready)

    def wait(self, seconds: float) -> None:
        """Block until something is ready or the feed is closed, at most `seconds`."""
        with self._changed:
            if not self._ready and self._open:
                self._changed.wait(seconds)

    def close(self) -> None:
        """Nothing more will be put in from outside."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _handed_out(self, requests: list[Request]) -> list[Request]:
        if self._on_take is not None:
            self._on_take(len(requests))
        return requests

    def _fill(self) -> None:
        while self._stream is not None and len(self._ready) < self._look_ahead:
            request = next(self._stream, None)
            if request is None:
                self._stream = None
            else:
                self.put(request)


def _entry(request: Request) -> _Entry:
    """Sorts longest prompt first, then in input order."""
    return (-len(request.prompt_ids), request.key, request)
