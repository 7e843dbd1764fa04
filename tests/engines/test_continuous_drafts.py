"""Speculative decoding of many rows: drafts change the pace, never an answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, MixtralConfig

from batchchat.chats import Completion, Request
from batchchat.engines.continuous.sequence import SequenceState
from batchchat.engines.continuous.speculative.drafters import Drafter, LookUp, ModelDrafts
from batchchat.sampling import SamplerRows
from batchchat.schedule import Feed
from tests.support.engines import continuous
from tests.support.jobs import Command, read_jsonl, write_jsonl
from tests.support.requests import CODEC, mixed, prompt
from tests.support.zoo import Clock, byte_bpe, llama, request

VOCABULARY = 480


def perturbed(strength: float) -> Any:
    """A draft model that is much like the large one: the same weights with some noise."""
    draft = type(llama())(llama().config).eval()
    draft.load_state_dict(llama().state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.add_(torch.randn_like(parameter) * strength * parameter.std())
    return draft


def drafts_of(model: Any, tokens: int = 4, max_tokens: int = 8192) -> ModelDrafts:
    return ModelDrafts(model, "small", tokens, max_tokens, VOCABULARY)


def answer(
    requests: list[Request], drafter: Drafter | None = None, clock: Any = None, always: bool = True, **settings: Any
) -> tuple[dict[int, Completion], dict[str, Any]]:
    settings = {"max_rows": 8, "drafter": drafter, "always_draft": always, **settings}
    engine = continuous(llama(), clock or Clock(), **settings)
    found = {one.request.index: one for one in engine.run(Feed(iter(requests), look_ahead=1000))}
    return found, engine.describe().as_dict()


@pytest.mark.parametrize("rows", [1, 6, 36])
@pytest.mark.parametrize("kind", ["prompt", "like the model", "unlike the model"])
def test_answers_are_those_without_drafts(kind: str, rows: int) -> None:
    plain, _ = answer(mixed())
    drafters = {
        "prompt": lambda: LookUp(5, 3),
        "like the model": lambda: drafts_of(perturbed(0.005), 4),
        "unlike the model": lambda: drafts_of(llama(layers=1), 15),
    }
    found, facts = answer(mixed(), drafters[kind](), max_rows=rows)
    for index, completion in plain.items():
        assert found[index].token_ids == completion.token_ids
        assert found[index].finish_reason == completion.finish_reason
        for one, other in zip(found[index].logprobs or (), completion.logprobs or (), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in one.top] == [token for token, _ in other.top]
    if kind == "like the model":
        assert facts["drafts"]["acceptance"] > 0.4
        assert facts["drafts"]["tokens_per_step"] > 1.5


def test_memory_that_runs_out_costs_time_and_no_answer() -> None:
    requests = [request(n, prompt(n, 40 + n), max_new_tokens=60) for n in range(8)]
    plain, _ = answer(requests)
    for budget in (256, 384):
        found, facts = answer(requests, drafts_of(perturbed(0.005), max_tokens=200), max_tokens=budget)
        assert {n: one.token_ids for n, one in found.items()} == {n: one.token_ids for n, one in plain.items()}
        assert facts["kv_peak_tokens"] <= budget
        assert facts["drafts"]["kv_peak_tokens"] <= 200


def test_sampled_tokens_follow_the_models_distribution() -> None:
    """The second and third tokens of many answers, which drafts were verified for, against their exact shares."""
    start = prompt(3, 20)
    bias = tuple((token, 30.0) for token in (7, 70, 170, 270))  # so that a few tokens share all probability
    requests = [
        request(n, start, max_new_tokens=3, temperature=1.3, logit_bias=bias, seed=n * 7919 + 5) for n in range(3000)
    ]
    found, facts = answer(requests, drafts_of(perturbed(0.1), 2), max_rows=64, max_tokens=32768)
    assert 0.2 < facts["drafts"]["acceptance"] < 0.98
    allowed = [token for token, _ in bias]

    def shares(tokens: tuple[int, ...]) -> dict[int, float]:
        with torch.inference_mode():
            logits = llama()(torch.tensor([[*start, *tokens]])).logits[0, -1]
        chosen = torch.softmax(logits[allowed] / 1.3, dim=-1).tolist()
        return dict(zip(allowed, chosen, strict=True))

    expected: Counter[tuple[int, ...]] = Counter()
    for first, p in shares(()).items():
        for second, q in shares((first,)).items():
            for third, r in shares((first, second)).items():
                expected[first, second, third] += p * q * r
    counted = Counter(one.token_ids for one in found.values())
    assert set(counted) <= set(expected)
    large = [key for key, share in expected.items() if share * len(requests) >= 5]
    rest = len(requests) - sum(counted[key] for key in large)
    rest_share = 1 - sum(expected[key] for key in large)
    observed = [counted[key] for key in large] + [rest] * (rest_share > 1e-9)
    wanted = [expected[key] * len(requests) for key in large] + [rest_share * len(requests)] * (rest_share > 1e-9)
    assert len(large) > 8
    scaled = [value * sum(observed) / sum(wanted) for value in wanted]
    assert chisquare(observed, scaled).pvalue > 1e-3


class Timer(Clock):
    """A meter with the real time."""

    def now(self, wait: bool = True) -> float:
        return time.perf_counter()


class SlowLookUp(LookUp):
    def propose(self, live: Any, sampler: SamplerRows) -> Any:
        time.sleep(0.02)
        return super().propose(live, sampler)


def test_drafts_that_cost_more_than_they_gain_are_left_out_and_the_report_says_so() -> None:
    clock = Timer()
    requests = [request(n, prompt(n, 10), max_new_tokens=100) for n in range(4)]
    plain, _ = answer(requests)
    found, facts = answer(requests, SlowLookUp(3, 3), clock, always=False, max_rows=1)
    assert {n: one.token_ids for n, one in found.items()} == {n: one.token_ids for n, one in plain.items()}
    assert facts["drafts"]["steps_without"] > 300
    assert facts["drafts"]["speed_up"] < 1
    told = [detail for name, detail in clock.events if name == "drafts_off"]
    assert len(told) == 1
    assert "cost more than they gain" in told[0]


class BrokenLookUp(LookUp):
    def propose(self, live: Any, sampler: SamplerRows) -> Any:
        raise RuntimeError("no luck")


def test_a_draft_that_fails_costs_no_answer() -> None:
    clock = Clock()
    plain, _ = answer(mixed())
    found, _ = answer(mixed(), BrokenLookUp(3, 3), clock)
    assert {n: one.token_ids for n, one in found.items()} == {n: one.token_ids for n, one in plain.items()}
    assert [name for name, _ in clock.events] == ["drafts_off"]
    assert "no luck" in clock.events[0][1]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(2, 5), st.integers(1, 6), st.data())
def test_look_up_finds_the_last_place_of_the_longest_run(
    tokens: list[int], longest: int, count: int, data: st.DataObject
) -> None:
    split = data.draw(st.integers(1, len(tokens)))
    sequence = SequenceState(request(0, tuple(tokens[:split]), max_new_tokens=99), CODEC, 0.0)
    drafter = LookUp(count, longest)
    for token in [None, *tokens[split:]]:  # the same as if all had been there from the start
        if token is not None:
            sequence.tokens.append(token)
        proposed = drafter.propose([sequence], SamplerRows(VOCABULARY)).get(sequence, ())
    expected: tuple[int, ...] = ()
    for size in range(2, min(longest, len(tokens) - 1) + 1):
        run = tokens[-size:]
        places = [end for end in range(size, len(tokens)) if tokens[end - size : end] == run]
        if places:
            expected = tuple(tokens[places[-1] : places[-1] + count])
    assert proposed == expected


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, one much like it, one with another vocabulary, and a mixture of experts."""
    root = tmp_path_factory.mktemp("models")
    experts = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=256,
    )  # fmt: skip
    torch.manual_seed(0)
    made = {
        "large": (llama(), byte_bpe()),
        "small": (perturbed(0.005), byte_bpe()),
        "foreign": (llama(vocab_size=300), byte_bpe(vocab_size=300)),
        "experts": (AutoModelForCausalLM.from_config(experts), byte_bpe()),
    }
    for name, (model, tokenizer) in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in made}


