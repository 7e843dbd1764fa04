"""What a finished run prints: a few answered chats, the report's tables, and where everything lies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rich.text import Text

from batchchat.reporting.escape import one_line, quoted
from batchchat.reporting.report import AnyReport
from batchchat.reporting.tables import report_tables
from batchchat.reporting.terminal import Terminal

_LONGEST = 400


def print_report(console: Terminal, report: AnyReport) -> None:
    """The tables of a report, and its files."""
    for title, rows in report_tables(report):
        console.table(title, rows)
        console.print()
    for name in report.files:
        console.print(Text(one_line(str(Path(report.directory) / name))))


def print_chats(console: Terminal, report: AnyReport, count: int) -> None:
    """The first answered chats, turn by turn."""
    for output in islice(_outputs(report), count):
        ours = output["batchchat"]
        console.print(Text(one_line(f"chat {ours['id']}"), style="bold"))
        for role, text in _spoken(output):
            shown = text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
            console.print(Text(f"  {one_line(role)}: ", style="dim") + Text(quoted(shown)))
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
