"""The engines that are measured. A contender takes a model and drains a workload, giving each request's number of
tokens as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from batchchat.benchmarks.workloads import second_turn
from batchchat.chats import Request
from batchchat.errors import UsageError
from batchchat.schedule import Feed, plan_batches

Done = tuple[int, int]
"""A request's index and the number of tokens that it was given."""

PLAIN_ROWS = 8
_NO_TOKEN_BOUND = 1 << 30


class Silent:
    """A meter that only tells the time."""

    def now(self, wait: bool = True) -> float:
        return time.perf_counter()

    def batch(self, rows: int, prompt_tokens: int, generated_tokens: int, padded_tokens: int) -> None: ...

    def event(self, name: str, detail: str) -> None: ...


class EngineContender:
    """One of batchchat's own engines, with second turns where the workload has them."""

    def __init__(self, engine: Any):
        self.engine = engine

    def drain(self, requests: list[Request], two_turns: bool = False) -> Iterator[Done]:
        feed = Feed(iter(requests), look_ahead=len(requests))
        for done in self.engine.run(feed):
            if done.error is not None:
                raise RuntimeError(done.error)
            if two_turns and done.request.turn == 0:
                feed.put(second_turn(done.request, done.token_ids))
            yield done.request.index, len(done.token_ids)

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.engine.describe().as_dict()
        return facts

    def close(self) -> None:
        self.engine.close()


def continuous(model: Any, codec: Any, rows: int) -> EngineContender:
    return EngineContender(continuous_engine(model, codec, rows))


def strict(model: Any, codec: Any, rows: int) -> EngineContender:
    return EngineContender(continuous_engine(model, codec, rows, reproducible="strict"))


def drafted(model: Any, codec: Any, rows: int) -> EngineContender:
    """With drafts by the model's own first layers: for the shape whose later layers change little."""
    from batchchat.benchmarks.shapes import first_layers
    from batchchat.engines.continuous import prepare
    from batchchat.engines.continuous.speculative.drafters import ModelDrafts

    small = first_layers(model)
    prepare(small)
    vocab_size = int(model.get_output_embeddings().weight.shape[0])
    drafter = ModelDrafts(small, "the first layers", 3, rows * 1024, vocab_size)
    return EngineContender(continuous_engine(model, codec, rows, drafter))


def continuous_engine(
    model: Any, codec: Any, rows: int, drafter: Any = None, meter: Any = None, **settings: Any
) -> Any:
    """The engine that a run with these settings of `engine` would get."""
    from batchchat.engines import EngineContext
    from batchchat.engines.continuous import try_build
    from batchchat.recipe import Recipe

    section = {"kind": "continuous", "max_batch_rows": rows, "max_batch_tokens": rows * 1024, **settings}
    recipe = Recipe.model_validate({"source": {"path": "-"}, "engine": section})
    engine, reason = try_build(model, EngineContext(recipe, codec, meter or Silent()), drafter)
    if engine is None:
        raise UsageError(f"the continuous engine cannot run this model: {reason}; leave it out of --engines")
    return engine


def pipeline(model: Any, codec: Any, rows: int) -> EngineContender:
    from batchchat.engines.base import EngineConfig
    from batchchat.engines.pipeline.engine import PipelineEngine

    return EngineContender(PipelineEngine(model, codec, Silent(), EngineConfig(rows, _NO_TOKEN_BOUND)))


class UnknownLengths(EngineContender):
    """The pipeline engine where every answer may become as long as the longest, so that only prompts tell them apart:
    its batches are planned so, and each then runs to its own longest answer."""

    def __init__(self, engine: Any, rows: int):
        super().__init__(engine)
        self._rows = rows

    def drain(self, requests: list[Request], two_turns: bool = False) -> Iterator[Done]:
        longest = max(request.settings.max_new_tokens for request in requests)
        equal = [replace(one, settings=replace(one.settings, max_new_tokens=longest)) for one in requests]
        by_index = {request.index: request for request in requests}
        for batch in plan_batches(equal, self._rows, _NO_TOKEN_BOUND):
            yield from super().drain([by_index[request.index] for request in batch.requests], two_turns)


def pipeline_unknown(model: Any, codec: Any, rows: int) -> EngineContender:
    return UnknownLengths(pipeline(model, codec, rows).engine, rows)


class PlainContender:
    """`generate` in padded batches of eight in arrival order: what a plain pipeline does."""

    def __init__(self, model: Any, codec: Any, rows: int):
        self._model = model

    def drain(self, requests: list[Request], two_turns: bool = False) -> Iterator[Done]:
        import torch

        if two_turns:
            raise ValueError("the plain pipeline answers single turns")
        for first in range(0, len(requests), PLAIN_ROWS):
            batch = requests[first : first + PLAIN_ROWS]
            width = max(len(request.prompt_ids) for request in batch)
            padded = [[1] * (width - len(request.prompt_ids)) + list(request.prompt_ids) for request in batch]
            mask = [[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in batch]
            device = self._model.device
            with torch.inference_mode():
                self._model.generate(
                    torch.tensor(padded, device=device),
                    attention_mask=torch.tensor(mask, device=device),
                    max_new_tokens=max(request.settings.max_new_tokens for request in batch),
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=1,
                )
            yield from ((request.index, request.settings.max_new_tokens) for request in batch)

    def facts(self) -> dict[str, Any]:
        return {"engine": "plain", "max_batch_rows": PLAIN_ROWS}

    def close(self) -> None: ...


class TransformersContender:
    """transformers' own continuous batching."""

    def __init__(self, model: Any, codec: Any, rows: int):
        self._model = model
        self._rows = rows

    def drain(self, requests: list[Request], two_turns: bool = False) -> Iterator[Done]:
        from transformers import GenerationConfig

        if two_turns:
            raise ValueError("transformers' continuous batching is measured with single turns")
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=1, max_new_tokens=256)
        cache = _transformers_cache(self._model.device)
        waiting = list(requests)
        with self._model.continuous_batching_context_manager(
            generation_config=generation, continuous_batching_config=cache
        ) as manager:
            done = 0
            flying = 0
            while done < len(requests):
                while waiting and flying < self._rows:
                    request = waiting.pop(0)
                    limit = request.settings.max_new_tokens
                    manager.add_request(list(request.prompt_ids), str(request.index), max_new_tokens=limit)
                    flying += 1
                found = manager.get_result(timeout=60)
                if found is None or not found.is_finished():
                    continue
                done, flying = done + 1, flying - 1
                yield int(found.request_id), len(found.generated_tokens)

    def facts(self) -> dict[str, Any]:
        return {"engine": "transformers-continuous", "rows": self._rows}

    def close(self) -> None: ...


def _transformers_cache(device: Any) -> Any:
    """The cache of transformers' continuous batching: on an accelerator its own choice, on a CPU small pages, as it
    would take all of the memory."""
    from transformers import ContinuousBatchingConfig

    if device.type != "cpu":
        return ContinuousBatchingConfig()
    takes = {field.name for field in fields(ContinuousBatchingConfig)}
    page = "page_size" if "page_size" in takes else "block_size"  # as transformers 5.17 calls it
    return ContinuousBatchingConfig(**{page: 32}, num_blocks=512, max_batch_tokens=1024)


CONTENDERS: dict[str, Callable[[Any, Any, int], Any]] = {
    "plain": PlainContender,
    "pipeline": pipeline,
    "pipeline-unknown": pipeline_unknown,
    "continuous": continuous,
    "strict": strict,
    "drafted": drafted,
    "transformers": TransformersContender,
}
"""Names for `--engines`, but for those of `peers`, which run in environments of their own."""
