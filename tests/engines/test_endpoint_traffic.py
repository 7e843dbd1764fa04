"""Which request is sent when: headers, back-off, concurrency, pace and cost, on a clock of their own."""

from __future__ import annotations

import heapq
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Request, Settings, Usage
from batchchat.engines.endpoint.concurrency import COOL_DOWN_SECONDS, Concurrency
from batchchat.engines.endpoint.cost import Ledger, cost_of, highest_cost
from batchchat.engines.endpoint.limits import pause_seconds, read_wait
from batchchat.engines.endpoint.options import EndpointOptions, Prices
from batchchat.engines.endpoint.pace import Pace
from batchchat.engines.endpoint.retry import (
    LONGEST_PAUSE,
    Again,
    Answered,
    Attempt,
    Refused,
    Stop,
    back_off,
    judge,
)
from batchchat.engines.endpoint.traffic import Job, Traffic
from tests.support.chat_server import completion

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
OPTIONS = EndpointOptions(url="http://localhost:8000/v1")
GOOD = json.dumps(completion("fine")).encode()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12.0),
        ("0.5", 0.5),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("1h2m3.5s", 3723.5),
        ("6m0s", 360.0),
        ("120µs", 1.2e-4),
        ("2026-05-04T12:01:00Z", 60.0),
        ("2026-05-04T12:01:00", 60.0),
        ("Mon, 04 May 2026 12:00:30 GMT", 30.0),
        (str(NOW.timestamp() + 7), 7.0),
        ("1000000", 86400.0),
        ("-1", None),
        ("0", None),
        ("0s", None),
        ("", None),
        ("soon", None),
        ("2026-05-04T11:59:00Z", None),
        ("nan", None),
    ],
)
def test_waits_are_read_in_every_spelling(text: str, seconds: float | None) -> None:
    assert read_wait(text, NOW) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=30))
def test_whatever_a_header_says_it_is_a_wait_of_up_to_a_day_or_none(text: str) -> None:
    found = read_wait(text, NOW)
    assert found is None or 0 < found <= 86400


def test_retry_after_counts_before_the_largest_reset() -> None:
    resets = {
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "1m30s",
        "x-ratelimit-limit-tokens": "9e9",
    }
    assert pause_seconds(resets, NOW) == 90.0
    assert pause_seconds({**resets, "retry-after": "3"}, NOW) == 3.0
    assert pause_seconds({**resets, "retry-after": "3", "retry-after-ms": "250"}, NOW) == 0.25
    assert pause_seconds({**resets, "retry-after": "-1"}, NOW) == 90.0
    soon = (NOW + timedelta(seconds=5)).isoformat()
    assert pause_seconds({"anthropic-ratelimit-tokens-reset": soon, "x-ratelimit-reset-requests": "-1"}, NOW) == 5.0
    assert pause_seconds({"x-ratelimit-reset-requests": "0"}, NOW) is None


@pytest.mark.parametrize(
    ("attempt", "kind", "words"),
    [
        ({"status": 200, "body": GOOD}, Answered, ""),
        ({"status": 400, "body": b'{"error": {"message": "too long"}}'}, Refused, "too long"),
        ({"status": 422, "body": b'{"error": "no such role"}'}, Refused, "no such role"),
        ({"status": 400, "body": b'{"message": "bad"}'}, Refused, "bad"),
        ({"status": 413, "body": b""}, Refused, "(nothing)"),
        ({"status": 501, "body": b"no"}, Refused, "no"),
        ({"status": 401, "body": b"{}"}, Stop, "api_key_env"),
        ({"status": 403, "body": b"{}"}, Stop, "api_key_env"),
        ({"status": 404, "body": b"{}"}, Stop, "model.name"),
        ({"status": 405, "body": b"{}"}, Stop, "engine.endpoint.url"),
        ({"status": 307, "headers": {"location": "http://else/"}}, Stop, "http://else/"),
        ({"status": 429, "body": b'{"error": {"message": "pay", "code": "insufficient_quota"}}'}, Stop, "pay"),
        ({"status": 429, "body": b"slow down"}, Again, "slow down"),
        ({"status": 408}, Again, "408"),
        ({"status": 500, "body": b"<html>\x1b[31moops"}, Again, "oops"),
        ({"status": 503}, Again, "503"),
        ({"status": 200, "body": b"<html>", "headers": {"content-type": "text/html; charset=x"}}, Again, "text/html"),
        ({"status": 200, "body": GOOD[:40]}, Again, "no JSON"),
        ({"status": 200, "body": b'{"choices": []}'}, Again, "without an answer"),
        ({"status": 200, "body": b"[" * 5000}, Again, "no JSON"),
        ({"status": 200, "body": b'{"error": {"message": "overloaded", "code": 1}}'}, Refused, "overloaded"),
        ({"failure": "unreachable", "words": "refused"}, Again, "cannot be reached"),
        ({"failure": "untrusted", "words": "self-signed"}, Stop, "engine.endpoint.verify"),
        ({"failure": "broken"}, Again, "broke"),
        ({"failure": "late"}, Again, "too long"),
        ({"failure": "large"}, Refused, "too large"),
    ],
)
def test_what_an_attempt_comes_to(attempt: dict[str, Any], kind: type, words: str) -> None:
    verdict = judge(Attempt(0.0, 1.0, **attempt), OPTIONS, NOW)
    assert isinstance(verdict, kind)
    said = "" if isinstance(verdict, Answered) else verdict.reason
    assert words in said
    assert said.isprintable()


