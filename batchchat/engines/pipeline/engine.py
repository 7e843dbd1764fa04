"""Padded batches through transformers' text-generation pipeline, planned over a window of requests."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from batchchat.chats import Completion, Request
from batchchat.engines.answer import OpenAnswer
from batchchat.engines.base import EngineConfig, EngineContext, EngineMeter, TokenListener
from batchchat.engines.facts import PipelineFacts
from batchchat.engines.loading import load
from batchchat.engines.memory import Budget, is_out_of_memory, release_memory, too_large
from batchchat.engines.pipeline import flags
from batchchat.engines.pipeline.padded import RenderedPipeline, RowWiseChoice, RowWiseStop
from batchchat.engines.pipeline.padding_check import ChangingRope, find_sharing
from batchchat.engines.pipeline.processors import BannedTexts
from batchchat.engines.work import Work
from batchchat.models import group
from batchchat.models.facts import model_facts
from batchchat.prompts.codec import TokenizerCodec
from batchchat.schedule import Feed, Sharing, next_batch, padded_places


class PipelineEngine:
    """Answers in padded batches of at most `config.max_rows` rows and `config.max_tokens` padded token places.

    Rows of any settings share a batch, and what one gets does not depend on the others. A batch that fails is computed
    again in halves, down to the one row that fails alone and gets the error. One that runs out of memory also lowers
    `budget`, within which later batches are planned. The model's own generation config is set aside: its values reach
    the requests through their settings or not at all.

    Which rows share a batch is tried on the model, unless `sharing` says it: some models read the padding of a batch,
    or look at its longest row.

    `speculation`: arguments that make `generate` draft. It does so for one row at a time, and chooses tokens itself.
    """

    def __init__(
        self,
        model: Any,
        codec: TokenizerCodec,
        meter: EngineMeter,
        config: EngineConfig,
        *,
        budget: Budget | None = None,
        on_token: TokenListener | None = None,
        speculation: Mapping[str, Any] | None = None,
        sharing: Sharing | None = None,
    ):
        self._model = model
        self._speculation = dict(speculation or {})
        self._config = config
        self._parallel = config.split_over_processes
        self._codec = codec
        self._meter = meter
        self._budget = budget or Budget()
        self._work = Work()
        self._on_token = on_token
        tokenizer = _with_padding(codec.tokenizer)
        model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
        device = None if getattr(model, "hf_device_map", None) else model.device
        self._rope = ChangingRope(model)
        self._sharing = sharing or self._tried(tokenizer.pad_token_id)
        self._pipeline = RenderedPipeline(model=model, tokenizer=tokenizer, task="text-generation", device=device)

    def _tried(self, pad: int) -> Sharing:
        if self._config.max_rows == 1:
            return Sharing()
        sharing, reason = find_sharing(self._model, pad, anew=not self._parallel)
        if reason is not None:
            self._meter.event("batches", f"batches have {sharing.describe()}: {reason}")
        return sharing

    def run(self, feed: Feed) -> Iterator[Completion]:
        try:
            yield from self._drain(feed)
        finally:
            if self._parallel:
                group.broadcast(None)

    def follow(self) -> None:
        """Compute what the leader of the group computes, until it is done."""
        while (requests := group.receive()) is not None:
            try:
                self._compute(requests)
            except Exception as error:  # the leader meets the same failure and decides what is computed next
                self._meter.event("failed", _first_line(error))

    def _drain(self, feed: Feed) -> Iterator[Completion]:
        while True:
            batch = feed.choose(self._plan)
            queued = self._meter.now()
            if batch:
                for requests in flags.call_groups(batch, drafts=bool(self._speculation)):
                    yield from self._completions(requests, queued)
            elif feed.exhausted:
                return
            else:
                feed.wait(1.0)

    def describe(self) -> PipelineFacts:
        return PipelineFacts(
            **model_facts(self._model).values(),
            engine="pipeline",
            processes=group.num_processes() if self._parallel else 1,
            batches=self._sharing.describe(),
            max_batch_rows=self._config.max_rows,
            max_batch_tokens=self._config.max_tokens,
            learned_batch_tokens=self._budget.tokens,
            speculation=tuple(sorted(self._speculation)),
            work=self._work.facts(),
        )

    def close(self) -> None:
        del self._model, self._pipeline
        release_memory()

    def _plan(self, ready: Sequence[Request]) -> tuple[list[Request], list[Request]]:
        return next_batch(ready, self._config.max_rows, self._budget.within(self._config.max_tokens), self._sharing)

    def _completions(self, requests: Sequence[Request], queued: float) -> Iterator[Completion]:
        started = self._meter.now()
        for row in self._answer(requests):
            yield row.completion(queued, started)

    def _answer(self, requests: Sequence[Request], again: bool = False) -> list[OpenAnswer]:
        """The finished rows of one call, in its order, whatever goes wrong on the way. `again`: of one row, that it
        ran out of memory once already."""
        try:
            if self._parallel:
                group.broadcast(list(requests))
            return self._compute(requests)
        except Exception as error:  # any failure of model or device costs at most the row that causes it
            out_of_memory = is_out_of_memory(error)
            reason = f"{type(error).__name__}: {_first_line(error)}"
        if out_of_memory:
            self._free_memory(requests)
        if len(requests) > 1:
            self._meter.event("split_batch", f"{len(requests)} rows computed again in halves after {reason}")
            half = len(requests) // 2
            return [*self._answer(requests[:half]), *self._answer(requests[half:])]
        if out_of_memory and not again:  # the memory may have been another's, or in pieces that are joined now
            return self._answer(requests, again=True)
        return [self._failed(requests[0], too_large(requests[0]) if out_of_memory else reason)]

    def _compute(self, requests: Sequence[Request]) -> list[OpenAnswer]:
        """One call of the pipeline for rows that share it."""
        rows = [OpenAnswer(request, self._codec) for request in requests]
        for row in rows:
            if not row.request.prompt_ids:
                row.fail("the prompt has no tokens; give the chat a turn with text, or check the chat template")
        open_rows = [row for row in rows if not row.done]
        if open_rows:
            self._call(open_rows)
        now = self._meter.now()
        for row in rows:
            row.finished_at = now if row.finished_at is None else row.finished_at
        return rows

    def _call(self, rows: Sequence[OpenAnswer]) -> None:
        settings = rows[0].request.settings
        started = self._meter.now()
        limit = max(row.request.settings.max_new_tokens for row in rows)
        if flags.is_handed_over(settings) or (self._speculation and flags.takes_drafts(settings)):
            steps = self._hand_over(rows, limit)
        else:
            choice = RowWiseChoice(rows, self._model, self._codec.token_texts, self._meter.now, self._on_token)
            self._generate(
                rows,
                max_new_tokens=limit,
                do_sample=False,
                logits_processor=LogitsProcessorList([choice]),
                stopping_criteria=StoppingCriteriaList([RowWiseStop(rows)]),
                **flags.generate_arguments(settings),
            )
            steps = max(len(row.token_ids) for row in rows)
            if choice.first_at is not None:
                width = max(len(row.request.prompt_ids) for row in rows)
                self._work.add(len(rows), width, steps, choice.first_at - started, self._meter.now() - choice.first_at)
        prompts = [len(row.request.prompt_ids) for row in rows]
        generated = sum(len(row.token_ids) for row in rows)
        self._meter.batch(len(rows), sum(prompts), generated, len(rows) * (max(prompts) + steps))

    def _hand_over(self, rows: Sequence[OpenAnswer], limit: int) -> int:
        """Let `generate` choose the tokens; how many steps it took. Each row's end is found in what it returns."""
        request = rows[0].request
        arguments = flags.handed_over_arguments(request.settings, self._pipeline.tokenizer)
        if not flags.is_handed_over(request.settings):
            arguments |= self._speculation
        if request.settings.bad_texts:
            banned = BannedTexts(request.settings, self._codec.token_texts(), len(request.prompt_ids))
            arguments["logits_processor"] = LogitsProcessorList([banned])
        with torch.random.fork_rng(enabled=arguments["do_sample"]):
            if arguments["do_sample"]:
                torch.manual_seed(request.seed % 2**63)
            found = self._generate(rows, max_new_tokens=limit, **arguments)
        for row, ids in zip(rows, found, strict=True):
            for token in ids:
                if row.done:
                    break
                row.add(token)
                if self._on_token is not None:
                    self._on_token(row.request, token)
            if not row.done:
                row.finish_reason = "length"
        return max(len(ids) for ids in found)

    def _generate(self, rows: Sequence[OpenAnswer], **arguments: Any) -> list[list[int]]:
        """New token ids per row, padding behind their ends included."""
        self._rope.forget()
        self._pipeline.call_count = 0  # many calls are meant here; the pipeline would advise against them
        requests = [row.request for row in rows]
        # The model's own generation config is bare; the pipeline's has lengths beside it, which `generate` warns of.
        bare = {"generation_config": None, **arguments}
        ids: list[list[int]] = self._pipeline(requests, batch_size=len(requests), **bare)
        return ids

    def _failed(self, request: Request, reason: str) -> OpenAnswer:
        row = OpenAnswer(request, self._codec)
        row.fail(f"the model could not answer this row: {reason}")
        row.finished_at = self._meter.now()
        return row

    def _free_memory(self, requests: Sequence[Request]) -> None:
        """Give back what the failed batch of `requests` held, and remember that it did not fit."""
        release_memory()
        self._meter.event("out_of_memory", f"a batch of {len(requests)} rows did not fit")
        if len(requests) > 1:
            self._budget.did_not_fit(padded_places(requests))


