"""The pipeline engine: what a row gets depends on the row alone, counts are true, and a failing row costs itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, TextGenerationPipeline, set_seed

from batchchat.chats import Completion, Message, Request
from batchchat.engines.pipeline.engine import PipelineEngine
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed
from tests.support import zoo
from tests.support.engines import padded

TOKENIZER = zoo.byte_bpe()
CODEC = TokenizerCodec(TOKENIZER)
VOCABULARY = len(TOKENIZER)
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "more",
    "words",
    "of",
    "the",
    "world",
]


def engine_of(meter: zoo.Clock | None = None, **options: Any) -> PipelineEngine:
    return padded(zoo.llama(VOCABULARY), meter or zoo.Clock(), CODEC, **options)


def answers(engine: PipelineEngine, requests: list[Request]) -> dict[int, Completion]:
    done = list(engine.run(Feed(iter(requests), look_ahead=100)))
    assert len(done) == len(requests)
    return {completion.request.index: completion for completion in done}


def prompt(index: int) -> tuple[int, ...]:
    """A prompt of its own length."""
    return CODEC.render((Message("user", " ".join(WORDS[: 1 + index % 13]) + f" {index}"),))


MIXTURE: list[dict[str, Any]] = [
    {"max_new_tokens": 12},
    {"max_new_tokens": 30, "temperature": 0.8},
    {"max_new_tokens": 1, "temperature": 1.5},
    {"max_new_tokens": 25, "temperature": 1.0, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2},
    {"max_new_tokens": 40, "temperature": 1.2, "stop_token_ids": tuple(range(5, 60))},
    {"max_new_tokens": 40, "temperature": 1.2, "stop": ("a", "e")},
    {"max_new_tokens": 9, "min_p": 0.1, "temperature": 0.9, "logprobs": 2},
    {"max_new_tokens": 20, "frequency_penalty": 0.8, "presence_penalty": 0.3, "logit_bias": ((40, 3.0),)},
    {
        "max_new_tokens": 16,
        "bad_words": (CODEC.encode_text("the"), (50,)),
        "min_new_tokens": 10,
        "stop_token_ids": (1,),
    },
    {"max_new_tokens": 18, "temperature": 2.0},
]


def mixture() -> list[Request]:
    return [zoo.request(index, prompt(index * 3), **values) for index, values in enumerate(MIXTURE)]


def test_rows_of_any_settings_get_the_same_in_a_batch_and_alone() -> None:
    alone = answers(engine_of(max_rows=1), mixture())
    for max_rows in (3, 10):
        meter = zoo.Clock()
        together = answers(engine_of(meter, max_rows=max_rows), mixture())
        assert max(rows for rows, *_ in meter.batches) == max_rows
        for index, completion in together.items():
            assert completion.token_ids == alone[index].token_ids, index
            assert completion.finish_reason == alone[index].finish_reason
            assert completion.text == alone[index].text
    assert {completion.finish_reason for completion in alone.values()} == {"stop", "length", "stop_string"}


def test_another_seed_gives_another_answer_and_the_same_one_the_same() -> None:
    def sampled(seed: int) -> tuple[int, ...]:
        return answers(engine_of(), [zoo.request(0, prompt(4), seed, max_new_tokens=20, temperature=1.0)])[0].token_ids

    assert sampled(1) == sampled(1) != sampled(2)


def test_greedy_is_what_generate_gives() -> None:
    model = zoo.llama(VOCABULARY)
    ids = prompt(5)
    found = answers(engine_of(), [zoo.request(0, ids, max_new_tokens=20)])[0]
    expected = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    assert list(found.token_ids) == expected[0, len(ids) :].tolist()
    assert found.finish_reason == "length"


def test_greedy_text_is_that_of_the_plain_pipeline_in_chat_mode() -> None:
    chat = [{"role": "user", "content": "How many words are in the world?"}]
    tokenizer = zoo.byte_bpe()
    tokenizer.pad_token = tokenizer.eos_token
    plain = TextGenerationPipeline(model=zoo.llama(VOCABULARY), tokenizer=tokenizer, device="cpu")
    expected = plain(chat, max_new_tokens=16, do_sample=False, skip_special_tokens=False)
    ids = CODEC.render((Message("user", chat[0]["content"]),))
    found = answers(engine_of(), [zoo.request(0, ids, max_new_tokens=16)])[0]
    assert found.text == expected[0]["generated_text"][-1]["content"]


def test_a_models_own_generation_config_does_not_leak(caplog: pytest.LogCaptureFixture) -> None:
    requests = [zoo.request(index, prompt(index), max_new_tokens=10) for index in range(4)]
    expected = answers(engine_of(), requests)
    model = zoo.llama(VOCABULARY)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=3.0,
        top_k=2,
        repetition_penalty=5.0,
        eos_token_id=[0, 1, 7],
        max_length=20,
        num_beams=3,
    )
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            found = answers(engine_of(), requests)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert {index: c.token_ids for index, c in found.items()} == {index: c.token_ids for index, c in expected.items()}
    assert not caplog.records


def test_ends_and_counts_are_true() -> None:
    greedy = answers(engine_of(), [zoo.request(0, prompt(5), max_new_tokens=30)])[0]
    ids = list(greedy.token_ids)
    end = next(token for token in ids[3:] if ids.index(token) >= 3)
    place = ids.index(end)
    meter = zoo.Clock()
    requests = [
        zoo.request(0, prompt(5), max_new_tokens=30, stop_token_ids=(end,)),
        zoo.request(1, prompt(8), max_new_tokens=30),
        zoo.request(2, prompt(5), max_new_tokens=place),
        zoo.request(3, prompt(5), max_new_tokens=place + 1, stop_token_ids=(end,)),
        zoo.request(4, prompt(5), max_new_tokens=0),
    ]
    found = answers(engine_of(meter), requests)
    assert found[0].finish_reason == "stop"
    assert list(found[0].token_ids) == ids[: place + 1]  # up to and with the end token
    assert found[0].text == CODEC.decode(ids[:place])
    assert (found[1].finish_reason, len(found[1].token_ids)) == ("length", 30)
    assert (found[2].finish_reason, list(found[2].token_ids)) == ("length", ids[:place])
    assert found[3].finish_reason == "stop"
    assert (found[4].finish_reason, found[4].token_ids, found[4].text) == ("length", (), "")
    (batch,) = meter.batches
    rows, prompt_tokens, generated, padded = batch
    assert rows == 4
    assert prompt_tokens == sum(len(request.prompt_ids) for request in requests[:4])
    assert generated == sum(len(completion.token_ids) for completion in found.values())
    assert padded == 4 * (len(prompt(8)) + 30)
    for completion in found.values():
        times = completion.timings
        assert times.queued <= times.started <= times.finished
    assert found[2].timings.finished < found[1].timings.finished


def test_a_stop_string_is_found_across_tokens() -> None:
    plain = answers(engine_of(), [zoo.request(0, prompt(9), max_new_tokens=40, temperature=1.0)])[0]
    pieces = [CODEC.decode([token]) for token in plain.token_ids]
    place = next(n for n in range(5, 38) if len(pieces[n]) and pieces[n].isascii() and pieces[n + 1].isascii())
    stop = pieces[place][-1] + pieces[place + 1][0]
    found = answers(
        engine_of(), [zoo.request(0, prompt(9), max_new_tokens=40, temperature=1.0, stop=("no such", stop))]
    )[0]
    assert found.finish_reason == "stop_string"
    assert found.token_ids == plain.token_ids[: len(found.token_ids)]
    assert len(found.token_ids) <= place + 2
    assert stop in found.text
    assert stop not in CODEC.decode(found.token_ids[:-1])
    assert CODEC.parse(found).message.content == CODEC.content_text(found.text[: found.text.index(stop)])


def test_logprobs_come_for_every_token_of_the_rows_that_asked() -> None:
    requests = [zoo.request(0, prompt(3), logprobs=2, stop_token_ids=()), zoo.request(1, prompt(4))]
    found = answers(engine_of(), requests)
    steps = found[0].logprobs
    assert steps is not None
    assert [step.token_id for step in steps] == list(found[0].token_ids)
    assert all(step.top[0] == (step.token_id, step.logprob) and len(step.top) == 2 for step in steps)
    assert found[1].logprobs is None


def test_tokens_are_heard_as_they_come() -> None:
    heard: dict[int, list[int]] = {0: [], 1: []}
    engine = engine_of(on_token=lambda request, token: heard[request.index].append(token))
    found = answers(engine, [zoo.request(0, prompt(2), max_new_tokens=3), zoo.request(1, prompt(3), max_new_tokens=9)])
    assert heard == {index: list(completion.token_ids) for index, completion in found.items()}


# flags that pass through


def generated(ids: tuple[int, ...], **arguments: Any) -> list[int]:
    model = zoo.llama(VOCABULARY)
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), pad_token_id=1, **arguments)
    return out[0, len(ids) :].tolist()


def test_beam_search_is_handed_over() -> None:
    meter = zoo.Clock()
    flags = (("early_stopping", True), ("num_beams", 3))
    ids = [prompt(4), prompt(7), prompt(7)]
    requests = [zoo.request(n, ids[n], max_new_tokens=14, flags=flags, stop_token_ids=(1, 30, 45)) for n in range(3)]
    found = answers(engine_of(meter), requests)
    for index in range(3):
        expected = generated(
            ids[index], num_beams=3, early_stopping=True, max_new_tokens=14, do_sample=False, eos_token_id=[1, 30, 45]
        )
        assert list(found[index].token_ids) == expected
        last = found[index].token_ids[-1]
        assert found[index].finish_reason == ("stop" if last in (1, 30, 45) else "length")
    assert sorted(rows for rows, *_ in meter.batches) == [1, 2]


def test_sampled_beams_follow_the_requests_seed() -> None:
    flags = (("num_beams", 2),)
    request = zoo.request(0, prompt(4), max_new_tokens=10, temperature=1.0, flags=flags)
    set_seed(1)
    first = answers(engine_of(), [request])[0].token_ids
    set_seed(2)
    assert (
        answers(engine_of(), [request, zoo.request(1, prompt(5), temperature=1.0, flags=flags)])[0].token_ids == first
    )


def test_prompt_lookup_gives_the_greedy_answer() -> None:
    plain = answers(engine_of(), [zoo.request(0, prompt(6), max_new_tokens=12)])[0]
    flags = (("prompt_lookup_num_tokens", 3),)
    found = answers(engine_of(), [zoo.request(n, prompt(6), max_new_tokens=12, flags=flags) for n in range(2)])
    assert found[0].token_ids == found[1].token_ids == plain.token_ids


def test_flags_that_are_logits_processors_act_before_the_sampler() -> None:
    ids = prompt(5)
    flags = (("no_repeat_ngram_size", 2), ("suppress_tokens", (40, 41)))
    requests = [zoo.request(n, prompt(5 + n), max_new_tokens=25, flags=flags) for n in range(3)]
    found = answers(engine_of(), requests)[0]
    assert list(found.token_ids) == generated(
        ids, max_new_tokens=25, do_sample=False, no_repeat_ngram_size=2, suppress_tokens=[40, 41]
    )


@pytest.mark.parametrize("flag", [("typical_p", 0.2), ("epsilon_cutoff", 0.2), ("eta_cutoff", 0.2), ("top_h", 0.1)])
def test_cuts_that_generate_makes_when_it_samples_cut_here_too(flag: tuple[str, float]) -> None:
    def tokens(flags: tuple[tuple[str, float], ...]) -> set[int]:
        requests = [zoo.request(n, prompt(5), max_new_tokens=1, temperature=1.5, flags=flags) for n in range(150)]
        return {completion.token_ids[0] for completion in answers(engine_of(max_rows=75), requests).values()}

    assert len(tokens((flag,))) < len(tokens(()))
    greedy = zoo.request(0, prompt(5), max_new_tokens=5)
    flagged = zoo.request(0, prompt(5), max_new_tokens=5, flags=(flag,))
    assert answers(engine_of(), [greedy])[0].token_ids == answers(engine_of(), [flagged])[0].token_ids


def test_a_setting_that_does_not_combine_is_that_rows_error() -> None:
    request = zoo.request(0, prompt(4), presence_penalty=0.5, flags=(("num_beams", 2),))
    found = answers(engine_of(), [request, zoo.request(1, prompt(4))])
    assert found[0].finish_reason == "error"
    assert "presence_penalty cannot be combined" in (found[0].error or "")
    assert found[1].finish_reason == "length"


# failures


class Poisoned:
    """Makes the model's forward pass raise where a certain token is among its inputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, token: int, error: Exception):
        model = zoo.llama(VOCABULARY)
        forward = model.forward

        def poisoned(*args: Any, **kwargs: Any) -> Any:
            ids = kwargs.get("input_ids", args[0] if args else None)
            if ids is not None and bool((ids == token).any()):
                raise error
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", poisoned)


