"""A request's settings as vLLM takes them, and its log-probabilities as we keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from batchchat.chats import Logprob, Request, Settings

_LEAST_TEMPERATURE = 0.01
"""vLLM raises what is less to this, in silence."""


def refusal(settings: Settings, logprobs_of: str, *, guesses: bool = False) -> str | None:
    """Why vLLM would not do what a row asks for; `logprobs_of` is that of all rows, and `guesses` says whether it
    guesses tokens ahead."""
    if settings.flags:
        return f"vLLM does not know {settings.flags[0][0]}, a flag of transformers; set engine.kind=pipeline"
    if settings.structured is not None and guesses:
        return "no form is kept where vLLM guesses ahead; leave engine.vllm.args: {speculative_config: …} out"
    if settings.structured is not None and settings.logprobs is not None:
        return (
            "vLLM gives the log-probabilities of what an answer's form allows, not the model's own; leave "
            "generation.logprobs out, or set engine.kind=continuous"
        )
    if settings.bad_words or settings.bad_texts:
        return "vLLM bans tokens and not texts; leave generation.bad_words out, or set engine.kind=continuous"
    if 0 < settings.temperature < _LEAST_TEMPERATURE:
        return (
            f"vLLM samples with a temperature of {_LEAST_TEMPERATURE:g} at least, and this row asks for "
            f"{settings.temperature:g}; set generation.temperature=0"
        )
    if settings.logprobs is not None and settings.logprobs_of != logprobs_of:
        return f"vLLM gives log-probabilities of one kind in a run; set generation.logprobs_of={settings.logprobs_of}"
    return None


def sampling_params(request: Request, *, in_pieces: bool, form: str | None = None) -> Any:
    """`vllm.SamplingParams`. All ends are the request's own. With `in_pieces` tokens come as they are chosen, else all
    at the end; `form` is the name of the answer's form (`forms`). Raises ValueError or an error of vLLM's for what it
    does not take."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    settings = request.settings
    return SamplingParams(
        temperature=settings.temperature,
        seed=request.seed if settings.temperature > 0 else None,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
        repetition_penalty=settings.repetition_penalty,
        presence_penalty=settings.presence_penalty,
        frequency_penalty=settings.frequency_penalty,
        logit_bias=dict(settings.logit_bias) or None,
        max_tokens=settings.max_new_tokens,
        min_tokens=min(settings.min_new_tokens, settings.max_new_tokens),
        stop_token_ids=list(settings.stop_token_ids),
        ignore_eos=True,
        logprobs=settings.logprobs,
        detokenize=False,
        structured_outputs=None if form is None else StructuredOutputsParams(grammar=form),
        output_kind=RequestOutputKind.DELTA if in_pieces else RequestOutputKind.FINAL_ONLY,
    )


def read_logprob(token_id: int, step: Mapping[int, Any], count: int) -> Logprob:
    """One step of vLLM's, the `count` most likely tokens first to last."""
    ranked = sorted((one.rank, number, one.logprob) for number, one in step.items() if math.isfinite(one.logprob))
    top = tuple((number, logprob) for rank, number, logprob in ranked if rank <= count)[:count]
    return Logprob(token_id, step[token_id].logprob, top)
