"""A source that is no file: `countdown:3` has the rows 3, 2 and 1."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from batchchat.chats import Place, SourceRow
from batchchat.errors import UsageError
from batchchat.recipe import Section
from batchchat.sources import Item, Reader


class CountdownOptions(Section):
    """A countdown."""

    step: int = Field(default=1, ge=1, description="How much is taken away each time.")


class Countdown:
    def __init__(self, address: str, options: CountdownOptions):
        if not address.isdigit():
            raise UsageError(f"countdown:{address} does not say where to begin; write countdown:3")
        self.name = f"countdown:{address}"
        self._numbers = range(int(address), 0, -options.step)

    def rows(self, number: int) -> Iterator[Item]:
        for line, value in enumerate(self._numbers, 1):
            yield SourceRow(number + line - 1, Place(self.name, line), {"script": f"U: say {value}"})

    def types(self) -> None:
        """Columns have no types."""

    def fingerprint(self) -> dict[str, Any]:
        return {"path": self.name, "rows": len(self._numbers)}

    def count(self) -> int | None:
        return len(self._numbers)


COUNTDOWN = Reader(open_address=Countdown, options=CountdownOptions)
