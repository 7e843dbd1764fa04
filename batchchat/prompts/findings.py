"""What a look before the run found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """`error` will fail rows or the run, `warning` may spoil results, `note` is worth knowing."""

    level: Literal["error", "warning", "note"]
    what: str
    advice: str
