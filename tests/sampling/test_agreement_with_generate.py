"""What a token is drawn from is what transformers' own processors and warpers leave, in the order of `generate`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList

from batchchat.chats import Request
from batchchat.prompts import TokenizerCodec
from batchchat.recipe.flags import freeze_flags
from batchchat.sampling import SamplerRows
from batchchat.schedule import Feed
from tests.support import zoo
from tests.support.engines import padded

TOKENIZER = zoo.byte_bpe()
TOKENIZER.pad_token = "<unk>"
CODEC = TokenizerCodec(TOKENIZER)
PROMPT = tuple(range(5, 17)) + tuple(range(9, 15))
END = (3, 6)

ROW: dict[str, Any] = {
    "top_k": st.sampled_from([0, 1, 3, 12, 500]),
    "top_p": st.sampled_from([1.0, 0.97, 0.7, 0.2]),
    "min_p": st.sampled_from([0.0, 0.02, 0.3]),
    "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
    "logit_bias": st.sampled_from([(), ((7, 3.0), (12, -4.0)), ((2, 60.0),)]),
    "min_new_tokens": st.sampled_from([0, 3]),
    "bad_words": st.sampled_from([(), ((9,), (13, 14, 4))]),
}
FLAGS: dict[str, Any] = {
    "top_h": st.sampled_from([0.3, 0.8]),
    "typical_p": st.sampled_from([0.3, 0.9]),
    "epsilon_cutoff": st.sampled_from([0.01, 0.1]),
    "eta_cutoff": st.sampled_from([0.01, 0.2]),
    "no_repeat_ngram_size": st.sampled_from([2, 3]),
    "encoder_no_repeat_ngram_size": st.sampled_from([2]),
    "encoder_repetition_penalty": st.sampled_from([1.4, 0.7]),
    "sequence_bias": st.sampled_from([(((14, 8), 5.0), ((7,), -1.0))]),
    "suppress_tokens": st.sampled_from([(4, 18)]),
    "begin_suppress_tokens": st.sampled_from([(5, 11)]),
    "exponential_decay_length_penalty": st.sampled_from([(0, 1.6)]),
    "renormalize_logits": st.just(True),
    "watermarking_config": st.sampled_from([(("bias", 3.0), ("greenlist_ratio", 0.3))]),
}
SETTINGS = st.fixed_dictionaries({"temperature": st.sampled_from([0.4, 1.0, 1.8]), **ROW})


def warped(one: Request, logits: torch.Tensor, flags: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities [vocabulary] of the first token, by the processors that `generate` itself would make."""
    s = one.settings
    model = zoo.llama(len(TOKENIZER))
    sequence_bias = {(token,): bias for token, bias in s.logit_bias}
    for tokens, bias in flags.pop("sequence_bias", ()):
        sequence_bias[tuple(tokens)] = sequence_bias.get(tuple(tokens), 0.0) + bias
    config = GenerationConfig(
        do_sample=s.temperature > 0,
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        min_p=s.min_p or None,
        repetition_penalty=s.repetition_penalty,
        min_new_tokens=s.min_new_tokens or None,
        bad_words_ids=[list(word) for word in s.bad_words] or None,
        sequence_bias=sequence_bias or None,
        num_beams=1,
        eos_token_id=list(s.stop_token_ids),
        **flags,
    )
    prompt = torch.tensor([one.prompt_ids])
    config._eos_token_tensor = torch.tensor(s.stop_token_ids)
    made: LogitsProcessorList = model._get_logits_processor(
        config, prompt.shape[1], encoder_input_ids=prompt, device="cpu", model_kwargs={}
    )
    return torch.log_softmax(made(prompt, logits.double()[None])[0], dim=-1)


def assert_same(found: dict[int, float], expected: torch.Tensor) -> None:
    support = {token: value for token, value in enumerate(expected.tolist()) if value > -float("inf")}
    assert found.keys() == support.keys()
    for token, value in support.items():
        assert found[token] == pytest.approx(value, abs=1e-4)


