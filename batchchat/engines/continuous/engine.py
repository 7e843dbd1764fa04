"""In-flight batching: rows leave the moment they end, and the feed's next request takes their place at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch

from batchchat.chats import Completion
from batchchat.engines.base import EngineConfig, EngineMeter, TokenListener
from batchchat.engines.continuous.acceleration import QUANTIZED
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.graphs import Record
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.passes import INVARIANT_CHUNK, Part, parts, recorded_forms
from batchchat.engines.continuous.pools import bucket
from batchchat.engines.continuous.scheduler import Scheduler
from batchchat.engines.continuous.sequence import SequenceState
from batchchat.engines.continuous.speculative.drafters import Drafter, Drafts
from batchchat.engines.continuous.speculative.speculation import Speculation
from batchchat.engines.continuous.writing import Chosen, Writing
from batchchat.engines.facts import ContinuousFacts
from batchchat.engines.memory import Budget, is_out_of_memory, release_memory, too_large
from batchchat.engines.work import Work
from batchchat.models.facts import model_facts
from batchchat.prompts import Codec
from batchchat.sampling import Reader
from batchchat.schedule import Feed

_WAIT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was launched."""

    spans: list[Span[SequenceState]]
    sampled: list[Span[SequenceState]]
    """Those of the sequences that get a token, in the order of the sampler's rows."""
    parts: list[Part]
    """Its passes, with the places that they really have."""
    logits: torch.Tensor
    chosen: Chosen
    prompts: bool
    """Whether it reads some."""
    drafted: bool
    """Whether drafts were asked for."""
    began: float


