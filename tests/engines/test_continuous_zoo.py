"""Every architecture of the zoo: greedy tokens of in-flight batching equal the model's own `generate`, or the reason
why it cannot be done is named."""

from __future__ import annotations

import pytest

from batchchat.engines.continuous.admission.self_check import self_check
from batchchat.schedule import Feed
from tests.support.answers import TIE, drain_with_second_turns, first_difference, requests
from tests.support.architectures import ARCHITECTURES, Architecture
from tests.support.engines import continuous
from tests.support.zoo import Clock

RUNNABLE = [architecture for architecture in ARCHITECTURES if architecture.falls_back is None]


@pytest.mark.parametrize("architecture", RUNNABLE, ids=lambda architecture: architecture.name)
def test_greedy_tokens_are_those_of_generate(
    architecture: Architecture, record_property: pytest.RecordProperty
) -> None:
    model = architecture.model()
    found = self_check(model)
    assert found.reason is None
    gaps: dict[tuple[tuple[int, ...], tuple[int, ...]], float | None] = {}
    for cache in ("slots", "paged"):
        engine = continuous(model, Clock(), max_rows=4, max_tokens=4096, cache=cache)
        done = list(drain_with_second_turns(engine, Feed(iter(requests()), look_ahead=100)))
        assert len(done) == len(requests()) + 5
        assert {one.finish_reason for one in done} == {"length"}
        assert all(len(one.token_ids) == one.request.settings.max_new_tokens for one in done)
        assert engine.describe().prompt_tokens_reused > 700
        for one in done:
            answer = one.request.prompt_ids, one.token_ids
            if answer not in gaps:
                gaps[answer] = first_difference(model, one)
        found_here = [gaps[one.request.prompt_ids, one.token_ids] for one in done]
        ties = [gap for gap in found_here if gap is not None]
        record_property(f"ties, {cache}", len(ties))
        assert all(gap < TIE for gap in ties), ties
        assert len(ties) <= 1


@pytest.mark.parametrize(
    "architecture", [a for a in ARCHITECTURES if a.falls_back is not None], ids=lambda architecture: architecture.name
)
def test_what_cannot_be_run_says_why(architecture: Architecture) -> None:
    found = self_check(architecture.model())
    assert architecture.falls_back is not None
    assert found.reason is not None
    assert architecture.falls_back in found.reason


def test_the_zoo_is_large_enough() -> None:
    assert len(RUNNABLE) >= 14


def test_a_model_that_gives_other_logits_in_a_packed_pass_is_refused() -> None:
    model = RUNNABLE[0].model()
    plain_forward = model.model.norm.forward
    model.model.norm.forward = lambda hidden: plain_forward(hidden - hidden.mean(dim=1, keepdim=True))
    found = self_check(model)
    assert found.reason is not None
    assert "standard deviations" in found.reason
    assert found.difference is not None
    assert found.difference > 0.01
