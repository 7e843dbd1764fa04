"""Runs the calls of answers: several at a time, each in a process that can be ended."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from batchchat.chats import Completion, Message, Request, Timings, Usage
from batchchat.engines.base import EngineMeter
from batchchat.engines.facts import AnyEngineFacts, EngineFacts
from batchchat.engines.tools.offered import Offered
from batchchat.engines.tools.worker import Worker
from batchchat.recipe.tools import ToolsSection
from batchchat.schedule import Feed

_LOOK_SECONDS = 0.05
"""Between two looks at the feed while calls run."""


class ToolEngine:
    """A request's last message holds one call; the completion is the message with its result. What goes wrong is told
    to the model in that message, and noted in the completion (`note`)."""

    def __init__(self, section: ToolsSection, offered: Offered, meter: EngineMeter):
        self._section = section
        self._offered = offered
        self._meter = meter
        self._workers = [Worker(section.max_result) for _ in range(section.processes)]

    def run(self, feed: Feed) -> Iterator[Completion]:
        free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            free.put(worker)
        running: set[Future[Completion]] = set()
        pool = ThreadPoolExecutor(len(self._workers))
        try:
            while True:
                if len(running) < len(self._workers):
                    for request in feed.take(len(self._workers) - len(running)):
                        running.add(pool.submit(self._complete, request, free, self._meter.now(wait=False)))
                if not running:
                    if feed.exhausted:
                        return
                    feed.wait(1.0)
                    continue
                done, running = wait(running, _LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            if running:  # left early
                for worker in self._workers:
                    worker.end()
            pool.shutdown()

    def describe(self) -> AnyEngineFacts:
        return EngineFacts(engine="tools", details={"tools": [*sorted(self._offered.calls)]})

    def close(self) -> None:
        for worker in self._workers:
            worker.finish()
        for worker in self._workers:
            worker.close()

    def _complete(self, request: Request, free: queue.SimpleQueue[Worker], queued: float) -> Completion:
        call = request.messages[-1].tool_calls[0]
        worker = free.get()
        try:
            worker.make_ready()
            started = self._meter.now(wait=False)
            reply = self._reply(worker, call["function"])
        finally:
            free.put(worker)
        error = reply.get("error")
        content = reply["text"] if error is None else f"Error: {error}"
        message = Message("tool", content, tool_call_id=call.get("id"), name=call["function"]["name"])
        timings = Timings(queued, started, self._meter.now(wait=False))
        return Completion(request, (), content, "tool_result", timings, usage=Usage(0, 0), message=message, note=error)

    def _reply(self, worker: Worker, function: Mapping[str, Any]) -> dict[str, Any]:
        known = self._offered.calls.get(function["name"])
        if known is None:
            return {"error": f"there is no tool {function['name']}; there are {', '.join(self._offered.calls)}"}
        arguments = function.get("arguments")
        if not isinstance(arguments, Mapping):
            return {"error": "the arguments are no JSON object"}
        return worker.ask({**known, "arguments": dict(arguments)}, self._section.seconds)
