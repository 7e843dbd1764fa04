"""The engine: requests go from the feed to vLLM, and leave as soon as it has ended them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batchchat.chats import Completion, Request
from batchchat.engines.answer import OpenAnswer
from batchchat.engines.base import EngineContext
from batchchat.engines.facts import VllmFacts
from batchchat.engines.memory import release_memory
from batchchat.engines.vllm.forms import Forms
from batchchat.engines.vllm.loading import Started, close_groups, start, words_of
from batchchat.engines.vllm.sampling import read_logprob, refusal, sampling_params
from batchchat.errors import BadRow, EnvironmentFault
from batchchat.models.shape import empty_model
from batchchat.models.text import load_config
from batchchat.sampling.constraints import ConstrainedRow
from batchchat.schedule import Feed

_WAIT_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Flight:
    """A request that vLLM computes."""

    answer: OpenAnswer
    queued: float
    form: ConstrainedRow | None = None


class VllmEngine:
    """Drains a feed through vLLM's engine, with as many requests in flight as it computes at once. Where an answer ends
    is decided here, as for every engine: by the tokens, which vLLM gives as a whole unless something is to be found in
    the text on the way."""

    def __init__(self, context: EngineContext, started: Started):
        self._engine = started.engine
        self._adapter = started.adapter
        self._strict = started.strict
        self._recipe = context.recipe
        self._codec = context.codec
        self._meter = context.meter
        self._on_token = context.on_token
        self._max_rows = context.recipe.engine.max_batch_rows
        self._forms = Forms(started.engine, context.codec.token_texts)
        self._flights: dict[str, Flight] = {}
        self._num_reused = 0

    def run(self, feed: Feed) -> Iterator[Completion]:
        """Raises EnvironmentFault where vLLM fails, after which it computes nothing more; what was answered is kept."""
        try:
            while True:
                for request in feed.take(self._max_rows - len(self._flights)):
                    refused = self._add(request)
                    if refused is not None:
                        yield refused
                if self._flights:
                    yield from self._step()
                elif feed.exhausted:
                    return
                else:
                    feed.wait(_WAIT_SECONDS)
        finally:  # nothing is left in flight unless the run is left early
            self._abort(list(self._flights))

    def describe(self) -> VllmFacts:
        import vllm

        config = self._engine.vllm_config
        cache, model = config.cache_config, config.model_config
        return VllmFacts(
            engine="vllm",
            version=vllm.__version__,
            model_class=model.architecture,
            parameters=self._parameters(),
            dtype=str(model.dtype).removeprefix("torch."),
            devices=(config.device_config.device_type,),
            reproducible="strict" if self._strict else "fast",
            quantization=model.quantization,
            tensor_parallel=config.parallel_config.tensor_parallel_size,
            max_rows=self._max_rows,
            max_context=model.max_model_len,
            kv_budget_tokens=max(0, (cache.num_gpu_blocks or 0) - 1) * cache.block_size,
            prompt_tokens_reused=self._num_reused,
        )

    def close(self) -> None:
        self._abort(list(self._flights))
        self._engine.engine_core.shutdown()
        del self._engine
        close_groups()
        release_memory()

    def _add(self, request: Request) -> Completion | None:
        """Hand a request to vLLM; the completion of one that it does not compute."""
        flight = Flight(OpenAnswer(request, self._codec), self._meter.now(wait=False))
        if flight.answer.done:
            return self._completion(flight)
        name = "-".join(map(str, request.key))
        try:
            self._require(request)
            if request.settings.structured is not None:
                flight.form = self._forms.open(name, request)
            in_pieces = self._on_token is not None or bool(request.settings.stop)
            params = sampling_params(request, in_pieces=in_pieces, form=None if flight.form is None else name)
            self._engine.add_request(name, _prompt(request), params, lora_request=self._adapter)
        except BadRow as error:
            flight.answer.fail(str(error))
        except _refusals() as error:
            flight.answer.fail(f"vLLM refused the request: {words_of(error)}")
        else:
            self._flights[name] = flight
            return None
        self._forms.close([name])
        return self._completion(flight)

    def _require(self, request: Request) -> None:
        """Raises BadRow for what vLLM would not do, or not as it is asked."""
        if not request.prompt_ids:
            raise BadRow("the prompt has no tokens; give the chat some text")
        length = len(request.prompt_ids) + request.settings.max_new_tokens
        longest = self._engine.vllm_config.model_config.max_model_len
        if length > longest:
            raise BadRow(
                f"{length} tokens of prompt and answer do not fit into the {longest} for which vLLM has room; raise "
                "engine.max_batch_tokens or engine.vllm.gpu_memory, or lower generation.max_new_tokens"
            )
        guesses = self._engine.vllm_config.speculative_config is not None
        reason = refusal(request.settings, self._recipe.generation.logprobs_of, guesses=guesses)
        if reason is not None:
            raise BadRow(reason)

    def _step(self) -> Iterator[Completion]:
        try:
            outputs = self._engine.step()
        except Exception as error:  # its state is lost with it
            raise EnvironmentFault(
                f"vLLM failed ({type(error).__name__}: {words_of(error)}). What was answered is kept; run the same "
                "command again"
            ) from error
        in_flight, done = len(self._flights), list[Completion]()
        for output in outputs:
            flight = self._flights.get(output.request_id)
            if flight is None:
                continue
            self._read(flight, output)
            if not flight.answer.done:
                continue
            if not output.finished:
                self._abort([output.request_id])
            self._drop([output.request_id])
            self._num_reused += output.num_cached_tokens or 0
            done.append(self._completion(flight))
        for completion in done:
            prompt, written = completion.prompt_tokens, completion.completion_tokens
            self._meter.batch(in_flight, prompt, written, prompt + written)
            yield completion

    def _read(self, flight: Flight, output: Any) -> None:
        """The tokens that came. Those behind the answer's end are none of it."""
        answer, (choice,) = flight.answer, output.outputs
        count = answer.request.settings.logprobs
        for place, token_id in enumerate(choice.token_ids):
            if answer.done:
                break
            answer.add(token_id, None if count is None else read_logprob(token_id, choice.logprobs[place], count))
            if self._on_token is not None:
                self._on_token(answer.request, token_id)
        if flight.form is not None and flight.form.failure is not None:
            answer.fail(flight.form.failure)
        elif output.finished and not answer.done:
            answer.fail(f"vLLM ended the answer before its end ({choice.finish_reason})")

    def _completion(self, flight: Flight) -> Completion:
        flight.answer.finished_at = self._meter.now(wait=False)
        return flight.answer.completion(flight.queued, flight.queued)

    def _abort(self, names: list[str]) -> None:
        if names:
            self._engine.abort_request(names)
        self._drop(names)

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            self._flights.pop(name, None)
        self._forms.close(names)

    def _parameters(self) -> int | None:
        """Weights of the model as its config describes it: vLLM lays them out in its own way."""
        section = self._recipe.model
        try:
            return int(empty_model(load_config(section), section.trust_remote_code).num_parameters())
        except Exception:  # vLLM runs models that transformers does not make
            return None


def _prompt(request: Request) -> Any:
    from vllm.inputs import tokens_input

    return tokens_input(list(request.prompt_ids))


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a request that is wrong."""
    from vllm.exceptions import VLLMClientError

    return (ValueError, TypeError, VLLMClientError)


def build(context: EngineContext) -> VllmEngine:
    """From a recipe's `engine` section. Raises what `loading.start` raises."""
    return VllmEngine(context, start(context))