POISON = VOCABULARY - 1


def test_a_failing_row_costs_that_row(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [zoo.request(n, prompt(n), max_new_tokens=6, bad_words=((POISON,),)) for n in range(7)]
    expected = answers(engine_of(), requests)
    requests[3] = zoo.request(3, (*prompt(3), POISON), max_new_tokens=6)
    Poisoned(monkeypatch, POISON, RuntimeError("the kernel failed\nsecond line"))
    meter = zoo.Clock()
    found = answers(engine_of(meter), requests)
    assert found[3].finish_reason == "error"
    assert found[3].error == "the model could not answer this row: RuntimeError: the kernel failed"
    for index in (0, 1, 2, 4, 5, 6):
        assert found[index].token_ids == expected[index].token_ids
    assert [name for name, _ in meter.events] == ["split_batch"] * 3


def test_running_out_of_memory_splits_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.llama(VOCABULARY)
    forward = model.forward

    def small(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("no room")
        return forward(*args, **kwargs)

    requests = [zoo.request(n, prompt(n), max_new_tokens=6) for n in range(5)]
    expected = answers(engine_of(), requests)
    monkeypatch.setattr(model, "forward", small)
    meter = zoo.Clock()
    found = answers(engine_of(meter), requests)
    assert {i: c.token_ids for i, c in found.items()} == {i: c.token_ids for i, c in expected.items()}
    names = [name for name, _ in meter.events]
    assert names.count("out_of_memory") == names.count("split_batch") == 2


def test_useless_logits_fail_their_row_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [zoo.request(n, prompt(n), max_new_tokens=6) for n in range(3)]
    expected = answers(engine_of(), requests)
    model = zoo.llama(VOCABULARY)
    forward = model.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits[0] = torch.nan
        return out

    monkeypatch.setattr(model, "forward", broken)
    found = answers(engine_of(), requests)
    failed = [index for index, completion in found.items() if completion.finish_reason == "error"]
    assert failed == [2]  # the longest prompt stands first in its batch
    assert "no usable logits for token 1" in (found[2].error or "")
    assert all(found[index].token_ids == expected[index].token_ids for index in (0, 1))


def test_an_empty_prompt_is_that_rows_error() -> None:
    found = answers(engine_of(), [zoo.request(0, ()), zoo.request(1, prompt(1))])
    assert found[0].finish_reason == "error"
    assert "no tokens" in (found[0].error or "")
    assert found[1].finish_reason == "length"


def test_an_interrupt_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo.llama(VOCABULARY), "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        answers(engine_of(), [zoo.request(0, prompt(1))])


# the feed


def test_next_turns_join_the_next_batches() -> None:
    meter = zoo.Clock()
    engine = engine_of(meter, max_rows=2)
    feed = Feed(iter([zoo.request(n, prompt(n), max_new_tokens=4) for n in range(3)]), look_ahead=2)
    seen = []
    for completion in engine.run(feed):
        seen.append(completion.request.key)
        if completion.request.turn == 0 and completion.request.index == 1:
            follow_up = zoo.request(1, prompt(6), max_new_tokens=4)
            feed.put(type(follow_up)("chat-1", 1, 0, 1, follow_up.prompt_ids, follow_up.settings, 5))
    assert sorted(seen) == [(0, 0, 0), (1, 0, 0), (1, 0, 1), (2, 0, 0)]
    assert [rows for rows, *_ in meter.batches] == [2, 2]


def test_it_says_what_it_is() -> None:
    facts = engine_of().describe()
    model = zoo.llama(VOCABULARY)
    assert facts.parameters == model.num_parameters()
    assert facts.footprint_bytes == model.get_memory_footprint()
    assert (facts.dtype, facts.devices, facts.model_class) == ("float32", ("cpu",), "LlamaForCausalLM")
