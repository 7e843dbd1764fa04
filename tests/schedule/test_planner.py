"""Which requests share a padded batch."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Request
from batchchat.schedule import Sharing, next_batch, plan_batches
from tests.support import zoo

SHAPES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 60), st.sampled_from([(), (("num_beams", 2),)])), max_size=40
)


def pool_of(shapes: list[tuple[int, int, tuple[tuple[str, int], ...]]]) -> list[Request]:
    return [
        zoo.request(index, (7,) * prompt, max_new_tokens=answer, flags=flags)
        for index, (prompt, answer, flags) in enumerate(shapes)
    ]


def width(batch: list[Request]) -> int:
    return max(len(r.prompt_ids) for r in batch) + max(r.settings.max_new_tokens for r in batch)


@given(SHAPES, st.integers(1, 8), st.integers(1, 400))
def test_batches_conserve_requests_and_keep_the_bounds(
    shapes: list[tuple[int, int, tuple[tuple[str, int], ...]]], max_rows: int, max_tokens: int
) -> None:
    pool = pool_of(shapes)
    batches = plan_batches(pool, max_rows, max_tokens)
    assert sorted(r.index for batch in batches for r in batch.requests) == list(range(len(pool)))
    for batch in batches:
        requests = list(batch.requests)
        assert 1 <= len(requests) <= max_rows
        assert len(requests) == 1 or len(requests) * width(requests) <= max_tokens
        assert len({r.settings.flags for r in requests}) == 1
        assert batch.padded == len(requests) * width(requests)
        assert 0 <= batch.needed <= batch.padded


@given(SHAPES, st.integers(1, 8), st.integers(1, 400))
def test_the_rest_keeps_its_order_and_the_longest_goes_first(
    shapes: list[tuple[int, int, tuple[tuple[str, int], ...]]], max_rows: int, max_tokens: int
) -> None:
    pool = pool_of(shapes)
    if not pool:
        return
    batch, rest = next_batch(pool, max_rows, max_tokens)
    assert [r.index for r in rest] == sorted(r.index for r in rest)
    lengths = [(r.settings.max_new_tokens, len(r.prompt_ids)) for r in pool]
    assert (batch[0].settings.max_new_tokens, len(batch[0].prompt_ids)) == max(lengths)
    assert batch[0].index == lengths.index(max(lengths))


def test_like_lengths_share_a_batch() -> None:
    pool = pool_of([(4, 10, ()), (4, 50, ()), (30, 10, ()), (5, 50, ())])
    batch, rest = next_batch(pool, 2, 1000)
    assert [r.index for r in batch] == [3, 1]
    assert [r.index for r in rest] == [0, 2]
    assert plan_batches(pool, 2, 1000)[0].efficiency > 0.99


def test_a_request_that_is_too_long_runs_alone() -> None:
    pool = pool_of([(500, 50, ()), (2, 2, ()), (3, 2, ())])
    assert [[r.index for r in batch.requests] for batch in plan_batches(pool, 8, 100)] == [[0], [2, 1]]


@given(SHAPES, st.sampled_from(["any", "equal", "alone"]), st.none() | st.integers(1, 80), st.booleans())
def test_rows_share_a_batch_only_with_those_that_they_may(
    shapes: list[tuple[int, int, tuple[tuple[str, int], ...]]],
    kind: Literal["any", "equal", "alone"],
    threshold: int | None,
    beyond: bool,
) -> None:
    pool = pool_of(shapes)
    batches = plan_batches(pool, 8, 10_000, Sharing(kind, threshold, beyond))
    assert sorted(r.index for batch in batches for r in batch.requests) == list(range(len(pool)))
    for batch in batches:
        requests = list(batch.requests)
        lengths = {len(request.prompt_ids) for request in requests}
        assert kind != "alone" or len(requests) == 1
        assert kind != "equal" or len(lengths) == 1
        if threshold is not None and len(lengths) > 1:
            begun_beyond = beyond and min(lengths) > threshold
            assert begun_beyond or width(requests) <= threshold


def test_rows_of_equal_length_beyond_a_threshold_still_share() -> None:
    pool = pool_of([(70, 5, ()), (70, 9, ()), (70, 9, ()), (3, 9, ()), (9, 9, ())])
    sizes = [len(batch.requests) for batch in plan_batches(pool, 8, 10_000, Sharing(threshold=64, beyond=False))]
    assert sorted(sizes) == [2, 3]
