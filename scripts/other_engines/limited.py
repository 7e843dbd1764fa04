"""A server that lets so many requests through in each second: its log shows how many are sent at once and how often."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from scripts.other_engines.job import RECIPE, Place, endpoint
from scripts.parts import require
from tests.support.chat_server import Asked, ChatServer, Said, echo, fault

_ROWS = 1500
_PER_SECOND = 60
_ANSWER_SECONDS = 0.2
_RETRIES = 8


def show(place: Place) -> Iterator[str]:
    second: Counter[int] = Counter()
    answered: Counter[str] = Counter()

    async def limited(asked: Asked) -> Said:
        second[int(asked.at)] += 1
        if second[int(asked.at)] > _PER_SECOND:
            return fault(429, "slow down", retry_after="1")
        await asyncio.sleep(_ANSWER_SECONDS)
        answered[asked.question] += 1
        return await echo(asked)

    chats = ({"id": f"q{n}", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(_ROWS))
    source = place.write("in.jsonl", chats)
    with ChatServer(limited) as server:
        options = endpoint(server.url, retries=_RETRIES)
        where = [f"source.path={source}", "model.name=served", f"sink.directory={place.folder}/run"]
        seconds = place.call("run", RECIPE, *where, *options, "-q")
        asked = list(server.asked)
    report = place.report("run")
    often = Counter(one.question for one in asked)
    require(report["rows"]["answered"] == _ROWS, f"{report['rows']} of {_ROWS}")
    require(max(often.values()) <= _RETRIES + 1, f"a request was sent {max(often.values())} times")
    require(set(answered.values()) == {1}, "a request was answered twice")
    yield f"{_ROWS:,} of {_ROWS:,} in {seconds:.1f} s; at {_PER_SECOND} a second they take {_ROWS / _PER_SECOND:.0f}"
    yield f"{report['engine']['refusals']} refusals; no request sent more than {max(often.values())} times"
    most: Counter[int] = Counter()
    for one in asked:
        passed = int(one.at - asked[0].at)
        most[passed] = max(most[passed], one.in_flight)
    curve = " ".join(str(most[passed]) for passed in range(max(most) + 1))
    limits = " ".join(f"{one['limit']}@{one['seconds']:.1f}" for one in report["engine"]["concurrency"])
    yield f"most in flight in each second, by the server's log: {curve}"
    yield f"limits and their seconds, by the report: {limits}"
