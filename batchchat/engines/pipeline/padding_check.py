"""Which rows of a model may share a padded batch: tried when it is loaded, padded against alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from batchchat.chats import Request, Settings
from batchchat.engines.memory import is_out_of_memory, release_memory
from batchchat.engines.rounding import logit_differences, tolerance
from batchchat.models.shortened import SHORT, rope_threshold, shortened
from batchchat.schedule import Sharing, plan_batches

_PROMPTS = (3, SHORT - 6, SHORT - 1, SHORT + 4, SHORT + 4, 2 * SHORT + 3)
"""Lengths of the prompts that are tried: within the lengths of a shortened model, at their end, and beyond."""
_STEPS = 3
"""Tokens of each answer: the first one comes from the prompt, the others from the cache."""


def find_sharing(model: Any, pad: int, anew: bool = True) -> tuple[Sharing, str | None]:
    """The most that rows of a model may share, and why it is not all; None where it is.

    Few short prompts are answered alone and in batches, by the model itself and (`anew`: where it can be built anew on
    its weights) with all the lengths of its config made short.
    """
    threshold = rope_threshold(model.config)
    models = [model]
    ways = [Sharing(), Sharing("equal")]
    reason = None
    if threshold is not None:
        ways = [Sharing(threshold=threshold), Sharing(threshold=threshold, beyond=False), Sharing("equal")]
        reason = f"its rotary embedding changes where the longest row of a batch is beyond {threshold} tokens"
    try:
        short = shortened(model) if anew else None
        models += [] if short is None else [short.model]
    except Exception as error:  # a model may fail in any way when it is built anew
        ways = [Sharing("equal")]
        reason = f"padding beyond the lengths that its config names could not be tried: {_words(error)}"
    tried = [_Trial(one, pad) for one in models]
    for sharing in ways:
        found = next((why for trial in tried if (why := trial.difference(sharing)) is not None), None)
        if found is None:
            return sharing, reason
        reason = found
    return Sharing("alone"), reason


class ChangingRope:
    """The parts of a model whose rotary embedding remembers the longest sequence that it saw."""

    def __init__(self, model: Any):
        self._states = [
            (module, name.removesuffix("original_inv_freq"))
            for module in model.modules()
            for name in vars(module).keys() | module._buffers.keys()
            if name.endswith("original_inv_freq") and hasattr(module, "max_seq_len_cached")
        ]

    def forget(self) -> None:
        """Let the next sequence get what the first one got."""
        for module, kind in self._states:
            setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)
            device = getattr(module, f"{kind}inv_freq").device
            first = getattr(module, f"{kind}original_inv_freq").to(device, copy=True)  # it is written to
            module.register_buffer(f"{kind}inv_freq", first, persistent=False)


class _Forced(LogitsProcessor):
    """Keeps the logits of each step and has each row go on with a token that it is given."""

    def __init__(self, rows: Sequence[Request]):
        self._rows = rows
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        place = len(self.logits)
        self.logits.append(scores.float().cpu())
        ids = torch.tensor([[row.prompt_ids[place % len(row.prompt_ids)]] for row in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, ids, 0.0)


class _Trial:
    """A model and what it answers alone."""

    def __init__(self, model: Any, pad: int):
        self._model = model
        self._pad = pad
        self._rope = ChangingRope(model)
        self._threshold = rope_threshold(model.config)
        vocabulary = model.config.get_text_config().vocab_size
        self._requests = [
            Request(
                chat_id=str(number),
                index=number,
                sample=0,
                turn=0,
                prompt_ids=tuple((7919 * number + 104729 * place) % vocabulary for place in range(1, length + 1)),
                settings=Settings(max_new_tokens=_STEPS),
                seed=0,
            )
            for number, length in enumerate(_PROMPTS)
        ]
        self._alone: list[torch.Tensor] = []
        try:
            self._alone = [self._answers([request])[0] for request in self._requests]
        except Exception:  # what fails alone is each row's own error
            release_memory()

    def difference(self, sharing: Sharing) -> str | None:
        """How answers in batches of this kind differ from those alone; None where they do not, or cannot be had."""
        if any(bool(logits.isnan().any()) for logits in self._alone):
            return None
        own = Sharing(sharing.kind, self._threshold, sharing.beyond)
        if not self._alone:
            return None
        for batch in plan_batches(self._requests, len(self._requests), 1 << 30, own):
            if len(batch.requests) == 1:
                continue
            lengths = sorted(len(request.prompt_ids) for request in batch.requests)
            what = f"in a padded batch of prompts of {lengths[0]} to {lengths[-1]} tokens"
            try:
                found = self._answers(batch.requests)
            except Exception as error:
                if is_out_of_memory(error):  # batches that do not fit are split
                    release_memory()
                    return None
                return f"{what} it raises {_words(error)}"
            for request, logits in zip(batch.requests, found, strict=True):
                difference = _typical(self._model.dtype)(logit_differences(logits, self._alone[request.index]))
                if not difference <= tolerance(self._model.dtype):
                    return f"{what} its logits differ from those alone by {float(difference):.3g} standard deviations"
        return None

    @torch.inference_mode()
    def _answers(self, rows: Sequence[Request]) -> list[torch.Tensor]:
        """Logits `[steps, vocabulary]` of each row."""
        self._rope.forget()
        width = max(len(row.prompt_ids) for row in rows)
        ids = torch.tensor([[self._pad] * (width - len(row.prompt_ids)) + list(row.prompt_ids) for row in rows])
        seen = torch.tensor([[0] * (width - len(row.prompt_ids)) + [1] * len(row.prompt_ids) for row in rows])
        forced = _Forced(rows)
        device = self._model.get_input_embeddings().weight.device
        self._model.generate(
            input_ids=ids.to(device),
            attention_mask=seen.to(device),
            generation_config=GenerationConfig(max_new_tokens=_STEPS, do_sample=False, pad_token_id=self._pad),
            logits_processor=LogitsProcessorList([forced]),
        )
        return list(torch.stack(forced.logits, dim=1))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _typical(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """What stands for the steps of an answer. Rounding of narrow numbers may choose other experts at a single one."""
    return torch.max if dtype == torch.float32 else torch.median
