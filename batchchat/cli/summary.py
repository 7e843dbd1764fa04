"""What a finished run prints: a few answered chats, the report's tables, and where everything lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchchat.reporting.escape import printable
from batchchat.reporting.report import AnyReport
from batchchat.reporting.tables import report_tables

_LONGEST = 400


def print_report(console: Console, report: AnyReport) -> None:
    """The tables of a report, and its files."""
    for title, rows in report_tables(report):
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for what, figure in rows:
            table.add_row(Text(what, style="dim"), Text(figure))
        console.print(table)
        console.print()
    for name in report.files:
        console.print(Text(str(Path(report.directory) / name)))


def print_chats(console: Console, report: AnyReport, count: int) -> None:
    """The first answered chats, turn by turn."""
    for output in islice(_outputs(report), count):
        ours = output["batchchat"]
        console.print(Text(f"chat {ours['id']}", style="bold"))
        for role, text in _spoken(output):
            shown = printable(text)
            shown = shown if len(shown) <= _LONGEST else shown[:_LONGEST] + " …"
            console.print(Text(f"  {role}: ", style="dim") + Text(shown))
        console.print()


def _outputs(report: AnyReport) -> Iterator[dict[str, Any]]:
    directory = Path(report.directory)
    parts = sorted((directory / "outputs-jsonl").glob("part-*.jsonl")) if "outputs-jsonl" in report.files else []
    for file in [directory / "outputs.jsonl"] if "outputs.jsonl" in report.files else parts:
        with open(file, encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)


def _spoken(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, text) of the conversation, whatever the format of the row."""
    for message in output.get("messages") or output.get("conversations") or output["batchchat"]["turns"]:
        role = message.get("role") or message.get("from") or "assistant"
        content = message.get("content", message.get("value", message.get("raw")))
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        calls = message.get("tool_calls")
        yield role, text if not calls else f"{text or ''} {json.dumps(calls, ensure_ascii=False)}".strip()
