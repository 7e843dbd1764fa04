"""The feed: nothing lost, nothing twice, longest first, bounded look-ahead."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Request, Settings
from batchchat.schedule import Feed, request_seed

SETTINGS = Settings(max_new_tokens=1)


def request(index: int, length: int, turn: int = 0) -> Request:
    return Request(f"c{index}", index, 0, turn, tuple(range(length)), SETTINGS, seed=0)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 20), st.data())
def test_conservation_with_later_turns(lengths: list[int], look_ahead: int, data: st.DataObject) -> None:
    turns = {index: data.draw(st.integers(1, 3)) for index in range(len(lengths))}
    feed = Feed((request(index, length) for index, length in enumerate(lengths)), look_ahead)
    taken: list[tuple[int, int]] = []
    while not feed.exhausted:
        for got in feed.take(data.draw(st.integers(1, 7))):
            taken.append((got.index, got.turn))
            if got.turn + 1 < turns[got.index]:
                feed.put(request(got.index, len(got.prompt_ids) + 3, got.turn + 1))
    assert sorted(taken) == sorted((index, turn) for index, count in turns.items() for turn in range(count))
    assert feed.take(5) == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 40))
def test_longest_of_the_look_ahead_first(lengths: list[int], look_ahead: int) -> None:
    feed = Feed((request(index, length) for index, length in enumerate(lengths)), look_ahead)
    (first,) = feed.take(1)
    window = lengths[:look_ahead]
    assert (len(first.prompt_ids), first.index) == (max(window), window.index(max(window)))


def test_the_stream_is_read_no_further_than_the_look_ahead() -> None:
    read = []

    def stream() -> object:
        for index in range(1000):
            read.append(index)
            yield request(index, 1)

    feed = Feed(stream(), look_ahead=10)  # type: ignore[arg-type]
    feed.take(3)
    assert len(read) == 10
    assert not feed.exhausted


def test_on_take_hears_how_many_are_handed_out() -> None:
    heard: list[int] = []
    feed = Feed(iter([request(0, 1), request(1, 2)]), 8, on_take=heard.append)
    feed.take(5)
    feed.take(5)
    assert heard == [2, 0]


def test_an_open_feed_waits_for_what_comes_from_another_thread() -> None:
    feed = Feed(iter(()), 4, open_ended=True)
    assert feed.take(1) == []
    assert not feed.exhausted
    late = threading.Timer(0.05, lambda: feed.put(request(0, 1)))
    late.start()
    began = time.monotonic()
    feed.wait(10)
    assert time.monotonic() - began < 5
    assert [got.index for got in feed.take(1)] == [0]
    feed.close()
    assert feed.exhausted


@given(st.integers(0, 2**63 - 1), st.text(st.characters()), st.integers(0, 99), st.integers(0, 99))
def test_a_seed_depends_on_all_its_parts(seed: int, chat: str, sample: int, turn: int) -> None:
    one = request_seed(seed, chat, sample, turn)
    assert 0 <= one < 2**64
    assert one == request_seed(seed, chat, sample, turn)
    others = {
        request_seed(seed + 1, chat, sample, turn),
        request_seed(seed, chat + "x", sample, turn),
        request_seed(seed, chat, sample + 1, turn),
        request_seed(seed, chat, sample, turn + 1),
    }
    assert one not in others
    assert len(others) == 4


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 10))
def test_what_is_not_chosen_stays_ready(lengths: list[int], look_ahead: int) -> None:
    feed = Feed((request(index, length) for index, length in enumerate(lengths)), look_ahead)
    seen = []
    while not feed.exhausted:
        # The shortest of those ready, wherever it stands among them.
        chosen = feed.choose(lambda ready: (ready[-1:], ready[:-1]))
        seen += [got.index for got in chosen]
    assert sorted(seen) == list(range(len(lengths)))
