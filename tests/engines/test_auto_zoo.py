"""`auto` on architectures of every kind: in flight or padded, each answer is what the model's own `generate` gives that
prompt alone, and the report says which rows shared a batch and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from batchchat.chats import Request
from batchchat.engines import EngineContext, build_engine
from batchchat.prompts import TokenizerCodec
from batchchat.recipe import Recipe
from batchchat.schedule import Feed
from tests.support.architectures import OF_OTHER_KINDS, VOCABULARY, Architecture
from tests.support.zoo import Clock, byte_bpe, request

CLOSE = 1e-4
"""Logits closer than this are equal within rounding: either token counts."""
CODEC = TokenizerCodec(byte_bpe())


def requests() -> list[Request]:
    """Prompts of 1 to 700 tokens, some of them of one length, on both sides of each length that the configs name."""
    lengths = [(1, 9), (2, 14), (17, 9), (49, 14), (49, 9), (58, 14), (65, 9), (65, 5), (130, 9), (299, 9), (700, 5)]
    return [
        request(
            index,
            tuple((7919 * index + 104729 * place) % (VOCABULARY - 5) + 5 for place in range(1, length + 1)),
            max_new_tokens=limit,
        )
        for index, (length, limit) in enumerate(lengths)
    ]


@torch.inference_mode()
def gap(model: Any, asked: Request, tokens: tuple[int, ...]) -> float:
    """How far the logits of the tokens are apart where an answer and `generate`'s part; 0 where they do not."""
    prompt = torch.tensor([asked.prompt_ids])
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=asked.settings.max_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
        output_logits=True,
        return_dict_in_generate=True,
    )
    theirs = found.sequences[0, prompt.shape[1] :].tolist()
    assert len(theirs) == len(tokens)
    parted = next((step for step, pair in enumerate(zip(theirs, tokens, strict=True)) if pair[0] != pair[1]), None)
    if parted is None:
        return 0.0
    logits = found.logits[parted][0]
    return float(logits[theirs[parted]] - logits[tokens[parted]])


@pytest.mark.parametrize("architecture", OF_OTHER_KINDS, ids=lambda architecture: architecture.name)
@pytest.mark.filterwarnings("ignore:.*fast path.*")
def test_answers_are_those_of_generate(architecture: Architecture, tmp_path: Path) -> None:
    architecture.model().save_pretrained(tmp_path)
    recipe = {"model": {"name": str(tmp_path), "dtype": "float32"}, "source": {"path": "-"}}
    clock = Clock()
    context = EngineContext(Recipe.model_validate({**recipe, "engine": {"max_batch_rows": 4}}), CODEC, clock)
    engine = build_engine("auto", context)
    done = list(engine.run(Feed(iter(requests()), look_ahead=100)))
    facts = engine.describe()
    assert facts.parameters is not None
    if architecture.falls_back is None:
        assert facts.engine == "continuous"
    else:
        assert (facts.engine, facts.batches) == ("pipeline", architecture.batches)
        assert architecture.falls_back in dict(clock.events)["fallback"]
        assert ("batches" in dict(clock.events)) == (architecture.batches != "rows of any length")
    assert len(done) == len(requests())
    assert not [one.error for one in done if one.error]
    gaps = {}
    for one in sorted(done, key=lambda one: one.request.index):
        fresh = architecture.model()  # some remember the longest prompt that they saw
        gaps[len(one.request.prompt_ids)] = gap(fresh, one.request, one.token_ids)
    assert all(found < CLOSE for found in gaps.values()), gaps
