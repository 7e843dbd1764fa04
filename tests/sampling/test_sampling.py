"""The row-wise sampler: right distributions, and rows that know nothing of each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.chats import Request
from batchchat.sampling import SamplerRows, signed, uniform
from tests.support import zoo

MASK = 2**64 - 1


def reference_uniform(seed: int, step: int) -> float:
    """The same number from Python's whole numbers."""

    def mixed(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
        return word ^ (word >> 31)

    return (mixed((mixed(seed) + (step + 1) * 0x9E3779B97F4A7C15) & MASK) >> 11) * 2.0**-53


def reference_choice(logits: list[float], request: Request, step: int) -> int:
    """One row, one step, written plainly: sort, cut, and walk up the probabilities."""
    s = request.settings
    if s.temperature == 0:
        return max(range(len(logits)), key=lambda token: (logits[token], -token))
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    top = logits[ranked[0]]
    weight = {token: math.exp((logits[token] - top) / s.temperature) for token in ranked}
    cuts = bool(s.top_k or s.top_p < 1 or s.min_p)
    kept = ranked
    if 0 < s.top_k < len(ranked):
        kept = [token for token in ranked if logits[token] >= logits[ranked[s.top_k - 1]]]
    if s.top_p < 1:
        total, before, allowed = sum(weight[token] for token in kept), 0.0, []
        for token in kept:
            if before < s.top_p * total:
                allowed.append(token)
            before += weight[token]
        kept = allowed
    kept = [token for token in kept if weight[token] >= s.min_p]
    if not cuts:
        kept = sorted(kept)
    target = reference_uniform(request.seed, step) * sum(weight[token] for token in kept)
    reached = 0.0
    for token in kept:
        reached += weight[token]
        if reached > target:
            return token
    return kept[-1]


def logits_of(rows: int, vocabulary: int, seed: int, coarse: bool = False) -> torch.Tensor:
    """Random logits; coarse ones have many ties, as bfloat16 models have."""
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    return (logits * 4).round() / 4 if coarse else logits


SAMPLED: dict[str, Any] = {
    "temperature": st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.0]),
    "top_k": st.sampled_from([0, 1, 5, 50, 300, 5000]),
    "top_p": st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    "min_p": st.sampled_from([0.0, 0.05, 0.5]),
}


@given(st.integers(0, MASK), st.integers(0, 2**31))
def test_uniform_numbers_are_those_of_the_method(seed: int, step: int) -> None:
    found = uniform(torch.tensor([signed(seed)]), torch.tensor([step])).item()
    assert found == reference_uniform(seed, step)
    assert 0 <= found < 1


def test_uniform_numbers_of_one_seed_are_spread_evenly() -> None:
    steps = torch.arange(100_000)
    numbers = uniform(torch.full_like(steps, 42), steps)
    counts = torch.histc(numbers, 100, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 160  # 99 degrees of freedom: one in 10,000 is above
    correlation = torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]
    assert abs(correlation) < 0.015


@settings(max_examples=120, deadline=None)
@given(
    st.fixed_dictionaries(SAMPLED),
    st.integers(0, 10_000),
    st.sampled_from([7, 40, 256, 257, 1000, 6000]),
    st.booleans(),
)
def test_each_cut_is_the_plain_one(values: dict[str, Any], seed: int, vocabulary: int, coarse: bool) -> None:
    requests = [zoo.request(index, seed=(seed * 31 + index) & MASK, **values) for index in range(3)]
    rows = SamplerRows.from_requests(requests, vocabulary)
    for step in range(2):
        logits = logits_of(3, vocabulary, seed + step, coarse)
        ids = rows.choose(logits).ids
        expected = [reference_choice(logits[row].tolist(), requests[row], step) for row in range(3)]
        assert ids.tolist() == expected
        rows.append(ids)


MIXTURE = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 0.9, "top_p": 0.8, "repetition_penalty": 1.3},
    {"temperature": 1.0, "min_p": 0.1, "frequency_penalty": 0.5, "presence_penalty": 0.2},
    {"logit_bias": ((3, 4.0), (9, -100.0)), "bad_words": ((11,), (5, 12))},
    {"temperature": 0.8, "top_k": 4000, "min_new_tokens": 3, "stop_token_ids": (1, 2)},
    {"temperature": 0.5, "logprobs": 3},
]


def run_rows(requests: list[Request], vocabulary: int, steps: int = 6) -> dict[int, list[int]]:
    """What each request gets, its logits depending on itself and the step alone."""
    rows = SamplerRows.from_requests(requests, vocabulary)
    out: dict[int, list[int]] = {request.index: [] for request in requests}
    for step in range(steps):
        logits = torch.cat([logits_of(1, vocabulary, request.index * 100 + step) for request in requests])
        ids = rows.choose(logits).ids
        for request, token in zip(requests, ids.tolist(), strict=True):
            out[request.index].append(token)
        rows.append(ids)
    return out


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(MIXTURE))), st.integers(1, len(MIXTURE)), st.sampled_from([64, 3000]))
def test_a_row_gets_the_same_alone_and_in_any_company(order: list[int], count: int, vocabulary: int) -> None:
    requests = [zoo.request(index, **MIXTURE[index]) for index in range(len(MIXTURE))]
    together = run_rows([requests[index] for index in order[:count]], vocabulary)
    for index in order[:count]:
        assert together[index] == run_rows([requests[index]], vocabulary)[index]


