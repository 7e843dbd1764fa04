"""Draining the feed by batches: what is ready goes as one file, and its answers make the next turns ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from batchchat.chats import Completion, Request
from batchchat.engines.endpoint.batch_api import BatchClient, Item, Pending, Result
from batchchat.engines.endpoint.cost import Ledger
from batchchat.engines.endpoint.options import EndpointOptions
from batchchat.engines.endpoint.retry import Again, Attempt, Refused, Stop
from batchchat.errors import EnvironmentFault
from batchchat.schedule import Feed

_KEY = "batches"
_AT_ONCE = 256

Answer = Callable[[Item, Result], Completion]
"""The completion of a request that was answered or refused."""
Prepare = Callable[[Request], Item | Completion]
"""A request as it goes into a batch, or why it cannot."""


class Batches:
    """`kept` holds the ids of batches that are waited for, each with the names of its requests."""

    def __init__(self, client: BatchClient, options: EndpointOptions, ledger: Ledger, kept: MutableMapping[str, Any]):
        self._client = client
        self._options = options
        self._ledger = ledger
        self._kept = kept
        self._open: dict[str, list[str]] = dict(kept.get(_KEY, {}))
        self._sent: dict[str, Item] = {}
        """Requests whose batch is waited for."""
        self._pending = Pending(options.batch_requests)

    def run(self, feed: Feed, prepare: Prepare, answer: Answer) -> Iterator[Completion]:
        while True:
            yield from self._collect(feed, prepare)
            if not self._open and self._pending.items:
                self._submit(feed)
            if not self._open:
                if feed.exhausted and not self._pending.items:
                    return
                feed.wait(1.0)
                continue
            batch = next(iter(self._open))
            ended = self._client.wait(batch)
            yield from self._finish(batch, ended, answer)

    def _collect(self, feed: Feed, prepare: Prepare) -> Iterator[Completion]:
        """Everything that is ready, as far as one file holds it; what an open batch was asked before joins that."""
        names = {name for one in self._open.values() for name in one}
        while self._pending.room:
            requests = feed.take(min(_AT_ONCE, self._pending.room))
            if not requests:
                return
            for request in requests:
                item = prepare(request)
                if isinstance(item, Completion):
                    yield item
                elif item.name in names:
                    self._ledger.set_aside(item.highest_cost)
                    self._sent[item.name] = item
                else:
                    self._pending.add(item)

    def _submit(self, feed: Feed) -> None:
        items: list[Item] = []
        for item in self._pending.take():
            if self._ledger.affords(item.highest_cost):
                self._ledger.set_aside(item.highest_cost)
                items.append(item)
            else:
                self._pending.add(item)
        if not items:
            raise EnvironmentFault(
                f"{self._ledger.spent + self._ledger.unconfirmed:.4f} of engine.endpoint.max_cost="
                f"{self._options.max_cost:g} are spent, and the next request could cost more than the rest; what was "
                "answered is kept: raise max_cost and run the same command again"
            )
        batch = self._client.submit(items)
        for item in items:
            item.attempts += 1
            self._sent[item.name] = item
        self._open[batch] = [item.name for item in items]
        self._keep()
        assert not feed.take(0)  # which makes the batch's id durable

    def _finish(self, batch: str, ended: Any, answer: Answer) -> Iterator[Completion]:
        wanted = set(self._open[batch])
        again = self._client.why(ended)
        stop: str | None = None
        for result in self._client.results(ended):
            item = self._sent.pop(result.name, None) if result.name in wanted else None
            if item is None:  # it was answered before the run was ended, or is none of ours
                continue
            match result.verdict:
                case Again(reason=reason):
                    self._ledger.settle(item.highest_cost)
                    yield from self._send_again(item, reason, answer)
                case Stop(reason=reason):
                    self._ledger.settle(item.highest_cost)
                    stop = reason
                case _:
                    yield answer(item, result)
        for name in wanted & self._sent.keys():
            item = self._sent.pop(name)
            self._ledger.settle(item.highest_cost)
            if ended.get("status") == "failed":  # as a whole: the provider does not take such files
                stop = again
            else:
                yield from self._send_again(item, again, answer)
        del self._open[batch]
        self._keep()
        if stop is not None:
            raise EnvironmentFault(f"{stop}; what was answered is kept")

    def _send_again(self, item: Item, reason: str, answer: Answer) -> Iterator[Completion]:
        if item.attempts <= self._options.retries:
            self._pending.add(item)
            return
        refused = Refused(f"{reason} (in {item.attempts} batches)")
        yield answer(item, Result(item.name, Attempt(item.queued, item.queued), refused))

    def _keep(self) -> None:
        self._kept[_KEY] = self._open