class ContinuousEngine:
    """Drains a feed through one model with up to `max_rows` requests in flight.

    `drafter` proposes tokens that are verified several at a time, where that is faster. `record` makes recordings of
    steps (`graphs`). `read_by`: how chosen tokens come to the host. `undo` gives the model back its own way of
    computing when the engine is closed.
    """

    def __init__(
        self,
        model: Any,
        codec: Codec,
        meter: EngineMeter,
        config: EngineConfig,
        *,
        on_token: TokenListener | None = None,
        budget: Budget | None = None,
        drafter: Drafter | None = None,
        record: Record | None = None,
        read_by: Reader | None = None,
        undo: Callable[[], None] = lambda: None,
    ):
        self._config = config
        self._batch_invariant = config.batch_invariant
        self._budget = budget or Budget()
        device = model.get_input_embeddings().weight.device
        granularity = INVARIANT_CHUNK if self._batch_invariant else 1
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._cache = make_cache(config.cache, device, config.max_tokens, granularity, longest)
        self._cache.budget = self._budget.within(config.max_tokens)
        self._starved: SequenceState | None = None
        """The request for which memory ran out just now, with nothing left to give up."""
        self._held: list[Completion] = []
        """What ended in the last step and was not given away yet."""
        self._unread: Step | None = None
        """The last step, whose tokens the host does not know yet."""
        self._read_at = 0.0
        """When the last step's tokens were known."""
        self._runner = ModelRunner(model, self._cache)
        self._scheduler = Scheduler(self._cache, config.max_rows, config.chunk, self._batch_invariant)
        self._work = Work()
        self._codec = codec
        self._meter = meter
        vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self._writing = Writing(vocab_size, device, codec, on_token, read_by)
        self._speculation = None if drafter is None else Speculation(drafter, meter, config.always_draft)
        self._undo = undo
        self._recording_seconds = 0.0
        if record is not None:
            self._record(record)

    def run(self, feed: Feed) -> Iterator[Completion]:
        try:
            yield from self._drain(feed)
        finally:  # nothing is left in flight unless the run is left early
            self._give_up()

    def _drain(self, feed: Feed) -> Iterator[Completion]:
        while True:
            yield from self._take(feed)
            try:
                too_long = self._scheduler.admit()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                yield from self._catch_up()
                yield from self._after_out_of_memory()
                continue
            for sequence in too_long:
                yield self._too_long(sequence)
            if self._scheduler.running:
                yield from self._step()
            elif self._scheduler.idle:
                yield from self._catch_up()
                if feed.exhausted:
                    return
                feed.wait(_WAIT_SECONDS)

    def describe(self) -> ContinuousFacts:
        recordings = self._runner.recordings
        return ContinuousFacts(
            **model_facts(self._runner.model).values(),
            engine="continuous",
            reproducible="strict" if self._batch_invariant else "fast",
            passes=self._passes(),
            computed_by=self._runner.computed_by,
            products=self._runner.products,
            quantized=QUANTIZED.get(self._runner.model),
            pages=self._cache.attended_by(),
            work=self._work.facts(),
            max_rows=self._scheduler.max_rows,
            kv_budget_tokens=self._cache.budget,
            kv_peak_tokens=self._cache.peak_tokens,
            prompt_tokens_reused=self._scheduler.num_reused,
            preempted=self._scheduler.num_preempted,
            steps_recorded=0 if recordings is None else len(recordings),
            recording_seconds=self._recording_seconds,
            steps_replayed=0 if recordings is None else recordings.num_replayed,
            learned_batch_tokens=self._budget.tokens,
            drafts=None if self._speculation is None else self._speculation.describe(),
        )

    def _passes(self) -> Literal["of any size", "of fixed size"] | None:
        if not self._batch_invariant:
            return None
        return "of any size" if self._config.products_are_invariant else "of fixed size"

    def close(self) -> None:
        self._give_up()
        self._cache.drop_idle()
        self._speculation = None
        self._undo()
        self._undo = lambda: None
        del self._runner
        release_memory()

    def _record(self, record: Record) -> None:
        """Record the passes that take longer to launch than to compute."""
        began = self._meter.now()
        try:
            self._runner.record(record, recorded_forms(self._config), self._batch_invariant)
        except Exception as error:  # a model may do what cannot be recorded
            words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._meter.event("not_recorded", f"steps cannot be recorded, and are computed one by one ({words})")
            release_memory()
        self._recording_seconds = self._meter.now() - began
        if self._runner.recordings is not None:
            number = len(self._runner.recordings)
            self._meter.event("recorded", f"steps of {number} sizes were recorded in {self._recording_seconds:.1f} s")

    def _give_up(self) -> None:
        self._unread, self._held = None, []
        self._scheduler.give_up()
        self._writing.keep()

    def _take(self, feed: Feed) -> Iterator[Completion]:
        """Take as many requests as there is room for. What needs no model is answered at once."""
        while self._scheduler.room > 0:
            requests = feed.choose(self._scheduler.pick)
            if not requests:
                return
            now = self._meter.now(wait=False)
            answered = []
            for request in requests:
                sequence = SequenceState(request, self._codec, now)
                if not request.prompt_ids:
                    answered.append(sequence.completion(now, "the prompt has no tokens; give the chat some text"))
                elif request.settings.flags:
                    flag = request.settings.flags[0][0]
                    reason = f"the continuous engine does not know {flag}; set engine.kind=pipeline"
                    answered.append(sequence.completion(now, reason))
                elif (refused := self._writing.refusal(request)) is not None:
                    answered.append(sequence.completion(now, refused))
                elif sequence.answer.done:
                    answered.append(sequence.completion(now))
                else:
                    self._scheduler.add(sequence)
            yield from answered

    def _step(self) -> Iterator[Completion]:
        """Compute the next tokens of everything in flight, and give back what ended: before they are read where the
        device runs ahead, with those of the step before."""
        if self._unread is not None and not self._scheduler.can_go_ahead():
            yield from self._catch_up()
        for sequence in self._scheduler.outgrown():
            self._scheduler.fail(sequence)
            yield self._too_long(sequence)
        self._writing.keep()
        if not self._scheduler.running:
            return
        try:
            step = self._launch()
        except Exception as error:  # whatever a model raises is tried again apart, and told where it happens again
            yield from self._catch_up()
            yield from self._after_out_of_memory() if is_out_of_memory(error) else self._bisect(error)
            return
        yield from self._catch_up()  # an accelerator is computing now
        self._starved, self._unread = None, step
        if not self._config.overlap or self._speculation is not None:
            self._held = self._read()
        if not self._config.overlap or not self._scheduler.running:
            yield from self._catch_up()

    def _catch_up(self) -> Iterator[Completion]:
        """Read the tokens of the last step, and give away what ended."""
        held, self._held = [*self._held, *self._read()], []
        yield from held

    def _launch(self) -> Step:
        """Plan a step, compute its passes and choose its tokens, without a wait for any of it."""
        began = self._meter.now(wait=False)
        writing = self._writing
        drafts = None if self._speculation is None else self._speculation.drafts(writing.live, writing.sampler)
        spans = self._plan(drafts or {})
        place = {sequence: row for row, sequence in enumerate(writing.live)}
        spans.sort(key=lambda span: place.get(span.sequence, len(place)))
        logits, passes = self._compute(spans)
        sampled = [span for span in spans if span.sampled]
        writing.begin([span.sequence for span in sampled if span.sequence not in place])
        firsts = list(accumulate((span.num_logits for span in sampled), initial=0))[:-1]
        chosen = writing.choose(logits if len(logits) == len(firsts) else logits[firsts])
        self._scheduler.advance(spans)
        prompts = len(spans) > len(place)
        return Step(spans, sampled, passes, logits, chosen, prompts, drafts is not None, began)

    def _read(self) -> list[Completion]:
        """The tokens of the last step. Returns the completions of what ends with them."""
        if self._unread is None:
            return []
        step, self._unread = self._unread, None
        taking = self._writing.read(step.chosen)
        if self._speculation is not None:
            self._writing.verify(step.logits, [span.drafts for span in step.sampled])
        now = self._meter.now(wait=False)
        self._account(step, taking, now - max(step.began, self._read_at))
        self._read_at = now
        return self._ended(taking, now)

    def _plan(self, drafts: Drafts) -> list[Span[SequenceState]]:
        """The spans of the next step. Sequences that lost their slots for it no longer write."""
        preempted = self._scheduler.num_preempted
        spans = self._scheduler.plan(drafts)
        if self._scheduler.num_preempted > preempted:
            self._meter.event("preempted", f"KV budget of {self._cache.budget} tokens spent; begun again later")
            self._writing.keep()
        return spans

    def _compute(self, spans: list[Span[SequenceState]]) -> tuple[torch.Tensor, list[Part]]:
        """Run the passes of a step. Logits `[places, vocabulary]` of the sampled spans, in their order, and the passes
        with the places that they have."""
        now = self._meter.now(wait=False)
        for span in spans:
            if span.sequence.started is None:
                span.sequence.started = now
        logits, passes = [], []
        planned = list(parts(spans, self._config))
        for part in planned:
            own, size, num_logits = part
            work = self._cache.lay_out(
                own, self._runner.device, size, num_logits, batch_invariant=self._batch_invariant
            )
            self._writing.fill(work)
            found = self._runner.forward(work)  # valid until the next pass
            logits.append(found if len(planned) == 1 else found.clone())
            passes.append(part._replace(size=work.size))
        return logits[0] if len(logits) == 1 else torch.cat(logits), passes

    def _account(self, step: Step, taking: list[SequenceState], seconds: float) -> None:
        """A step took so long. `taking`: the sequences that took a token of it."""
        took = set(taking)
        for part in step.parts:
            self._count(part, took)
        self._work.add_pass(
            prompts=step.prompts,
            places=sum(part.size for part in step.parts),
            outputs=len(step.logits),
            seen=sum(span.count * span.end for span in step.spans),
            cached=sum(span.end for span in step.spans),
            seconds=seconds,
            passes=len(step.parts),
        )
        if self._speculation is not None:
            self._speculation.verified(step.sampled)
            if not step.prompts:
                self._speculation.took(step.spans, step.drafted, seconds)

    def _count(self, part: Part, took: set[SequenceState]) -> None:
        prompt_tokens, generated, places = 0, 0, part.size
        for span in part.spans:
            sequence, known = span.sequence, span.known
            if known <= sequence.num_prompt:
                prompt_tokens += span.count
                # An answer's first token comes from the prompt's last place, and has none of its own.
                places += span.sampled
            if span.sampled and sequence in took:
                generated += sequence.num_known - known
        self._meter.batch(len(part.spans), prompt_tokens, generated, places)

    def _ended(self, taking: list[SequenceState], now: float) -> list[Completion]:
        """Settle what the sequences computed, and give up the slots of those that are done."""
        done = []
        for sequence in taking:
            if self._speculation is not None or sequence.answer.done:
                self._scheduler.settle(sequence)
            if not sequence.answer.done:
                continue
            if sequence.answer.error is None:
                self._scheduler.finish(sequence)
            else:
                self._scheduler.fail(sequence)
            done.append(sequence.completion(now))
        if done:
            self._writing.keep()
        return done

    def _bisect(self, error: Exception) -> Iterator[Completion]:
        """A step failed: its requests are computed again apart, and the one that fails alone is an error."""
        words = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        guilty = self._scheduler.bisect()
        self._writing.keep()
        if guilty is None:
            self._meter.event("retry", f"a step failed ({words}); its requests are computed again apart")
        else:
            yield guilty.completion(self._meter.now(wait=False), f"the model failed on this request alone ({words})")

    def _after_out_of_memory(self) -> Iterator[Completion]:
        """Memory ran out: what is in flight gets less of it, for the rest of the run. Where nothing is left to give up,
        the request that needs it is tried once more, and is an error if it still does not fit."""
        running, allocating = list(self._scheduler.running), self._scheduler.allocating
        self._scheduler.allocating = None
        held = self._cache.active_tokens
        self._meter.event("out_of_memory", f"{len(running)} requests in {held} tokens of KV memory did not fit")
        if len(running) + (allocating is not None) > 1:
            self._budget.did_not_fit(held if allocating is None else 2 * held)
            self._cache.budget = self._budget.within(self._cache.limit)
        eased = bool(running) if allocating is not None else self._scheduler.shrink(self._cache.budget)
        self._writing.keep()
        self._cache.drop_idle()
        release_memory()
        if eased:
            return
        starved = running[0] if allocating is None else allocating
        if starved is self._starved:
            self._scheduler.drop(starved)
            self._writing.keep()
            yield starved.completion(self._meter.now(wait=False), too_large(starved.request))
        self._starved = starved

    def _too_long(self, sequence: SequenceState) -> Completion:
        length, budget = len(sequence.tokens), self._cache.budget
        reason = (
            f"{length} tokens of prompt and answer do not fit into the KV budget of {budget} tokens; "
            f"raise engine.max_batch_tokens to {bucket(2 * length)}"
        )
        return sequence.completion(self._meter.now(wait=False), reason)