def test_rows_move_leave_and_join_between_steps() -> None:
    vocabulary = 400
    requests = {index: zoo.request(index, **settings_) for index, settings_ in enumerate(MIXTURE)}
    alone = {index: run_rows([request], vocabulary)[index] for index, request in requests.items()}
    present = [0, 3, 4, 5]
    rows = SamplerRows.from_requests([requests[index] for index in present], vocabulary)
    steps = dict.fromkeys(requests, 0)
    for moment in range(6):
        if moment == 2:
            rows.select([3, 1, 0])
            present = [5, 3, 0]
            rows.extend([requests[6], requests[7], requests[1]])
            present += [6, 7, 1]
        if moment == 4:
            rows.select([4, 0, 1, 3])
            present = [7, 5, 3, 6]
        assert len(rows) == len(present)
        logits = torch.cat([logits_of(1, vocabulary, index * 100 + steps[index]) for index in present])
        ids = rows.choose(logits).ids
        for index, token in zip(present, ids.tolist(), strict=True):
            assert token == alone[index][steps[index]], (moment, index)
            steps[index] += 1
        rows.append(ids)


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    count = 20_000
    requests = [zoo.request(index, temperature=1.0, top_p=0.9) for index in range(count)]
    rows = SamplerRows.from_requests(requests, 5)
    ids = rows.choose(probabilities.log().expand(count, 5)).ids
    kept = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.0])
    expected = kept / kept.sum() * count
    found = torch.bincount(ids, minlength=5)
    assert found[4] == 0
    assert ((found - expected)[:4] ** 2 / expected[:4]).sum() < 21  # 3 degrees of freedom: one in 10,000 is above


def test_penalties_change_the_logits_as_defined() -> None:
    logits = torch.tensor([[2.0, 1.9, -1.0, 1.5, 0.0]])
    repeated = zoo.request(0, (0, 2), repetition_penalty=2.0)
    assert SamplerRows.from_requests([repeated], 5).choose(logits).ids.tolist() == [1]  # 2.0 / 2 in the prompt

    presence = SamplerRows.from_requests([zoo.request(0, (4,), presence_penalty=0.3)], 5)
    taken = []
    for _ in range(3):
        ids = presence.choose(logits).ids
        presence.append(ids)
        taken += ids.tolist()
    assert taken == [0, 1, 0]  # both held now: 1.7 against 1.6 and 1.5

    frequency = SamplerRows.from_requests([zoo.request(0, (4,), frequency_penalty=0.3)], 5)
    taken = []
    for _ in range(5):
        ids = frequency.choose(logits).ids
        frequency.append(ids)
        taken += ids.tolist()
    assert taken == [0, 1, 0, 1, 3]  # 2.0, 1.9, 1.7, 1.6, then 1.4 and 1.3 against 1.5


def test_bans_and_biases() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])

    def path(steps: int = 3, **values: Any) -> list[int]:
        rows = SamplerRows.from_requests([zoo.request(0, (4, 0), **values)], 5)
        taken = []
        for _ in range(steps):
            ids = rows.choose(logits).ids
            rows.append(ids)
            taken += ids.tolist()
        return taken

    assert path(bad_words=((0,), (1, 1))) == [1, 2, 1]
    assert path(bad_words=((0, 0),)) == [1, 0, 1]  # the prompt ends in 0
    assert path(min_new_tokens=2, stop_token_ids=(0, 1)) == [2, 2, 0]
    assert path(logit_bias=((4, 10.0), (0, -10.0))) == [4, 4, 4]
    with pytest.raises(ValueError, match="logit_bias names the token id 5"):
        path(logit_bias=((5, 1.0),))


def test_bad_logits_fail_their_row_only() -> None:
    logits = torch.zeros(5, 300)
    logits[0, 7] = torch.nan
    logits[1] = -torch.inf
    logits[2, 8] = torch.inf
    logits[4, 9] = 5.0
    for values in ({}, {"temperature": 0.7}, {"temperature": 0.7, "top_k": 3}, {"temperature": 1.0, "min_p": 0.9}):
        requests = [zoo.request(index, **values) for index in range(5)]
        choice = SamplerRows.from_requests(requests, 300).choose(logits)
        assert choice.failed.tolist() == [True, True, True, False, False]
        assert choice.ids.min() >= 0
        assert choice.ids.max() < 300
        assert choice.ids[3] == SamplerRows.from_requests([requests[3]], 300).choose(logits[3:4]).ids[0]


def test_everything_banned_fails_the_row() -> None:
    banned = zoo.request(0, bad_words=((0,), (1,)))
    assert SamplerRows.from_requests([banned], 2).choose(torch.zeros(1, 2)).failed.tolist() == [True]


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = logits_of(3, 50, 1)
    requests = [
        zoo.request(0),
        zoo.request(1, logprobs=2, temperature=5.0, top_k=10, logit_bias=((4, 3.0),)),
        zoo.request(2, logprobs=0),
    ]
    choice = SamplerRows.from_requests(requests, 50).choose(logits)
    assert choice.logprobs is not None
    assert choice.logprobs[0] is None
    logs = torch.log_softmax(logits, dim=-1)
    for row in (1, 2):
        found = choice.logprobs[row]
        assert found is not None
        assert found.token_id == choice.ids[row]
        assert found.logprob == pytest.approx(logs[row, choice.ids[row]].item())
    second = choice.logprobs[1]
    assert second is not None
    best = logs[1].topk(2)
    assert [token for token, _ in second.top] == best.indices.tolist()
    assert [value for _, value in second.top] == pytest.approx(best.values.tolist())
    assert choice.logprobs[2] is not None
    assert choice.logprobs[2].top == ()
    assert SamplerRows.from_requests(requests[:1], 50).choose(logits[:1]).logprobs is None


def test_logits_are_not_changed() -> None:
    logits = logits_of(len(MIXTURE), 64, 3)
    before = logits.clone()
    rows = SamplerRows.from_requests([zoo.request(index, **values) for index, values in enumerate(MIXTURE)], 64)
    rows.choose(logits)
    assert torch.equal(logits, before)