@settings(max_examples=150, deadline=None)
@given(SETTINGS, st.integers(0, 10_000))
def test_the_samplers_own_settings(values: dict[str, Any], seed: int) -> None:
    vocabulary = 20
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    one = zoo.request(0, PROMPT, logprobs=20, logprobs_of="processed", stop_token_ids=END, **values)
    choice = SamplerRows.from_requests([one], vocabulary).choose(logits[None])
    assert choice.logprobs is not None
    assert choice.logprobs[0] is not None
    assert_same(dict(choice.logprobs[0].top), warped(one, logits, {}))
    assert choice.logprobs[0].logprob == dict(choice.logprobs[0].top)[int(choice.ids)]


@settings(max_examples=150, deadline=None)
@given(SETTINGS, st.fixed_dictionaries({}, optional=FLAGS), st.integers(0, 10_000))
def test_settings_and_flags_together(values: dict[str, Any], flags: dict[str, Any], seed: int) -> None:
    """As the padded engine chains them: its logits processor on logits of our own making."""
    from batchchat.engines.answer import OpenAnswer
    from batchchat.engines.pipeline.padded import RowWiseChoice

    vocabulary = 20
    if "watermarking_config" in flags:
        vocabulary = len(TOKENIZER)  # it colours the model's whole vocabulary
        flags = {**flags, "watermarking_config": dict(flags["watermarking_config"])}
    generator = torch.Generator().manual_seed(seed)
    logits = torch.full((vocabulary,), -50.0)
    logits[:20] = torch.randn(20, generator=generator) * 3
    one = zoo.request(
        0, PROMPT, logprobs=20, logprobs_of="processed", stop_token_ids=END, flags=freeze_flags(flags), **values
    )
    row = OpenAnswer(one, CODEC)
    choice = RowWiseChoice([row], zoo.llama(len(TOKENIZER)), CODEC.token_texts, lambda: 0.0, None)
    choice(torch.tensor([PROMPT]), logits[None].clone())
    expected = warped(one, logits, dict(flags))
    found = dict(row.logprobs[0].top)
    if vocabulary == 20:
        assert_same(found, expected)
    else:  # only the most likely ones are recorded
        for token, value in found.items():
            assert value == pytest.approx(float(expected[token]), abs=1e-4)


def test_each_of_many_samples_lies_in_the_support_of_generate() -> None:
    flags = {"top_h": 0.6, "typical_p": 0.8, "epsilon_cutoff": 0.002, "eta_cutoff": 0.002}
    count = 2000
    ids = CODEC.encode_text("How many words?")
    model = zoo.llama(len(TOKENIZER))
    engine = padded(model, zoo.Clock(), CODEC, max_rows=500, max_tokens=100_000)
    kind = {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "flags": freeze_flags(flags)}
    requests = [zoo.request(n, ids, max_new_tokens=1, **kind) for n in range(count)]
    drawn = torch.tensor([done.token_ids[0] for done in engine.run(Feed(iter(requests), count))])
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].float()
    expected = warped(requests[0], logits, dict(flags)).exp()
    found = torch.bincount(drawn, minlength=len(expected))
    assert found.sum() == count
    assert not found[expected == 0].any()
    likely = expected > 5 / count
    spread = (found[likely] - expected[likely] * count) ** 2 / (expected[likely] * count)
    assert spread.sum() < 3 * likely.sum() + 20


@pytest.mark.parametrize("of", ["raw", "processed"])
def test_asking_for_log_probabilities_changes_no_token(of: str) -> None:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.9, "top_k": 7},
        {"temperature": 1.2, "top_p": 0.8, "logit_bias": ((3, 2.0),)},
        {"repetition_penalty": 1.4},
        {"temperature": 1.0},
    ]
    logits = torch.randn(len(kinds), 700, generator=torch.Generator().manual_seed(5)) * 3
    quiet = [zoo.request(n, **kind) for n, kind in enumerate(kinds)]
    asked = [zoo.request(n, logprobs=3, logprobs_of=of, **kind) for n, kind in enumerate(kinds)]
    expected = SamplerRows.from_requests(quiet, 700).choose(logits).ids
    assert torch.equal(SamplerRows.from_requests(asked, 700).choose(logits).ids, expected)
