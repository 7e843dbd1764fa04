"""The engine: takes requests from the feed, has them carried, and gives back what the server answered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from batchchat.chats import Completion, Request, Timings, Usage
from batchchat.engines.base import EngineContext
from batchchat.engines.endpoint.answer import Reading, read_answer, read_usage
from batchchat.engines.endpoint.batch_api import BatchClient, Item, Result
from batchchat.engines.endpoint.batches import Batches
from batchchat.engines.endpoint.body import BodyWriter
from batchchat.engines.endpoint.connection import Server
from batchchat.engines.endpoint.cost import Ledger, cost_of, highest_cost
from batchchat.engines.endpoint.lines import Lines
from batchchat.engines.endpoint.options import EndpointOptions
from batchchat.engines.endpoint.retry import Answered, Refused, Stop, judge
from batchchat.engines.endpoint.text import read_text
from batchchat.engines.endpoint.tokens import token_completion
from batchchat.engines.endpoint.traffic import Job, Traffic
from batchchat.engines.facts import ConcurrencyChange, CostFacts, EndpointFacts
from batchchat.errors import BadRow, EnvironmentFault
from batchchat.schedule import Feed

_BYTES_PER_TOKEN = 4
"""About, for the ceiling of tokens a minute: prompts are counted by the server only."""


class EndpointEngine:
    """Answers by a server. `kept` in the context holds what a resumed run must know: the model that the server named
    with its first answer, and what was spent."""

    def __init__(self, context: EngineContext):
        """Raises EnvironmentFault where the key or the certificates are not there."""
        self._options: EndpointOptions = context.recipe.engine.options
        self._model = context.recipe.model.name
        self._codec = context.codec
        self._meter = context.meter
        self._kept = context.kept
        self._server = Server(self._options, context.meter.now)
        self._on_message = context.on_message
        self._writer = BodyWriter(self._options, self._model, in_pieces=self._on_message is not None)
        self._ledger = Ledger(self._options.max_cost, *self._kept.get("spent", (0.0, 0.0)))
        self._traffic = self._new_traffic()
        self._is_known = False

    @property
    def spent(self) -> float | None:
        """What the run cost so far; None where no prices are known."""
        return None if self._options.prices is None else self._ledger.spent

    def run(self, feed: Feed) -> Iterator[Completion]:
        """Raises EnvironmentFault where no request can succeed, or the next one could cost more than is allowed; what
        was in flight is given back before."""
        if not self._is_known:
            self._introduce()
        self._traffic = traffic = self._new_traffic()
        try:
            if self._options.batch:
                batches = Batches(BatchClient(self._server), self._options, self._ledger, self._kept)
                yield from batches.run(feed, self._item, self._batched)
                return
            listens = self._on_message is not None
            with closing(Lines(traffic, self._server.connect, self._meter.now, listens)) as lines:
                yield from self._drain(feed, traffic, lines)
        finally:
            traffic.abandon()
            self._keep()

    def describe(self) -> EndpointFacts:
        options, traffic = self._options, self._traffic
        facts = EndpointFacts(
            engine="endpoint",
            url=options.url,
            served_model=self._kept.get("model"),
            concurrency=tuple(
                ConcurrencyChange(seconds=round(change.seconds, 2), limit=change.limit, why=change.why)
                for change in traffic.concurrency.changes
            ),
            retries=traffic.num_retries,
            refusals=traffic.num_refusals,
        )
        if options.prices is None:
            return facts
        spent, unconfirmed = round(self._ledger.spent, 6), round(self._ledger.unconfirmed, 6)
        cost = CostFacts(spent=spent, unconfirmed=unconfirmed, allowed=options.max_cost)
        return facts.model_copy(update={"cost": cost})

    def close(self) -> None: ...

    def _new_traffic(self) -> Traffic:
        return Traffic(self._options, self._ledger, self._meter.now())

    def _introduce(self) -> None:
        """Ask what models there are, which every such server says, to find out before the first request whether it is
        there and lets us in. A server that does not say is asked by the requests themselves."""
        connection = self._server.connect()
        with closing(connection):
            attempt = connection.send("GET", self._server.models, self._server.headers(kind=None))
        if attempt.failure is not None or attempt.status == 401 or 300 <= (attempt.status or 0) < 400:
            verdict = judge(attempt, self._options, datetime.now(UTC))
            if isinstance(verdict, Stop) or attempt.failure == "unreachable":
                assert not isinstance(verdict, Answered)
                raise EnvironmentFault(verdict.reason)
        self._is_known = True

    def _drain(self, feed: Feed, traffic: Traffic, lines: Lines) -> Iterator[Completion]:
        while True:
            jobs: list[Job] = []
            wrong: list[Completion] = []
            for request in feed.take(lines.room):
                try:
                    jobs.append(self._job(request))
                except BadRow as error:
                    wrong.append(self._failed(request, str(error)))
            lines.add(jobs)
            yield from wrong
            done = lines.wait()
            if self._on_message is not None:
                for job, message in lines.said():
                    self._on_message(job.request, message)
            for job in done:
                yield self._completion(job, lines)
            if done or wrong or traffic.in_flight or traffic.done:
                continue
            if traffic.stopped is not None:
                raise EnvironmentFault(f"{traffic.stopped}. What was answered is kept")
            if traffic.broke:
                raise EnvironmentFault(
                    f"{self._ledger.spent + self._ledger.unconfirmed:.4f} of engine.endpoint.max_cost="
                    f"{self._options.max_cost:g} are spent, and the next request could cost more than the rest; what "
                    "was answered is kept: raise max_cost and run the same command again"
                )
            if traffic.waiting:
                continue
            lines.end()
            if traffic.done:
                continue
            if feed.exhausted:
                return
            feed.wait(1.0)

    def _job(self, request: Request) -> Job:
        body = self._writer.write(request)
        limit = request.settings.max_new_tokens
        tokens = math.ceil(len(body) / _BYTES_PER_TOKEN) + limit
        return Job(request, body, highest_cost(self._options.prices, body, limit), self._meter.now(), tokens)

    def _completion(self, job: Job, lines: Lines) -> Completion:
        assert job.first_sent is not None
        assert job.last is not None
        timings = Timings(job.queued, job.first_sent, job.last.ended)
        if isinstance(job.verdict, Refused):
            self._keep()
            return self._failed(job.request, job.verdict.reason, timings)
        assert isinstance(job.verdict, Answered), "what is done was answered or refused"
        lines.pay(job, self._cost(job.verdict, job.highest_cost))
        return self._answered(job.request, job.verdict, timings, self._traffic.in_flight + 1)

    def _item(self, request: Request) -> Item | Completion:
        if request.prompt is not None:
            return self._failed(
                request, "a batch file of chats takes no other prompts; set engine.endpoint.batch=false"
            )
        try:
            job = self._job(request)
        except BadRow as error:
            return self._failed(request, str(error))
        return Item(request, job.body, job.highest_cost, job.queued)

    def _batched(self, item: Item, result: Result) -> Completion:
        timings = Timings(item.queued, item.queued, max(item.queued, result.attempt.ended))
        match result.verdict:
            case Answered() as verdict:
                self._ledger.settle(item.highest_cost, spent=self._cost(verdict, item.highest_cost))
                return self._answered(item.request, verdict, timings, 1)
            case Refused(reason=reason):
                self._ledger.settle(item.highest_cost)
                return self._failed(item.request, reason, timings)
        raise AssertionError("what is done was answered or refused")

    def _cost(self, verdict: Answered, highest: float) -> float:
        """What an answer cost; the most that it could where the server does not count."""
        prices = self._options.prices
        if prices is None:
            return 0.0
        usage = read_usage(verdict.data)
        return highest if usage is None else cost_of(prices, usage)

    def _answered(self, request: Request, verdict: Answered, timings: Timings, in_flight: int) -> Completion:
        self._keep()
        usage = read_usage(verdict.data)
        try:
            self._compare_model(verdict.data.get("model"))
            if self._options.prompts == "tokens":
                completion = token_completion(verdict.data, request, self._codec, usage, timings)
            else:
                read = read_answer if request.prompt is None else read_text
                completion = self._as_completion(read(verdict.data, request), request, usage, timings)
        except BadRow as error:
            return self._failed(request, str(error), timings)
        prompt, written = completion.prompt_tokens, completion.completion_tokens
        self._meter.batch(in_flight, prompt, written, prompt + written)
        return completion

    def _as_completion(self, reading: Reading, request: Request, usage: Usage | None, timings: Timings) -> Completion:
        return Completion(
            request,
            (),
            reading.text,
            reading.finish_reason,
            timings,
            logprobs=reading.logprobs,
            usage=usage,
            message=reading.message,
            note=reading.note,
        )

    def _compare_model(self, model: Any) -> None:
        """Raises BadRow where another model answered than at first."""
        if not isinstance(model, str):
            return
        first = self._kept.get("model")
        if first is None:
            self._kept["model"] = model
        elif model != first:
            self._meter.event("model changed", f"the server answered as {model}, not as {first}")
            if self._options.other_model == "error":
                raise BadRow(
                    f"the server answered as {model}, but the run's first answer came from {first}; to take "
                    "both, set engine.endpoint.other_model=allow"
                )

    def _failed(self, request: Request, reason: str, timings: Timings | None = None) -> Completion:
        now = self._meter.now()
        return Completion(request, (), "", "error", timings or Timings(now, now, now), error=reason)

    def _keep(self) -> None:
        """Remember what was spent; stored together with the answer that it was spent on."""
        if self._options.prices is not None:
            self._kept["spent"] = [self._ledger.spent, self._ledger.unconfirmed]


def build(context: EngineContext) -> EndpointEngine:
    """From a recipe's `engine` section."""
    return EndpointEngine(context)