def test_a_refusal_of_the_key_names_the_variable_and_one_of_the_path_the_address() -> None:
    keyed = OPTIONS.model_copy(update={"api_key_env": "MY_KEY"})
    denied = judge(Attempt(0, 1, status=401), keyed, NOW)
    assert isinstance(denied, Stop)
    assert "MY_KEY" in denied.reason
    bare = OPTIONS.model_copy(update={"url": "http://localhost:8000"})
    absent = judge(Attempt(0, 1, status=404), bare, NOW)
    assert isinstance(absent, Stop)
    assert "engine.endpoint.url=http://localhost:8000/v1" in absent.reason


@given(st.integers(1, 30), st.floats(0, 1))
def test_pauses_double_up_to_a_limit(attempts: int, chance: float) -> None:
    pause = back_off(attempts, chance)
    whole = min(LONGEST_PAUSE, 0.5 * 2 ** (attempts - 1))
    assert whole / 2 <= pause <= whole


def test_concurrency_doubles_until_it_is_refused_and_then_grows_slowly() -> None:
    limits = Concurrency(ceiling=1000)
    for _ in range(4 + 8 + 16 + 32):
        limits.answered(1.0, limits.limit)
    assert limits.limit == 64
    limits.refused(2.0, sent=1.5)
    limits.refused(2.1, sent=1.9)  # it was sent before the cut, and says the same thing
    assert limits.limit == 51
    limits.refused(2.2, sent=2.05)
    assert limits.limit == 40
    for _ in range(40):
        limits.answered(3.0, limits.limit)
    assert limits.limit == 40, "it rests after a cut"
    for _ in range(40):
        limits.answered(3.0 + COOL_DOWN_SECONDS, limits.limit)
    assert limits.limit == 42
    assert [change.why for change in limits.changes[-3:]] == ["refused", "refused", "round"]


def test_trouble_and_idle_lines_are_no_reason_to_grow() -> None:
    limits = Concurrency(ceiling=100)
    limits.troubled(1.0)
    for _ in range(20):
        limits.answered(2.0, 4)
    assert limits.limit == 4
    for _ in range(20):
        limits.answered(1.0 + COOL_DOWN_SECONDS, 1)
    assert limits.limit == 4


@given(st.lists(st.tuples(st.sampled_from(["answered", "refused", "troubled"]), st.floats(0, 20)), max_size=400))
def test_concurrency_stays_between_one_and_its_ceiling(events: list[tuple[str, float]]) -> None:
    limits, now = Concurrency(ceiling=50), 0.0
    for event, seconds in events:
        now += seconds
        if event == "answered":
            limits.answered(now, limits.limit)
        elif event == "refused":
            limits.refused(now, now - 1)
        else:
            limits.troubled(now)
        assert 1 <= limits.limit <= 50
        assert len(limits.changes) <= 201


