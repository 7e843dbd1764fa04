"""Running out of memory is a setting: every chat is answered, with the same text, in batches that fit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from batchchat.engines.memory import Budget, is_out_of_memory
from tests.support import zoo
from tests.support.jobs import Command, outputs, read_jsonl, report_of

Refuse = Callable[[torch.Tensor], bool]
"""From the token ids of a forward pass to whether there is memory for it."""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Refuse | None], None]:
    """Lets forward passes run out of memory from now on, where the given function says so."""
    forward = LlamaForCausalLM.forward

    def limit(refuse: Refuse | None) -> None:
        def limited(self: Any, *args: Any, **kwargs: Any) -> Any:
            if refuse is not None and refuse(kwargs["input_ids"]):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(LlamaForCausalLM, "forward", limited)

    return limit


def sizes(recipe: Path, name: str) -> list[int]:
    return [int(size) for size in report_of(recipe, name)["session"]["batch_rows"]]


def test_at_any_size_every_chat_is_answered_alike(
    memory_recipe: Path, batchchat: Command, memory: Callable[[Refuse | None], None]
) -> None:
    assert batchchat("run", memory_recipe, "name=whole").code == 0
    assert max(sizes(memory_recipe, "whole")) == 8
    for most in (5, 2, 1):
        memory(lambda ids, most=most: ids.shape[0] > most)  # type: ignore[misc]
        assert batchchat("run", memory_recipe, f"name=rows{most}").code == 0
        assert outputs(memory_recipe, f"rows{most}") == outputs(memory_recipe, "whole")
        assert max(sizes(memory_recipe, f"rows{most}")) <= most
        counts = report_of(memory_recipe, f"rows{most}")["events"]["counts"]
        assert counts["out_of_memory"] == counts["split_batch"] > 0
        assert report_of(memory_recipe, f"rows{most}")["rows"]["failed"] == 0


def test_what_fits_is_learned_once(
    memory_recipe: Path, batchchat: Command, memory: Callable[[Refuse | None], None]
) -> None:
    places = 600
    memory(lambda ids: ids.shape[0] * (ids.shape[1] + 12) > places)
    assert batchchat("run", memory_recipe, "name=learned").code == 0
    report = report_of(memory_recipe, "learned")
    assert report["engine"]["learned_batch_tokens"] <= places
    failures = report["events"]["counts"]["out_of_memory"]
    assert failures <= 3, "batches after the first few are planned within what fits"
    assert "batch tokens that fit" in (memory_recipe.parent / "runs/learned/report.md").read_text(encoding="utf-8")


def test_at_random_moments(memory_recipe: Path, batchchat: Command, memory: Callable[[Refuse | None], None]) -> None:
    batchchat("run", memory_recipe, "name=whole")
    for seed in range(2):
        draw = random.Random(seed)
        since = [0]

        def refuse(ids: torch.Tensor, draw: random.Random = draw, since: list[int] = since) -> bool:
            since[0] += 1
            if since[0] <= 13 or draw.random() > 0.3:  # a row alone is tried twice, each time 12 passes
                return False
            since[0] = 0
            return True

        memory(refuse)
        assert batchchat("run", memory_recipe, f"name=random{seed}").code == 0
        assert report_of(memory_recipe, f"random{seed}")["events"]["counts"]["out_of_memory"] > 0
        assert outputs(memory_recipe, f"random{seed}") == outputs(memory_recipe, "whole")


def test_in_the_middle_of_a_chat(
    memory_recipe: Path, batchchat: Command, memory: Callable[[Refuse | None], None]
) -> None:
    batchchat("run", memory_recipe, "name=whole", "source.limit=6")
    second = zoo.byte_bpe()(zoo.TURNS[1], add_special_tokens=False)["input_ids"]
    hits = [0]

    def refuse(ids: torch.Tensor) -> bool:
        """The prefill of a second turn, in company."""
        text = ids[0].tolist()
        found = any(text[place : place + len(second)] == second for place in range(len(text)))
        hits[0] += found and ids.shape[0] > 1
        return found and ids.shape[0] > 1

    memory(refuse)
    assert batchchat("run", memory_recipe, "name=middle", "source.limit=6").code == 0
    assert hits[0] > 0
    assert outputs(memory_recipe, "middle") == outputs(memory_recipe, "whole")


def test_a_row_that_does_not_fit_alone_is_that_rows_error(
    memory_recipe: Path, batchchat: Command, memory: Callable[[Refuse | None], None]
) -> None:
    batchchat("run", memory_recipe, "name=whole")
    longest = max(read_jsonl(memory_recipe.parent / "runs/whole/outputs.jsonl"), key=_prompt_tokens)
    room = _prompt_tokens(longest)
    memory(lambda ids: ids.shape[1] >= room)
    assert batchchat("run", memory_recipe, "name=short").code == 0
    failed = read_jsonl(memory_recipe.parent / "runs/short/errors.jsonl")
    assert longest["question_id"] in [row["row"]["question_id"] for row in failed]
    assert all("do not fit into memory, even alone" in json.dumps(row) for row in failed)
    answered = {row["question_id"]: row for row in read_jsonl(memory_recipe.parent / "runs/whole/outputs.jsonl")}
    kept = read_jsonl(memory_recipe.parent / "runs/short/outputs.jsonl")
    assert 0 < len(kept) == len(answered) - len(failed)
    assert all(row == answered[row["question_id"]] for row in kept)


def _prompt_tokens(row: dict[str, Any]) -> int:
    return max(turn["prompt_tokens"] for turn in row["batchchat"]["turns"])


def test_a_resumed_run_knows_what_fits(
    memory_recipe: Path, batchchat: Command, memory: Callable[[Refuse | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    batchchat("run", memory_recipe, "name=whole")
    seen: list[int] = []

    def crowded(ids: torch.Tensor) -> bool:
        seen.append(ids.shape[0])
        if len(seen) > 60:
            raise KeyboardInterrupt
        return ids.shape[0] > 3

    memory(crowded)
    assert batchchat("run", memory_recipe, "name=again").code == 130
    assert max(seen) > 3
    rest: list[int] = []
    memory(lambda ids: rest.append(ids.shape[0]) is not None or ids.shape[0] > 3)
    assert batchchat("run", memory_recipe, "name=again").code == 0
    assert rest[0] <= 4, "the first batch of the second session is within what the first one learned"
    assert outputs(memory_recipe, "again") == outputs(memory_recipe, "whole")


def test_a_budget_halves_and_never_grows() -> None:
    heard: list[int] = []
    budget = Budget(on_change=heard.append)
    assert budget.within(4096) == 4096
    budget.did_not_fit(3000)
    budget.did_not_fit(5000)
    assert (budget.within(4096), budget.within(100), heard) == (1500, 100, [1500])
    budget.did_not_fit(1)
    assert budget.tokens == 1


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
