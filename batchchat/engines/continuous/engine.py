"""In-flight batching: rows leave the moment they end, and the feed's next request takes their place at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch

from batchchat.chats import Completion
from batchchat.engines.base import EngineConfig, EngineMeter, TokenListener
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.graphs import Record
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.pools import bucket
from batchchat.engines.continuous.scheduler import Scheduler
from batchchat.engines.continuous.sequence import SequenceState
from batchchat.engines.continuous.speculative.drafters import Drafter, Drafts
from batchchat.engines.continuous.speculative.speculation import Speculation
from batchchat.engines.facts import ContinuousFacts
from batchchat.engines.memory import Budget, is_out_of_memory, release_memory, too_large
from batchchat.engines.work import Work
from batchchat.models.facts import model_facts
from batchchat.prompts import Codec
from batchchat.sampling import Choice, SamplerRows
from batchchat.schedule import Feed

_CHUNK = 256
_INVARIANT_CHUNK = 64
_INVARIANT_ROWS = 16
_WAIT_SECONDS = 0.1


class ContinuousEngine:
    """Drains a feed through one model with up to `max_rows` requests in flight.

    `drafter` proposes tokens that are verified several at a time, where that is faster. `record` makes recordings of
    steps (`graphs`). `undo` gives the model back its own way of computing when the engine is closed.
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
        undo: Callable[[], None] = lambda: None,
    ):
        self._config = config
        self._batch_invariant = config.batch_invariant
        self._budget = budget or Budget()
        device = model.get_input_embeddings().weight.device
        granularity = _INVARIANT_CHUNK if self._batch_invariant else 1
        self._cache = make_cache(config.cache, device, config.max_tokens, granularity)
        self._cache.budget = self._budget.within(config.max_tokens)
        self._starved: SequenceState | None = None
        """The request for which memory ran out just now, with nothing left to give up."""
        self._held: list[Completion] = []
        """What ended in the last step and was not given away yet."""
        self._runner = ModelRunner(model, self._cache, record, lambda why: meter.event("not_recorded", why))
        self._scheduler = Scheduler(self._cache, config.max_rows, _CHUNK, self._batch_invariant)
        self._work = Work()
        self._codec = codec
        self._meter = meter
        self._on_token = on_token
        self._live: list[SequenceState] = []
        """Sequences that write, in the order of the sampler's rows."""
        self._vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self._sampler = SamplerRows(self._vocab_size, self._runner.device, texts=codec.token_texts)
        self._speculation = None if drafter is None else Speculation(drafter, meter, config.always_draft)
        self._undo = undo

    def run(self, feed: Feed) -> Iterator[Completion]:
        try:
            yield from self._drain(feed)
        finally:  # nothing is left in flight unless the run is left early
            self._scheduler.give_up()
            self._keep_live()

    def _drain(self, feed: Feed) -> Iterator[Completion]:
        while True:
            yield from self._take(feed)
            try:
                too_long = self._scheduler.admit()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                yield from self._after_out_of_memory()
                continue
            for sequence in too_long:
                yield self._too_long(sequence)
            if self._scheduler.running:
                yield from self._step()
            elif self._scheduler.idle:
                yield from self._give_away()
                if feed.exhausted:
                    return
                feed.wait(_WAIT_SECONDS)

    def describe(self) -> ContinuousFacts:
        return ContinuousFacts(
            **model_facts(self._runner.model).values(),
            engine="continuous",
            reproducible="strict" if self._batch_invariant else "fast",
            passes=None
            if not self._batch_invariant
            else "of any size"
            if self._config.products_are_invariant
            else "of fixed size",
            computed_by=self._runner.computed_by,
            work=self._work.facts(),
            max_rows=self._scheduler.max_rows,
            kv_budget_tokens=self._cache.budget,
            kv_peak_tokens=self._cache.peak_tokens,
            prompt_tokens_reused=self._scheduler.num_reused,
            preempted=self._scheduler.num_preempted,
            steps_replayed=self._runner.num_replayed,
            learned_batch_tokens=self._budget.tokens,
            drafts=None if self._speculation is None else self._speculation.describe(),
        )

    def close(self) -> None:
        self._scheduler.give_up()
        self._keep_live()
        self._cache.drop_idle()
        self._speculation = None
        self._undo()
        self._undo = lambda: None
        del self._runner
        release_memory()

    def _take(self, feed: Feed) -> Iterator[Completion]:
        """Take as many requests as there is room for. What needs no model is answered at once."""
        while self._scheduler.room > 0:
            requests = feed.choose(self._scheduler.pick)
            if not requests:
                return
            now = self._meter.now()
            answered = []
            for request in requests:
                sequence = SequenceState(request, self._codec, now)
                if not request.prompt_ids:
                    answered.append(sequence.completion(now, "the prompt has no tokens; give the chat some text"))
                elif request.settings.flags:
                    flag = request.settings.flags[0][0]
                    reason = f"the continuous engine does not know {flag}; set engine.kind=pipeline"
                    answered.append(sequence.completion(now, reason))
                elif (refused := self._sampler.refusal(request)) is not None:
                    answered.append(sequence.completion(now, refused))
                elif sequence.answer.done:
                    answered.append(sequence.completion(now))
                else:
                    self._scheduler.add(sequence)
            yield from answered

    def _step(self) -> Iterator[Completion]:
        """Compute the next tokens of everything in flight, and give back what ended."""
        for sequence in self._scheduler.outgrown():
            self._scheduler.fail(sequence)
            yield self._too_long(sequence)
        self._keep_live()
        began = self._meter.now()
        drafts = None if self._speculation is None else self._speculation.drafts(self._live, self._sampler)
        try:
            spans = self._plan(drafts or {})
            place = {id(sequence): row for row, sequence in enumerate(self._live)}
            spans.sort(key=lambda span: place.get(id(span.sequence), len(place)))
            logits, passes = self._compute(spans)
        except Exception as error:  # whatever a model raises is tried again apart, and told where it happens again
            yield from self._give_away()
            yield from self._after_out_of_memory() if is_out_of_memory(error) else self._bisect(error)
            return
        yield from self._give_away()  # an accelerator is computing now
        self._starved = None
        self._scheduler.advance(spans)
        sampled = [span for span in spans if span.sampled]
        self._begin([span.sequence for span in sampled if id(span.sequence) not in place])
        self._held = self._write(logits, [span.drafts for span in sampled]) if sampled else []
        for part, size in passes:
            self._count(part, size)
        seconds = self._meter.now() - began
        self._work.add_pass(
            prompts=len(spans) > len(place),
            places=sum(size for _, size in passes),
            outputs=len(logits),
            seen=sum(span.count * span.end for span in spans),
            cached=sum(span.end for span in spans),
            seconds=seconds,
            passes=len(passes),
        )
        if self._speculation is not None:
            self._speculation.verified(sampled)
            if len(spans) == len(place):
                self._speculation.took(spans, drafts is not None, seconds)
        if not self._config.overlap or not self._scheduler.running:
            yield from self._give_away()

    def _give_away(self) -> Iterator[Completion]:
        held, self._held = self._held, []
        yield from held

    def _plan(self, drafts: Drafts) -> list[Span[SequenceState]]:
        """The spans of the next step. Sequences that lost their slots for it no longer write."""
        preempted = self._scheduler.num_preempted
        spans = self._scheduler.plan(drafts)
        if self._scheduler.num_preempted > preempted:
            self._meter.event("preempted", f"KV budget of {self._cache.budget} tokens spent; begun again later")
        self._keep_live()
        return spans

    def _compute(
        self, spans: list[Span[SequenceState]]
    ) -> tuple[torch.Tensor, list[tuple[list[Span[SequenceState]], int]]]:
        """Run the passes of a step. Logits `[places, vocabulary]` of the sampled spans, in their order, and what each
        pass computed in how many places."""
        now = self._meter.now()
        for span in spans:
            if span.sequence.started is None:
                span.sequence.started = now
        logits, passes = [], []
        for part, size, num_logits in self._parts(spans):
            work = self._cache.lay_out(
                part, self._runner.device, size, num_logits, batch_invariant=self._batch_invariant
            )
            logits.append(self._runner.forward(work))
            passes.append((part, work.size))
        return logits[0] if len(logits) == 1 else torch.cat(logits), passes

    def _parts(self, spans: list[Span[SequenceState]]) -> Iterator[tuple[list[Span[SequenceState]], int, int]]:
        """The step's spans in passes, each with its number of tokens and of logits: all in one with a little padding,
        or in strict mode in passes of fixed size, unless they may have any."""
        if not self._batch_invariant or self._config.products_are_invariant:
            tokens, logits = sum(span.count for span in spans), sum(span.num_logits for span in spans)
            least = 2 if self._batch_invariant else 1  # one row alone is summed up in another way
            yield spans, max(least, _round_up(tokens)), max(least, _round_up(logits)) if logits else 0
            return
        writing = [span for span in spans if span.sequence.is_writing]
        for first in range(0, len(writing), _INVARIANT_ROWS):
            yield writing[first : first + _INVARIANT_ROWS], _INVARIANT_ROWS, _INVARIANT_ROWS
        for span in spans:
            if not span.sequence.is_writing:
                yield [span], _INVARIANT_CHUNK, int(span.sampled)

    def _count(self, part: list[Span[SequenceState]], size: int) -> None:
        reading = [span for span in part if span.known <= span.sequence.num_prompt]
        # An answer's first token comes from the prompt's last place, so it has no place of its own among the computed.
        places = size + sum(span.sampled for span in reading)
        generated = sum(len(span.sequence.tokens) - span.known for span in part if span.sampled)
        self._meter.batch(len(part), sum(span.count for span in reading), generated, places)

    def _begin(self, sequences: list[SequenceState]) -> None:
        """Sequences whose prompt is computed begin to write."""
        if sequences:
            self._live += sequences
            self._sampler.extend([sequence.request for sequence in sequences])

    def _keep_live(self) -> None:
        """Drop the sampler's rows of sequences that are no longer in flight."""
        keep = [row for row, sequence in enumerate(self._live) if sequence.slot is not None]
        if len(keep) < len(self._live):
            self._live = [self._live[row] for row in keep]
            self._sampler.select(keep)

    def _write(self, logits: torch.Tensor, drafts: list[tuple[int, ...]]) -> list[Completion]:
        """Choose the next tokens of every writing sequence: one, and a further one for each draft that was right.
        Returns the completions of those that end with them."""
        firsts = list(accumulate((1 + len(draft) for draft in drafts), initial=0))
        going_on = list(range(len(self._live)))
        for number in range(1 + max(map(len, drafts))):
            if number == 0:
                choice = self._sampler.choose(logits if len(logits) == len(self._live) else logits[firsts[:-1]])
            else:
                places = list(firsts[:-1])
                for row in going_on:
                    places[row] += number
                choice = self._sampler.choose(logits[places])
            self._sampler.append(choice.ids, going_on)
            ids = self._take_choice(choice, going_on)
            going_on = [
                row
                for row in going_on
                if number < len(drafts[row]) and ids[row] == drafts[row][number] and not self._live[row].answer.done
            ]
            if not going_on:
                break
        return self._ended(drafts)

    def _take_choice(self, choice: Choice, rows: list[int]) -> list[int]:
        """Give the chosen tokens to the sequences of these rows. All ids."""
        ids, failed = choice.ids.tolist(), choice.failed.tolist()
        for row in rows:
            sequence = self._live[row]
            if failed[row]:
                step = len(sequence.answer.token_ids) + 1
                reason = f"the model's logits for token {step} of the answer are not numbers; try model.dtype=float32"
                sequence.answer.fail(reason)
            else:
                sequence.add(ids[row], None if choice.logprobs is None else choice.logprobs[row])
                self._report_token(sequence)
        return ids

    def _ended(self, drafts: list[tuple[int, ...]]) -> list[Completion]:
        """Settle what the sequences computed, and give up the slots of those that are done."""
        now = self._meter.now()
        done = []
        for sequence, draft in zip(self._live, drafts, strict=True):
            if draft:
                self._scheduler.settle(sequence)
            if not sequence.answer.done:
                continue
            if sequence.answer.error is None:
                self._scheduler.finish(sequence)
            else:
                self._scheduler.fail(sequence)
            done.append(sequence.completion(now))
        self._keep_live()
        return done

    def _report_token(self, sequence: SequenceState) -> None:
        written = len(sequence.answer.token_ids)
        if self._on_token is not None and written > sequence.num_reported:
            self._on_token(sequence.request, sequence.tokens[-1])
            sequence.num_reported = written

    def _bisect(self, error: Exception) -> Iterator[Completion]:
        """A step failed: its requests are computed again apart, and the one that fails alone is an error."""
        words = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        guilty = self._scheduler.bisect()
        self._keep_live()
        if guilty is None:
            self._meter.event("retry", f"a step failed ({words}); its requests are computed again apart")
        else:
            yield guilty.completion(self._meter.now(), f"the model failed on this request alone ({words})")

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
        self._keep_live()
        self._cache.drop_idle()
        release_memory()
        if eased:
            return
        starved = running[0] if allocating is None else allocating
        if starved is self._starved:
            self._scheduler.drop(starved)
            self._keep_live()
            yield starved.completion(self._meter.now(), too_large(starved.request))
        self._starved = starved

    def _too_long(self, sequence: SequenceState) -> Completion:
        length, budget = len(sequence.tokens), self._cache.budget
        reason = (
            f"{length} tokens of prompt and answer do not fit into the KV budget of {budget} tokens; "
            f"raise engine.max_batch_tokens to {bucket(2 * length)}"
        )
        return sequence.completion(self._meter.now(), reason)


def _round_up(count: int) -> int:
    """A number of rows that products see more often: the first one of a shape costs as much as ten later ones."""
    step = 1 if count <= 8 else 4 if count <= 64 else 16
    return -(-count // step) * step


def pass_sizes(max_rows: int) -> set[int]:
    """The numbers of places and of logits that strict passes may have with up to `max_rows` requests in flight."""
    return {_round_up(count) for count in range(2, max_rows + _CHUNK + 1)}