def recipe(folder: Path, models: dict[str, Path], model: str = "large", **draft: Any) -> Path:
    rows = [{"turns": [f"Say something about the number {n}.", "And again, please."]} for n in range(6)]
    values = {
        "model": {"name": str(models[model]), "dtype": "float32", **({"draft": draft} if draft else {})},
        "source": {"path": str(write_jsonl(folder / "in.jsonl", rows))},
        "generation": {"max_new_tokens": 24},
        "sink": {"directory": str(folder / "runs/{name}")},
    }
    (folder / "recipe.yaml").write_text(json.dumps(values), encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.mark.parametrize("engine", ["continuous", "pipeline"])
@pytest.mark.parametrize("draft", ["small", "prompt"])
def test_a_recipe_with_a_draft(
    engine: str, draft: str, tmp_path: Path, models: dict[str, Path], batchchat: Command
) -> None:
    name = "prompt" if draft == "prompt" else str(models[draft])
    kind = f"engine.kind={engine}"
    plain = batchchat("run", recipe(tmp_path, models), "--json", "name=plain", kind)
    assert plain.code == 0, plain.err
    drafted = batchchat("run", recipe(tmp_path, models, name=name, force=True), "--json", "name=drafted", kind)
    assert drafted.code == 0, drafted.err
    outputs = [read_jsonl(tmp_path / "runs" / name / "outputs.jsonl") for name in ("plain", "drafted")]
    assert [row["turns"] for row in outputs[1]] == [row["turns"] for row in outputs[0]]
    facts = json.loads(drafted.out)["engine"]
    if engine == "continuous":
        assert facts["drafts"]["by"] == ("prompt look-up" if draft == "prompt" else name)
        assert "tokens per row and step" in (tmp_path / "runs/drafted/report.md").read_text()
        if draft == "small":
            assert facts["drafts"]["tokens_per_step"] > 1.5
    else:
        assert facts["speculation"]


def test_drafts_that_make_no_sense_are_refused(tmp_path: Path, models: dict[str, Path], batchchat: Command) -> None:
    foreign = batchchat("run", recipe(tmp_path, models, name=str(models["foreign"])))
    assert foreign.code == 2
    assert "another vocabulary" in foreign.err
    mixture = batchchat("run", recipe(tmp_path, models, "experts", name="prompt"), "name=experts")
    assert mixture.code == 2
    assert "mixture of experts" in mixture.err
    assert "model.draft.force=true" in mixture.err
    forced = batchchat("run", recipe(tmp_path, models, "experts", name="prompt", force=True), "-q", "name=experts")
    assert forced.code == 0, forced.err
    strict = batchchat("run", recipe(tmp_path, models, name="prompt"), "engine.reproducible=strict", "name=strict")
    assert strict.code == 2
    assert "model.draft" in strict.err
