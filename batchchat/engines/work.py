"""What a model computed, apart for the two phases of an answer: the prompt at once, then token by token."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchchat.engines.facts import PhaseWork, WorkDone


@dataclass
class Phase:
    """Forward passes of one kind. `context_tokens` sums, over the token places computed, how many places each sees."""

    passes: int = 0
    token_places: int = 0
    outputs: int = 0
    """Token places whose logits were computed."""
    context_tokens: int = 0
    cache_token_reads: int = 0
    """Sum over the passes of the token places in the cache that a pass reads."""
    seconds: float = 0.0


@dataclass
class Work:
    """Counts of token places (padding included: it is computed too) and seconds, in plain Python."""

    prefill: Phase = field(default_factory=Phase)
    decode: Phase = field(default_factory=Phase)

    def add(self, rows: int, width: int, steps: int, prefill_seconds: float, decode_seconds: float) -> None:
        """A padded batch: prompts of `width` places, then `steps` tokens of which the prefill gave the first."""
        self.prefill.passes += 1
        self.prefill.token_places += rows * width
        self.prefill.outputs += rows
        self.prefill.context_tokens += rows * width * (width + 1) // 2
        self.prefill.cache_token_reads += rows * width
        self.prefill.seconds += prefill_seconds
        later = max(0, steps - 1)
        seen = rows * sum(width + step for step in range(1, later + 1))
        self.decode.passes += later
        self.decode.token_places += rows * later
        self.decode.outputs += rows * later
        self.decode.context_tokens += seen
        self.decode.cache_token_reads += seen
        self.decode.seconds += decode_seconds

    def add_pass(
        self, *, prompts: bool, places: int, outputs: int, seen: int, cached: int, seconds: float, passes: int = 1
    ) -> None:
        """Packed passes in which rows stand at different places. With `prompts` they read some: such passes count as
        prefill, whatever else they compute. `seen` and `cached` are `context_tokens` and `cache_token_reads`."""
        phase = self.prefill if prompts else self.decode
        phase.passes += passes
        phase.token_places += places
        phase.outputs += outputs
        phase.context_tokens += seen
        phase.cache_token_reads += cached
        phase.seconds += seconds

    def facts(self) -> WorkDone:
        """What was done so far, by phase."""
        return WorkDone(prefill=PhaseWork(**vars(self.prefill)), decode=PhaseWork(**vars(self.decode)))
