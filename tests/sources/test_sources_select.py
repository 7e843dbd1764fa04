"""Limit, sample and shuffle: what is chosen depends on the seed and the input, and on nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.chats import Place, RowError, SourceRow
from batchchat.errors import EnvironmentFault
from batchchat.sources import Item, select

PINNED_SHUFFLE = [3, 12, 15, 0, 8, 6]


def rows(count: int) -> Iterator[Item]:
    for number in range(count):
        place = Place("rows.jsonl", number + 1)
        if number % 7 == 3:
            yield RowError(number, place, "bad", "{")
        else:
            yield SourceRow(number, place, {"n": number, "t": "\ud800", "b": b"x"})


def numbers(chosen: Iterator[Item]) -> list[int]:
    return [item.number for item in chosen]


@settings(deadline=None)
@given(
    count=st.integers(0, 60),
    limit=st.none() | st.integers(1, 70),
    sample=st.none() | st.integers(1, 70),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_choice(count: int, limit: int | None, sample: int | None, shuffle: bool, seed: int) -> None:
    chosen = list(select(rows(count), limit=limit, sample=sample, shuffle=shuffle, seed=seed))
    everything = list(rows(count))
    assert all(item == everything[item.number] for item in chosen), "rows come out as they went in"
    found = numbers(iter(chosen))
    assert len(found) == len(set(found)) == min(count, limit or count, sample or count)
    assert found == numbers(select(rows(count), limit=limit, sample=sample, shuffle=shuffle, seed=seed))
    if not shuffle:
        assert found == sorted(found)

    # The same, step by step.
    step = rows(count)
    if sample is not None:
        step = select(step, sample=sample, seed=seed)
    if shuffle:
        step = select(step, shuffle=True, seed=seed)
    assert found == numbers(select(step, limit=limit))


def test_a_larger_sample_contains_a_smaller_one() -> None:
    small = set(numbers(select(rows(500), sample=20, seed=1)))
    large = set(numbers(select(rows(500), sample=50, seed=1)))
    assert small < large
    assert small != set(numbers(select(rows(500), sample=20, seed=2)))


def test_the_choice_is_known() -> None:
    """Pinned: a run that is resumed by a later version must choose the same rows."""
    assert numbers(select(rows(20), shuffle=True, seed=0, limit=6)) == PINNED_SHUFFLE
    assert numbers(select(rows(20), sample=6, seed=0)) == sorted(PINNED_SHUFFLE)


def test_a_shuffle_reaches_everywhere() -> None:
    """Each row stands in the first half about half of the time: within 5 standard deviations."""
    first_half = [0] * 40
    for seed in range(400):
        for number in numbers(select(rows(40), shuffle=True, limit=20, seed=seed)):
            first_half[number] += 1
    assert all(150 < times < 250 for times in first_half)


def test_a_limit_reads_no_further() -> None:
    taken = []

    def counted() -> Iterator[Item]:
        for row in rows(100):
            taken.append(row.number)
            yield row

    assert numbers(select(counted(), limit=3)) == taken == [0, 1, 2]


def test_no_room_for_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: object, **options: object) -> sqlite3.Connection:
        spool = connect(*args, **options)  # type: ignore[call-overload]
        spool.execute("PRAGMA max_page_count = 20")
        return spool

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(EnvironmentFault, match="set TMPDIR to a larger one"):
        list(select(rows(10_000), shuffle=True))