@given(st.integers(1, 6000), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_minute_sees_more_than_its_pace(per_minute: int, gaps: list[float]) -> None:
    pace, now, sent = Pace(per_minute), 0.0, []
    for gap in gaps:
        now += gap
        now += pace.wait(now)
        pace.sent(now, 1)
        sent.append(now)
    for first in range(0, len(sent), 7):
        within = [at for at in sent[first:] if at < sent[first] + 60]
        assert len(within) <= per_minute * (1 + 1 / 60) + 2


def test_cost_counts_cached_tokens_at_their_price_and_the_bound_is_above_it() -> None:
    prices = Prices(input=2.0, output=8.0, cached_input=0.5)
    assert cost_of(prices, Usage(1000, 100, cached_tokens=400)) == pytest.approx((600 * 2 + 400 * 0.5 + 800) / 1e6)
    assert highest_cost(prices, b"x" * 1000, 100) >= cost_of(prices, Usage(1000, 100))
    ledger = Ledger(max_cost=1.0)
    ledger.set_aside(0.7)
    assert not ledger.affords(0.4)
    ledger.settle(0.7, spent=0.1)
    assert ledger.affords(0.4)


def job(number: int, cost: float = 0.0) -> Job:
    return Job(Request(f"c{number}", number, 0, 0, (), Settings(8), 0), b"{}", cost, 0.0, tokens=10)


class Simulation:
    """A server that lets so many requests through each second and refuses the others, on a clock of its own."""

    def __init__(self, traffic: Traffic, per_second: int, fails: frozenset[int] = frozenset(), broken: bool = False):
        self.traffic, self.per_second, self.fails, self.broken = traffic, per_second, fails, broken
        self.now = 0.0
        self.flying: list[tuple[float, int, Job, float, Attempt]] = []
        self.seen: dict[int, int] = {}
        self.sent = 0

    def run(self, jobs: list[Job]) -> list[Job]:
        done: list[Job] = []
        for one in jobs:
            self.traffic.add(one)
        while not self.traffic.stopped or self.flying:
            found = self.traffic.take(self.now)
            while isinstance(found, Job):
                self._send(found)
                found = self.traffic.take(self.now)
            assert self.traffic.in_flight == len(self.flying) <= self.traffic.concurrency.limit
            next_end = self.flying[0][0] if self.flying else float("inf")
            until = min(next_end, self.now + max(found, 1e-6))
            if until == float("inf"):
                self.traffic.end()
                done += self.traffic.done
                self.traffic.done.clear()
                return done
            self.now = until
            while self.flying and self.flying[0][0] <= self.now:
                ended, _, one, _, attempt = heapq.heappop(self.flying)
                self.traffic.settle(one, replace(attempt, ended=ended), NOW)
                if isinstance(one.verdict, Answered):
                    self.traffic.pay(one, one.highest_cost / 2)
            done += self.traffic.done
            self.traffic.done.clear()
        return done

    def _send(self, one: Job) -> None:
        second = int(self.now)
        self.seen[second] = self.seen.get(second, 0) + 1
        if self.broken:
            said: dict[str, Any] = {"failure": "unreachable", "words": "connection refused"}
        elif one.request.index in self.fails:
            said = {"status": 500, "body": b"boom"}
        elif self.seen[second] > self.per_second:
            said = {"status": 429, "headers": {"retry-after": "1"}}
        else:
            said = {"status": 200, "body": GOOD}
        takes = 0.5 if said.get("status") == 200 else 0.02
        self.sent += 1
        heapq.heappush(self.flying, (self.now + takes, self.sent, one, self.now, Attempt(self.now, 0.0, **said)))


@given(st.integers(5, 60), st.integers(1, 200), st.integers(1, 100))
def test_under_a_rate_limit_every_request_is_answered_once_within_its_budget(
    per_second: int, jobs: int, ceiling: int
) -> None:
    options = OPTIONS.model_copy(update={"max_in_flight": ceiling, "retries": 12})
    traffic = Traffic(options, Ledger())
    done = Simulation(traffic, per_second).run([job(n) for n in range(jobs)])
    assert traffic.stopped is None
    assert sorted(one.request.index for one in done) == list(range(jobs))
    assert all(isinstance(one.verdict, Answered) and one.attempts <= 13 for one in done)


def test_a_ceiling_of_tokens_a_minute_holds() -> None:
    """Each takes ten."""
    traffic = Traffic(OPTIONS.model_copy(update={"tokens_per_minute": 600}), Ledger())
    simulation = Simulation(traffic, 1000)
    assert len(simulation.run([job(n) for n in range(120)])) == 120
    assert 120 - 1 <= simulation.now + 1 <= 122
    assert max(simulation.seen.values()) <= 2


@given(st.sets(st.integers(0, 40), max_size=7))
def test_requests_that_fail_alone_cost_themselves(fails: set[int]) -> None:
    traffic = Traffic(OPTIONS.model_copy(update={"retries": 2}), Ledger())
    done = Simulation(traffic, 1000, frozenset(fails)).run([job(n) for n in range(41)])
    assert traffic.stopped is None
    assert {one.request.index for one in done if isinstance(one.verdict, Refused)} == fails
    assert len(done) == 41
    assert all(one.attempts == 3 for one in done if one.request.index in fails)


def test_a_server_that_fails_for_all_ends_the_run_without_costing_a_row() -> None:
    traffic = Traffic(OPTIONS.model_copy(update={"retries": 1}), Ledger())
    assert Simulation(traffic, 1000, frozenset(range(50))).run([job(n) for n in range(50)]) == []
    assert "nothing but errors" in str(traffic.stopped)
    patient = Traffic(OPTIONS.model_copy(update={"retries": 1, "stop_after": 0}), Ledger())
    assert len(Simulation(patient, 1000, frozenset(range(50))).run([job(n) for n in range(50)])) == 50


def test_a_server_that_is_gone_ends_the_run_at_the_first_request_without_a_retry_left() -> None:
    traffic = Traffic(OPTIONS.model_copy(update={"retries": 3}), Ledger())
    simulation = Simulation(traffic, 1000, broken=True)
    assert simulation.run([job(0)]) == []
    assert "cannot be reached" in str(traffic.stopped)
    assert simulation.sent == 4


@given(st.floats(0.5, 20.0), st.integers(1, 40))
def test_the_ceiling_of_the_cost_holds_whatever_is_in_flight(max_cost: float, jobs: int) -> None:
    ledger = Ledger(max_cost)
    traffic = Traffic(OPTIONS, ledger)
    done = Simulation(traffic, 1000).run([job(n, cost=1.0) for n in range(jobs)])
    assert ledger.spent == pytest.approx(len(done) * 0.5)
    assert ledger.spent <= max_cost
    assert len(done) == jobs or (traffic.broke and ledger.spent + 1.0 > max_cost)
