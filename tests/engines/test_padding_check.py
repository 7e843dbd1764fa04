"""Which rows of a model may share a padded batch is tried, cheaply, and never costs the run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from batchchat.engines.pipeline.padding_check import ChangingRope, find_sharing
from batchchat.schedule import Sharing
from tests.support.architectures import OF_OTHER_KINDS
from tests.support.engines import padded
from tests.support.zoo import Clock, llama


def named(name: str) -> Any:
    return next(a for a in OF_OTHER_KINDS if a.name.startswith(name)).model()


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model whose logits go through a function of its inputs."""

    def patch(change: Any) -> Any:
        model = llama()
        plain = model.forward

        def forward(*args: Any, **more: Any) -> Any:
            out = plain(*args, **more)
            out.logits = change(out.logits, more)
            return out

        monkeypatch.setattr(model, "forward", forward)
        return model

    return patch


def test_a_model_that_masks_its_padding_shares_everything() -> None:
    assert find_sharing(llama(), pad=1) == (Sharing(), None)


def test_a_model_that_reads_its_padding_computes_rows_of_equal_length(patched: Any) -> None:
    def by_padding(logits: torch.Tensor, more: Any) -> torch.Tensor:
        return logits * (1 + (more["attention_mask"] == 0).sum(dim=-1)[:, None, None])

    sharing, why = find_sharing(patched(by_padding), pad=1)
    assert sharing == Sharing("equal")
    assert why is not None
    assert "padded batch" in why


def test_a_model_that_mixes_its_rows_computes_one(patched: Any) -> None:
    sharing, why = find_sharing(patched(lambda logits, more: logits - logits.mean(dim=0) * (len(logits) > 1)), pad=1)
    assert sharing == Sharing("alone")
    assert why is not None


@pytest.mark.parametrize("kind", [ValueError, torch.OutOfMemoryError])
def test_what_fails_alone_says_nothing_of_batches(patched: Any, kind: type[Exception]) -> None:
    def fail(logits: torch.Tensor, more: Any) -> torch.Tensor:
        raise kind("no")

    assert find_sharing(patched(fail), pad=1) == (Sharing(), None)


def test_a_batch_that_does_not_fit_says_nothing_of_its_answers(patched: Any) -> None:
    def fail(logits: torch.Tensor, more: Any) -> torch.Tensor:
        if len(logits) > 1:
            raise torch.OutOfMemoryError("no")
        return logits

    assert find_sharing(patched(fail), pad=1) == (Sharing(), None)


def test_few_tokens_are_computed(patched: Any) -> None:
    computed = []

    def count(logits: torch.Tensor, more: Any) -> torch.Tensor:
        computed.append(more["input_ids"].numel())
        return logits

    find_sharing(patched(count), pad=1)
    assert sum(computed) < 400


def test_the_report_says_which_rows_shared_a_batch() -> None:
    meter = Clock()
    model = named("minimax")
    assert padded(model, meter).describe().batches == "rows of equal length"
    ((name, words),) = meter.events
    assert name == "batches"
    assert "rows of equal length" in words
    meter = Clock()
    assert padded(model, meter, max_rows=1).describe().batches == "rows of any length"
    assert not meter.events


def test_a_rope_that_grew_with_a_long_prompt_is_as_before() -> None:
    model, fresh = named("llama, dynamic"), named("llama, dynamic")
    rope = ChangingRope(model)
    short = torch.arange(5, 75)[None]
    with torch.inference_mode():
        model(torch.arange(5, 205)[None])
        stale = model(short).logits
        model(torch.arange(5, 205)[None])
        rope.forget()
        again, wanted = model(short).logits, fresh(short).logits
    assert torch.equal(again, wanted)
    assert not torch.equal(stale, wanted)
