"""What a replica does: run the unmodified engine on requests that come over the way from the run."""

from __future__ import annotations

import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from batchchat.chats import Completion, Request
from batchchat.engines import Budget, Engine, EngineContext, build_engine
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.launch.devices import require_free
from batchchat.launch.messages import (
    Answer,
    Answers,
    Beat,
    Begin,
    Ended,
    Failed,
    Finish,
    FromReplica,
    Ready,
    Recall,
    Returned,
    Started,
    ToReplica,
    Work,
)
from batchchat.launch.versions import difference, versions
from batchchat.models import load_text_side
from batchchat.models.identity import model_identity
from batchchat.recipe import recipe_from_mapping
from batchchat.recipe.model import ModelSection
from batchchat.reporting.meters import Meters, device_peaks, host_peak_bytes
from batchchat.schedule import Feed
from batchchat.schedule.feed import Pick

_SECONDS_BETWEEN_BEATS = 0.25

Send = Callable[[FromReplica], None]


class DeviceLost(Exception):
    """The accelerator failed so that nothing can be computed on it by this process any more."""


class Worker:
    """Answers what `handle` is told of, in another thread than `run`'s."""

    def __init__(self, send: Send):
        self._meters = Meters()
        self._reports = _Reports(send, self._meters)
        self._feed = _PulledFeed(self._reports)

    def handle(self, message: ToReplica) -> None:
        """A message from the run, but for the first."""
        match message:
            case Work():
                for request in message.requests:
                    self._feed.put(request)
            case Recall():
                self._reports.send(Returned(tuple(one.key for one in self._feed.withdraw(message.count))))
            case Finish():
                self._feed.close()

    def run(self, begin: Begin, build: Callable[[EngineContext], Engine] | None = None) -> None:
        """From loading to the last answer. Whatever goes wrong is told, not raised. `build` takes the place of the
        recipe's engine."""
        stopped = threading.Event()
        beats = threading.Thread(target=self._beat, args=(stopped,), name="beats", daemon=True)
        beats.start()
        try:
            self._answer(begin, build)
        except UsageError as error:
            self._fail(Failed("usage", str(error)))
        except EnvironmentFault as error:
            self._fail(Failed("environment", str(error)))
        except Exception as error:
            traceback.print_exc()
            self._fail(Failed("error", " ".join(f"{type(error).__name__}: {error}".split())[:400]))
        finally:
            stopped.set()

    def _fail(self, message: Failed) -> None:
        self._reports.flush()  # what was answered before is good
        self._reports.send(message)

    def _answer(self, begin: Begin, build: Callable[[EngineContext], Engine] | None) -> None:
        _require_same_versions(begin.versions)
        recipe = recipe_from_mapping(begin.recipe)
        if begin.model is not None:
            _require_same_files(begin.model, recipe.model)
        require_free(recipe)
        codec = load_text_side(recipe).codec
        budget = Budget(begin.budget_tokens, self._reports.learn)
        context = EngineContext(recipe, codec, self._reports, self._reports.token, budget)
        with closing(build_engine(recipe.engine.kind, context) if build is None else build(context)) as engine:
            self._reports.loaded = True
            rows = recipe.engine.max_batch_rows
            self._reports.send(Ready(rows, self._meters.elapsed))
            for completion in engine.run(self._feed):
                if completion.finish_reason == "error":
                    _require_device()
                self._reports.answer(completion)
            self._reports.flush()
            devices = [device.peak_allocated_bytes for device in device_peaks().values()]
            self._reports.send(Ended(engine.describe(), host_peak_bytes(), sum(devices) if devices else None))

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.wait(_SECONDS_BETWEEN_BEATS):
            if not self._reports.loaded:
                self._reports.signs += 1  # loading has no steps that could be counted
            self._reports.flush()
            self._reports.send(Beat(self._reports.signs, self._meters.elapsed, self._feed.idle_seconds))


