"""What an attempt came to, and when a request is sent again. The only place that knows statuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from batchchat.engines.endpoint.address import chat_url, text_url, with_version
from batchchat.engines.endpoint.limits import pause_seconds
from batchchat.engines.endpoint.options import EndpointOptions

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
_WORDS = 300
"""Characters of the server's own words that are shown."""

Failure = Literal["unreachable", "untrusted", "broken", "late", "large"]
"""No connection; a certificate that does not verify; a connection that ended early; time is up; too many bytes."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request over the wire: what came back, or why nothing did. Seconds are on the run's clock."""

    sent: float
    ended: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: Failure | None = None
    words: str = ""
    """What the system said of the failure."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, whatever it says."""

    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The request itself is at fault: it costs its row. `paid`: the server may have answered it all the same."""

    reason: str
    paid: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """It may go better another time. `limit`: there were too many requests. `pause`: seconds that the server asked for.
    `reached`: the server may have worked on the request. `gone`: there was no server."""

    reason: str
    limit: bool = False
    pause: float | None = None
    reached: bool = True
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """No request will go better; the run ends and can be resumed."""

    reason: str


Verdict = Answered | Refused | Again | Stop


def back_off(attempts: int, chance: float) -> float:
    """Seconds before a request is sent again that was sent `attempts` times: twice as long each time, of which `chance`
    (0 to 1) takes up to a half away, so that requests that failed together do not come back together."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempts - 1)) * (1.0 - chance / 2))


def judge(attempt: Attempt, options: EndpointOptions, now: datetime, is_chat: bool = True) -> Verdict:
    """What an attempt came to; `is_chat` says where it was sent."""
    if attempt.failure is not None:
        return _failed(attempt, options)
    status = attempt.status
    assert status is not None, "what did not fail has a status"
    if 200 <= status < 300:
        return _answered(attempt)
    words = server_words(attempt)
    if 300 <= status < 400:
        where = attempt.headers.get("location", "(it does not say where)")[:_WORDS]
        return Stop(
            f"{options.url} sends its clients elsewhere ({status}, to {where}), where the key is not taken without "
            "your word; set engine.endpoint.url to where the server is"
        )
    if status in (401, 403):
        return Stop(_denied(status, words, options))
    if status in (404, 405):
        return Stop(_absent(status, words, options, is_chat))
    if status == 429 and "insufficient_quota" in words:
        return Stop(f"{options.url} has no money left for this key ({words}); fill the account up")
    if status in (408, 429) or (status >= 500 and status != 501):
        said = f"the server answered {status}: {words}"
        pause = pause_seconds(attempt.headers, now) if status in (429, 503) else None
        return Again(said, limit=status == 429, pause=pause, reached=status not in (429, 503))
    return Refused(f"the server refused the request ({status}): {words}")


def server_words(attempt: Attempt) -> str:
    """What an answer says, in one line: the message of its error, else its beginning."""
    data = _json(attempt.body)
    found: Any = data
    for key in ("error", "message"):
        if isinstance(found, Mapping) and found.get(key):
            found = found[key]
    if isinstance(data, Mapping) and isinstance(data.get("error"), Mapping) and data["error"].get("code"):
        found = f"{found} ({data['error']['code']})"
    text = found if isinstance(found, str) else attempt.body[: 4 * _WORDS].decode("utf-8", "replace")
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return f"{line[:_WORDS]}…" if len(line) > _WORDS else line or "(nothing)"


def _answered(attempt: Attempt) -> Verdict:
    data = _json(attempt.body)
    if isinstance(data, Mapping) and isinstance(data.get("choices"), list) and data["choices"]:
        return Answered(data)
    words = server_words(attempt)
    if isinstance(data, Mapping) and data.get("error"):
        return Refused(f"the server answered with an error: {words}")
    kind = attempt.headers.get("content-type", "no type").partition(";")[0]
    what = "JSON without an answer" if data is not None else f"{kind} that is no JSON"
    return Again(f"the server answered with {what}: {words}")


def _failed(attempt: Attempt, options: EndpointOptions) -> Verdict:
    match attempt.failure:
        case "untrusted":
            return Stop(
                f"the certificate of {options.url} does not verify ({attempt.words}); set engine.endpoint.verify to a "
                "file with the authority that signed it"
            )
        case "unreachable":
            return Again(f"{options.url} cannot be reached: {attempt.words}", reached=False, gone=True)
        case "late":
            return Again(f"the server took too long: {attempt.words}")
        case "large":
            return Refused(f"the server's answer is too large: {attempt.words}", paid=True)
    return Again(f"the connection to the server broke: {attempt.words}")


def _denied(status: int, words: str, options: EndpointOptions) -> str:
    if options.api_key_env is None:
        advice = "set engine.endpoint.api_key_env to the name of the environment variable that holds its key"
    else:
        advice = f"put a valid key into the environment variable {options.api_key_env}"
    return f"{options.url} does not let this run in ({status}: {words}); {advice}"


def _absent(status: int, words: str, options: EndpointOptions, is_chat: bool) -> str:
    versioned = with_version(options.url)
    advice = f"set engine.endpoint.url={versioned}, or " if versioned is not None else ""
    url = chat_url(options.url, options.prompts) if is_chat else text_url(options.url)
    return (
        f"{url} answers {status}: {words}; {advice}check engine.endpoint.url and model.name, which "
        "is the model's name at the server"
    )


def _json(body: bytes) -> Any:
    """The value of a body; None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
