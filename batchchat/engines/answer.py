"""One answer while it is written: where it ends, and the completion that it becomes."""

from __future__ import annotations

from batchchat.chats import Completion, FinishReason, Logprob, Request, Timings
from batchchat.prompts.codec import Codec

_WINDOW = 16
"""Tokens that are decoded with each new one, or more where stop strings are longer."""
_MARGIN = 8
"""Characters that are kept beyond a stop string's length: the first token of a window may be written otherwise than it
was within the answer."""


class OpenAnswer:
    """The tokens of one answer. It ends at a stop id, at a stop string in its decoded text, or at its limit, whichever
    comes first, and takes no token after that."""

    def __init__(self, request: Request, codec: Codec):
        self.request = request
        self.token_ids: list[int] = []
        self.logprobs: list[Logprob] = []
        self.finish_reason: FinishReason | None = None if request.settings.max_new_tokens > 0 else "length"
        self.error: str | None = None
        self.finished_at: float | None = None
        self._codec = codec
        self._stop_ids = frozenset(request.settings.stop_token_ids)
        self._longest_stop = max(map(len, request.settings.stop), default=0)
        self._seen_from = 0
        """From this token on, the decoded answer may still hold the beginning of a stop string."""

    @property
    def done(self) -> bool:
        return self.finish_reason is not None

    def add(self, token_id: int, logprob: Logprob | None = None) -> None:
        """The next token, with its log-probability where the request asked for it."""
        assert not self.done, "a finished answer takes no more tokens"
        self.token_ids.append(token_id)
        if logprob is not None:
            self.logprobs.append(logprob)
        if token_id in self._stop_ids:
            self.finish_reason = "stop"
        elif self._longest_stop and self._ends_in_stop():
            self.finish_reason = "stop_string"
        elif len(self.token_ids) == self.request.settings.max_new_tokens:
            self.finish_reason = "length"

    def fail(self, reason: str) -> None:
        """End the answer with an error; `reason` is one sentence."""
        self.finish_reason, self.error = "error", reason

    def completion(self, queued: float, started: float) -> Completion:
        """The finished answer. The end token counts as a token and is not in the text."""
        assert self.finish_reason is not None, "an answer that is not finished has no completion"
        assert self.finished_at is not None, "an answer that is finished was so at some time"
        written = self.token_ids[:-1] if self.finish_reason == "stop" else self.token_ids
        return Completion(
            request=self.request,
            token_ids=tuple(self.token_ids),
            text=self._codec.decode(written),
            finish_reason=self.finish_reason,
            timings=Timings(queued, started, self.finished_at),
            logprobs=tuple(self.logprobs) if self.request.settings.logprobs is not None else None,
            error=self.error,
        )

    def _ends_in_stop(self) -> bool:
        """Whether the last token completed a stop string. Its tokens are decoded with those before them, as a character
        may be cut into several, may share one with the end of another, or be written by what stands before it."""
        text = self._codec.decode(self.token_ids[self._seen_from :])
        if any(stop in text for stop in self.request.settings.stop):
            return True
        last = len(self.token_ids)
        while last - self._seen_from > _WINDOW:
            later = self._seen_from + _WINDOW // 2
            if len(self._codec.decode(self.token_ids[later:])) < self._longest_stop + _MARGIN:
                break
            self._seen_from = later
        return False


def no_token(request: Request, step: int) -> str:
    """Why a row got no token at a step, where nothing more is known of it."""
    if request.settings.structured is not None:
        return (
            f"no token is left for step {step} of the answer: all that its form allows is forbidden by bad_words, "
            "logit_bias or min_new_tokens; change one of them"
        )
    return (
        f"the model gave no usable logits for token {step} of the answer (NaN, infinite, or all banned); try "
        "model.dtype=float32, or allow more tokens"
    )
