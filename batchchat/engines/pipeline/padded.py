"""transformers' text-generation pipeline on prompts that are rendered already, with tokens chosen row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, TextGenerationPipeline

from batchchat.chats import Request
from batchchat.engines.answer import OpenAnswer, no_token
from batchchat.engines.base import TokenListener
from batchchat.engines.pipeline import flags, processors
from batchchat.prompts.token_texts import TokenTexts
from batchchat.sampling import SamplerRows, Told


class RenderedPipeline(TextGenerationPipeline):
    """The pipeline with its two ends replaced: prompts come in as token ids, new tokens go out as ids.

    Batching, padding on the left, devices and the call of `generate` are the pipeline's own.
    """

    def preprocess(self, prompt_text: Request, **_: Any) -> dict[str, Any]:
        """One request as tensors [1, tokens]; the pipeline pads and joins them."""
        ids = torch.tensor([prompt_text.prompt_ids], dtype=torch.long)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "prompt_text": prompt_text}

    def postprocess(self, model_outputs: dict[str, Any], **_: Any) -> list[int]:
        """The row's new token ids, with whatever stands behind its end."""
        width = model_outputs["input_ids"].shape[-1]
        ids: list[int] = model_outputs["generated_sequence"][0][0, width:].tolist()
        return ids


class RowWiseChoice(LogitsProcessor):
    """The one logits processor of a call: lets the sampler choose and leaves only the chosen tokens.

    It also keeps each row's `OpenAnswer`, so that the rows' ends are known as soon as their tokens are.
    """

    def __init__(
        self,
        rows: Sequence[OpenAnswer],
        model: Any,
        texts: Callable[[], TokenTexts],
        now: Callable[[], float],
        on_token: TokenListener | None,
    ):
        self._rows = rows
        self._model = model
        self._texts = texts
        self._now = now
        self._on_token = on_token
        self._sampler: SamplerRows | None = None
        self._processors = LogitsProcessorList()
        self.first_at: float | None = None
        """When the first logits came: the prompts were computed then."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [rows, vocabulary] become 0 at each row's token and -inf elsewhere."""
        if self._sampler is None:
            self.first_at = self._now()
            self._sampler = self._begin(input_ids, scores)
        logits = self._processors(input_ids, scores) if self._processors else scores
        choice = self._sampler.choose(logits, scores, input_ids)
        self._sampler.append(choice.ids)
        told = choice.read()
        for row, answer in enumerate(self._rows):
            if not answer.done:
                self._take(answer, row, told)
        return scores.fill_(-torch.inf).scatter_(1, choice.ids[:, None], 0.0)

    def _begin(self, prompts: torch.Tensor, scores: torch.Tensor) -> SamplerRows:
        requests = [answer.request for answer in self._rows]
        settings = requests[0].settings  # all rows have the same, where flags change logits
        warps = None
        if flags.changes_logits(settings):
            self._processors = processors.processors(settings, self._model, prompts)
            warps = processors.warps(settings, self._model)
            requests = [flags.without_processed(request) for request in requests]
        return SamplerRows.from_requests(requests, scores.shape[-1], scores.device, warps, self._texts)

    def _take(self, answer: OpenAnswer, row: int, told: Told) -> None:
        if told.failed[row]:
            answer.fail(told.reasons.get(row) or no_token(answer.request, len(answer.token_ids) + 1))
        else:
            answer.add(told.ids[row], told.logprobs[row] if told.logprobs else None)
            if self._on_token is not None:
                self._on_token(answer.request, told.ids[row])
        if answer.done:
            answer.finished_at = self._now()


class RowWiseStop(StoppingCriteria):
    """Tells `generate` which rows are done; the call ends when all are."""

    def __init__(self, rows: Sequence[OpenAnswer]):
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """bool [rows]."""
        return torch.tensor([answer.done for answer in self._rows], device=input_ids.device)
