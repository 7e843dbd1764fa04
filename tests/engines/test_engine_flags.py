"""Flags of `GenerationConfig` through the pipeline engine: the greedy answer is the one that `generate` gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import WatermarkingConfig

from batchchat.chats import Completion, Message
from batchchat.prompts import TokenizerCodec
from batchchat.recipe.flags import GenerationFlags, freeze_flags
from batchchat.schedule import Feed
from tests.support import zoo
from tests.support.engines import padded

TOKENIZER = zoo.byte_bpe()
TOKENIZER.pad_token = "<unk>"
CODEC = TokenizerCodec(TOKENIZER)
PROMPTS = [CODEC.render((Message("user", text),)) for text in ("How many words?", "The fox", "I am fine, thank you!")]
END = (1, 30, 45)
NEW = 15


def answers(flags: dict[str, Any], **settings: Any) -> list[Completion]:
    engine = padded(zoo.llama(len(TOKENIZER)), zoo.Clock(), CODEC)
    requests = [
        zoo.request(n, ids, max_new_tokens=NEW, stop_token_ids=END, flags=freeze_flags(flags), **settings)
        for n, ids in enumerate(PROMPTS)
    ]
    return sorted(engine.run(Feed(iter(requests), 8)), key=lambda completion: completion.request.index)


def expected(ids: tuple[int, ...], **arguments: Any) -> list[int]:
    out = zoo.llama(len(TOKENIZER)).generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=list(END),
        pad_token_id=TOKENIZER.pad_token_id,
        **arguments,
    )
    return out[0, len(ids) :].tolist()


GREEDY: list[dict[str, Any]] = [
    {"no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 1.5},
    {"renormalize_logits": True},
    {"remove_invalid_values": True},
    {"suppress_tokens": [40, 41, 42]},
    {"begin_suppress_tokens": list(range(5, 200))},
    {"sequence_bias": [[[10, 45], -2.0], [[20], 6.0]]},
    {"forced_eos_token_id": 30},
    {"exponential_decay_length_penalty": (3, 1.5)},
    {"guidance_scale": 1.5},
    {"use_cache": False},
    {"cache_implementation": "dynamic"},
    {"cache_implementation": "static", "disable_compile": True},
    {"prefill_chunk_size": 4},
    {"num_beams": 3, "length_penalty": 0.5, "early_stopping": True},
    {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 2},
    {"num_beams": 2, "no_repeat_ngram_size": 2},
]


@pytest.mark.parametrize("flags", GREEDY, ids=lambda flags: "+".join(flags))
def test_the_greedy_answer_is_that_of_generate(flags: dict[str, Any]) -> None:
    assert set(flags) <= set(GenerationFlags.model_fields)
    found = answers(flags)
    for completion, ids in zip(found, PROMPTS, strict=True):
        assert completion.error is None
        assert list(completion.token_ids) == expected(ids, **flags)


def test_a_watermark_is_laid_before_the_sampler_chooses() -> None:
    config = {"greenlist_ratio": 0.25, "bias": 8.0}
    found = answers({"watermarking_config": config})
    marked = [list(completion.token_ids) for completion in found]
    assert marked == [expected(ids, watermarking_config=WatermarkingConfig(**config)) for ids in PROMPTS]
    assert marked != [expected(ids) for ids in PROMPTS]


def test_settings_of_a_row_reach_a_handed_over_call() -> None:
    found = answers(
        {"num_beams": 2}, repetition_penalty=1.4, bad_words=((40,),), logit_bias=((50, 2.0),), min_new_tokens=4
    )
    for completion, ids in zip(found, PROMPTS, strict=True):
        assert list(completion.token_ids) == expected(
            ids,
            num_beams=2,
            repetition_penalty=1.4,
            bad_words_ids=[[40]],
            sequence_bias=[[[50], 2.0]],
            min_new_tokens=4,
        )


def test_a_handed_over_answer_ends_at_its_stop_string() -> None:
    stops = ("a", "e", "o", "t", " ")
    ended = 0
    for completion, ids in zip(answers({"num_beams": 2}, stop=stops), PROMPTS, strict=True):
        whole = expected(ids, num_beams=2, stop_strings=list(stops), tokenizer=TOKENIZER)
        assert list(completion.token_ids) == whole[: len(completion.token_ids)]
        assert (completion.finish_reason == "stop_string") == any(stop in completion.text for stop in stops)
        assert not any(stop in CODEC.decode(completion.token_ids[:-1]) for stop in stops)
        ended += completion.finish_reason == "stop_string"
    assert ended
