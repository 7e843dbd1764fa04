"""What was spent, and whether there is money for one more request."""

from __future__ import annotations

from dataclasses import dataclass

from batchchat.chats import Usage
from batchchat.engines.endpoint.options import Prices

_MILLION = 1e6


def cost_of(prices: Prices, usage: Usage) -> float:
    """What a request cost. Tokens of the prompt that the server had in its cache have their own price."""
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    whole = (usage.prompt_tokens - cached) * prices.input + cached * cached_price
    return (whole + usage.completion_tokens * prices.output) / _MILLION


def highest_cost(prices: Prices | None, body: bytes, max_new_tokens: int) -> float:
    """What a request can cost at most: a token of the prompt is at least a byte of the body, whose other parts stand
    for the template's own tokens."""
    if prices is None:
        return 0.0
    return (len(body) * max(prices.input, prices.cached_input or 0.0) + max_new_tokens * prices.output) / _MILLION


@dataclass
class Ledger:
    """Money that was spent, is set aside for what is in flight, or may have been spent on what gave no answer."""

    max_cost: float | None = None
    spent: float = 0.0
    unconfirmed: float = 0.0
    """Of requests that were sent and not answered, at their highest: the server may count them."""
    _aside: float = 0.0

    def affords(self, highest: float) -> bool:
        """Whether a request of this highest cost can be sent now."""
        return self.max_cost is None or self.spent + self.unconfirmed + self._aside + highest <= self.max_cost

    def set_aside(self, highest: float) -> None:
        self._aside += highest

    def settle(self, highest: float, spent: float = 0.0, unconfirmed: float = 0.0) -> None:
        """What was set aside for a request came to this."""
        self._aside -= highest
        self.spent += spent
        self.unconfirmed += unconfirmed