def build(context: EngineContext) -> PipelineEngine:
    """The engine of a recipe: loads its model."""
    return build_on(load(context), context)


def build_on(model: Any, context: EngineContext) -> PipelineEngine:
    """The engine of a recipe, on a model that is loaded already."""
    section = context.recipe.engine
    return PipelineEngine(
        model,
        context.codec,
        context.meter,
        EngineConfig(
            max_rows=section.max_batch_rows,
            max_tokens=section.batch_tokens,
            split_over_processes=context.recipe.model.parallel != "none",
        ),
        budget=context.budget,
        on_token=context.on_token,
        speculation=_speculation(model, context),
    )


def _speculation(model: Any, context: EngineContext) -> dict[str, Any]:
    """What `generate` must be told for the recipe's `model.draft`."""
    from batchchat.models.draft import load_draft

    draft = context.recipe.model.draft
    if draft is None:
        return {}
    context.meter.event(
        "one_row", "transformers speculates for one row at a time; engine.kind=continuous does for many"
    )
    small = load_draft(context.recipe.model, model, context.codec.tokenizer)
    if small is None:
        return {"prompt_lookup_num_tokens": draft.tokens, "max_matching_ngram_size": draft.ngram}
    small.generation_config.num_assistant_tokens = draft.tokens
    small.generation_config.num_assistant_tokens_schedule = "constant"
    return {"assistant_model": small}


def _with_padding(tokenizer: Any) -> Any:
    """A tokenizer with a padding token. Padded places are masked, so any token will do; the original, whose special
    tokens templates can see, stays as it is."""
    if tokenizer.pad_token_id is not None:
        return tokenizer
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return padded


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no further words"