class _Reports:
    """The engine's meter, and what it tells the run; called by the engine's thread and that of the beats."""

    def __init__(self, send: Send, meters: Meters):
        self._send = send
        self._meters = meters
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._batches: list[tuple[int, int, int, int]] = []
        self._events: list[tuple[str, str]] = []
        self._learned: int | None = None
        self.signs = 0
        self.loaded = False

    def now(self, wait: bool = True) -> float:
        self.signs += 1
        return self._meters.now(wait)

    def batch(self, rows: int, prompt_tokens: int, generated_tokens: int, padded_tokens: int) -> None:
        self.signs += 1
        with self._lock:
            self._batches.append((rows, prompt_tokens, generated_tokens, padded_tokens))

    def event(self, name: str, detail: str) -> None:
        with self._lock:
            self._events.append((name, detail))

    def token(self, _request: Request, _token_id: int) -> None:
        self.signs += 1

    def learn(self, tokens: int) -> None:
        with self._lock:
            self._learned = tokens

    def answer(self, completion: Completion) -> None:
        """Sent with others, by the next `flush`."""
        one = completion
        answer = Answer(
            one.request.key, one.token_ids, one.text, one.finish_reason, one.timings, one.logprobs, one.error,
            one.usage, one.message, one.note,
        )  # fmt: skip
        with self._lock:
            self._answers.append(answer)

    def flush(self) -> None:
        with self._lock:
            if not (self._answers or self._batches or self._events or self._learned):
                return
            told = (tuple(self._answers), tuple(self._batches), tuple(self._events))
            self._answers, self._batches, self._events = [], [], []
            learned, self._learned = self._learned, None
            self._send(Answers(*told, learned, self._meters.elapsed))

    def send(self, message: FromReplica) -> None:
        with self._lock:
            self._send(message)


class _PulledFeed(Feed):
    """A feed that is filled by the run. Before the engine takes more, what it answered is sent."""

    def __init__(self, reports: _Reports):
        super().__init__(iter(()), look_ahead=1, open_ended=True)
        self._reports = reports
        self.idle_seconds = 0.0
        """How long the engine waited for requests."""

    def take(self, count: int) -> list[Request]:
        self._report()
        return self._started(super().take(count))

    def choose(self, pick: Pick) -> list[Request]:
        self._report()
        return self._started(super().choose(pick))

    def _report(self) -> None:
        self._reports.signs += 1
        self._reports.flush()

    def _started(self, requests: list[Request]) -> list[Request]:
        if requests:
            self._reports.send(Started(tuple(request.key for request in requests)))
        return requests

    def wait(self, seconds: float) -> None:
        began = time.perf_counter()
        super().wait(min(seconds, _SECONDS_BETWEEN_BEATS))
        self.idle_seconds += time.perf_counter() - began


def _require_same_versions(wanted: Mapping[str, str]) -> None:
    """Raises EnvironmentFault where this machine has other versions than the run's."""
    other = difference(wanted, versions())
    if other is not None:
        raise EnvironmentFault(f"{platform.node()} has {other}: install the same on all machines")


def _require_same_files(wanted: Mapping[str, Any], section: ModelSection) -> None:
    """Raises EnvironmentFault where the model's files on this machine are not those of the run's."""
    try:
        here = model_identity(section)
    except UsageError as error:
        raise EnvironmentFault(f"{platform.node()} lacks the model: {error}") from error
    different = [name for name in wanted if wanted[name] != here.get(name)]
    if different:
        raise EnvironmentFault(
            f"the model {wanted.get('name')} on {platform.node()} is another than where the run was started "
            f"({', '.join(different)} differ): copy the same files to all machines"
        )


def _require_device() -> None:
    """Raises DeviceLost where the accelerator of this process fails at anything, not at one request."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except RuntimeError as error:
        words = str(error).strip().splitlines() or ["no message"]
        raise DeviceLost(f"{torch.cuda.get_device_name()} failed: {words[0]}") from error


def serve(messages: Iterator[ToReplica], send: Send, gone: Callable[[], None]) -> None:
    """Do what the messages say, the first of which is `Begin`; `gone` is called when they end."""
    begin = next(messages, None)
    if not isinstance(begin, Begin):
        return
    sys.path[:] = [*sys.path, *(path for path in begin.path if path not in sys.path)]
    worker = Worker(send)

    def listen() -> None:
        for message in messages:
            worker.handle(message)
        gone()

    threading.Thread(target=listen, name="messages", daemon=True).start()
    worker.run(begin)
