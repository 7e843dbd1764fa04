"""What commands print: tables and texts for people, JSON for programs, complaints on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from batchchat.credentials import without_credentials
from batchchat.reporting.escape import one_line, printable


class Terminal(Console):
    """A console that lets nothing through raw but its own styles: every text is made printable when it is rendered."""

    def __init__(self) -> None:
        super().__init__(highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def table(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        """Rows of (what, figure) under a title."""
        heading = Text(one_line(title))
        table = Table(title=heading, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for what, figure in rows:
            table.add_row(Text(one_line(what), style="dim"), Text(one_line(figure)))
        self.print(table)


def complain(text: str) -> None:
    """Say on standard error what is wrong."""
    print(f"batchchat: {printable(without_credentials(text))}", file=sys.stderr)


def print_json(value: Any) -> None:
    """A value for programs, in ASCII alone, so that no terminal obeys it and every encoding can hold it."""
    print(json.dumps(value))
