"""The provider's Batch API: requests go as a file, and answers come as one, perhaps hours later and for less money.

A batch is known by its id, which is kept in the run store, so that a run that was ended meanwhile goes on waiting for
it instead of asking again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import IO, Any

import httpcore2

from batchchat.chats import Request
from batchchat.engines.endpoint.address import path_url
from batchchat.engines.endpoint.connection import Server
from batchchat.engines.endpoint.retry import Again, Answered, Attempt, Verdict, judge, server_words
from batchchat.errors import EnvironmentFault

_ENDPOINT = "/v1/chat/completions"
_WINDOW = "24h"
_BOUNDARY = "batchchat-5f0e6c1d9a"
_MOST_BYTES = 100 * 2**20
"""Of one file of requests; providers take 100 or 200 MB."""
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(eq=False)
class Item:
    """A request in a batch."""

    request: Request
    body: bytes
    highest_cost: float
    queued: float
    attempts: int = 0

    @property
    def name(self) -> str:
        """By which its answer is found again: the same for the same request of a resumed run."""
        digest = blake2b(self.body, digest_size=8).hexdigest()
        index, sample, turn = self.request.key
        return f"{index}-{sample}-{turn}-{digest}"


@dataclass(frozen=True)
class Result:
    """What a batch says of one of its requests."""

    name: str
    attempt: Attempt
    verdict: Verdict


@dataclass
class Pending:
    """Requests that wait for a batch, as the lines of a file."""

    most: int
    items: dict[str, Item] = field(default_factory=dict)
    size: int = 0

    def add(self, item: Item) -> None:
        self.items[item.name] = item
        self.size += len(item.body) + 200

    @property
    def room(self) -> int:
        """Requests that may be added."""
        return 0 if self.size >= _MOST_BYTES else max(0, self.most - len(self.items))

    def take(self) -> list[Item]:
        taken, self.items, self.size = list(self.items.values()), {}, 0
        return taken


class BatchClient:
    """Uploads, asks and fetches. Every method raises EnvironmentFault where the provider does not do it."""

    def __init__(self, server: Server):
        self._server = server
        self._options = server.options
        self._clock = server.clock

    def submit(self, items: list[Item]) -> str:
        """The id of a new batch."""
        lines = b"".join(_line(item) + b"\n" for item in items)
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        file = self._ask("POST", "/files", _multipart(lines), kind)
        values = {"input_file_id": file["id"], "endpoint": _ENDPOINT, "completion_window": _WINDOW}
        return str(self._ask("POST", "/batches", json.dumps(values).encode())["id"])

    def wait(self, batch: str) -> Mapping[str, Any]:
        """The batch as soon as it has ended."""
        while True:
            found = self._ask("GET", f"/batches/{batch}")
            if found.get("status") in _ENDED:
                return found
            time.sleep(self._options.batch_poll_seconds)

    def results(self, batch: Mapping[str, Any]) -> Iterator[Result]:
        """What became of its requests, in no order. Of those that it says nothing of, nothing comes."""
        for key in ("output_file_id", "error_file_id"):
            if batch.get(key):
                with tempfile.TemporaryFile() as file:
                    self._fetch(str(batch[key]), file)
                    file.seek(0)
                    yield from (result for line in file if line.strip() and (result := self._read(line)) is not None)

    def why(self, batch: Mapping[str, Any]) -> str:
        """Why a batch has no answers."""
        errors = batch.get("errors")
        data = errors.get("data") if isinstance(errors, Mapping) else None
        said = [str(error.get("message")) for error in data or () if isinstance(error, Mapping)]
        return f"the batch {batch.get('id')} ended as {batch.get('status')}" + (f": {said[0]}" if said else "")

    def _read(self, line: bytes) -> Result | None:
        try:
            data = json.loads(line)
            name, response = data["custom_id"], data.get("response")
        except (ValueError, KeyError, TypeError):
            return None
        now = self._clock()
        if isinstance(response, Mapping):
            body = json.dumps(response.get("body")).encode("utf-8", "surrogatepass")
            attempt = Attempt(now, now, response.get("status_code") or 500, {}, body)
            return Result(name, attempt, judge(attempt, self._options, datetime.now(UTC)))
        words = server_words(Attempt(now, now, 500, {}, line))
        return Result(name, Attempt(now, now), Again(f"the batch did not answer it: {words}"))

    def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> Mapping[str, Any]:
        """The object that is answered. What fails for the moment is asked again, but for a batch that the provider may
        have begun."""
        headers, reason = self._server.headers(None if body is None else kind), ""
        for attempts in range(self._options.retries + 1):
            with closing(self._server.connect()) as connection:
                attempt = connection.send(method, self._url(path), headers, body)
            found = _object(attempt)
            if found is not None:
                return found
            verdict = judge(attempt, self._options, datetime.now(UTC))
            if not isinstance(verdict, Again):
                why = "it answers without an id" if isinstance(verdict, Answered) else verdict.reason
                raise EnvironmentFault(f"the server's Batch API cannot be used: {why}")
            reason = verdict.reason
            if path == "/batches" and verdict.reached:
                break
            if attempts < self._options.retries:
                time.sleep(verdict.pause or self._options.batch_poll_seconds)
        raise EnvironmentFault(f"{reason}; run the same command again when the server is well")

    def _fetch(self, file_id: str, file: IO[bytes]) -> None:
        url = self._url(f"/files/{file_id}/content")
        for attempts in range(self._options.retries + 1):
            file.seek(0)
            file.truncate()
            with closing(self._server.connect()) as connection:
                attempt = connection.send("GET", url, self._server.headers(None), sink=file)
            if attempt.status == 200:
                return
            if attempts < self._options.retries:
                time.sleep(self._options.batch_poll_seconds)
        raise EnvironmentFault(f"the answers at {url} cannot be fetched: {attempt.words or server_words(attempt)}")

    def _url(self, path: str) -> httpcore2.URL:
        return httpcore2.URL(path_url(self._options.url, path))


def _object(attempt: Attempt) -> Mapping[str, Any] | None:
    """The object with an id that was answered, if one was."""
    if attempt.status is None or not 200 <= attempt.status < 300:
        return None
    try:
        data = json.loads(attempt.body)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and isinstance(data.get("id"), str) else None


def _line(item: Item) -> bytes:
    head = json.dumps({"custom_id": item.name, "method": "POST", "url": _ENDPOINT}).encode()
    return head[:-1] + b', "body": ' + item.body + b"}"


def _multipart(lines: bytes) -> bytes:
    """A form with the file and what it is for."""
    parts = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{_BOUNDARY}\r\n'
        'Content-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return parts.encode() + lines + f"\r\n--{_BOUNDARY}--\r\n".encode()
