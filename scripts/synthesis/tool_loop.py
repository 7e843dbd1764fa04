"""Tools that really run: by functions, and by the same functions behind an MCP server on its standard input and output;
every call has its result, and the data set with its card is sent to a hub.

The model calls tools as often as it likes; the hub is a stand-in on this machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.parts import require
from scripts.synthesis.job import batchchat, lines
from tests.support.hub import hub

_SERVER = json.dumps({"samples": {"command": [sys.executable, "-m", "batchchat.engines.tools.samples"]}})


def show(folder: Path) -> Iterator[str]:
    runs = {"functions": folder / "functions", "an MCP server": folder / "by-mcp"}
    batchchat("run", "builtin:tools", f"sink.directory={runs['functions']}")
    batchchat("run", "builtin:tools", f"sink.directory={runs['an MCP server']}", "tools.run=[]", f"tools.mcp={_SERVER}")
    told = {}
    for how, run in runs.items():
        rows = lines(run / "outputs.jsonl")
        used = json.loads((run / "report.json").read_text(encoding="utf-8"))["tools"]
        told[how] = [_results(row) for row in rows]
        num_results = sum(map(len, told[how]))
        calls = sum(len(message.get("tool_calls") or ()) for row in rows for message in row["messages"])
        by_tool = ", ".join(f"{name} {use['calls']}" for name, use in sorted(used.items()))
        require(num_results > 0, f"by {how}, no call was run")
        require(calls == num_results, f"by {how}, {calls} calls have {num_results} results")
        require(sum(use["calls"] for use in used.values()) == num_results, f"by {how}, the report counts {by_tool}")
        yield f"by {how}: {len(rows)} chats, {num_results} calls run ({by_tool}), each with its result"
    require(told["functions"] == told["an MCP server"], "the server's results are not those of the functions")
    yield "the results are the same"
    yield _pushed(runs["an MCP server"])


def _results(row: Any) -> list[Any]:
    """JSON as its value, which either way writes as it likes."""
    texts = [message["content"] for message in row["messages"] if message["role"] == "tool"]
    return [json.loads(text) if text.startswith("{") else text for text in texts]


def _pushed(run: Path) -> str:
    with hub() as place:
        variables = {"HF_ENDPOINT": place.url, "HF_TOKEN": place.token, "HF_HUB_DISABLE_XET": "1"}
        batchchat("push", run, "me/tools", "--license", "apache-2.0", **variables)
        card = place.files["README.md"].decode()
        private = place.created[0]["visibility"] == "private"
        names = sorted(place.files)
    missing = [name for name in ("tiny-chat", "get_weather", "apache-2.0") if name not in card]
    require(not missing, f"the card does not name {', '.join(missing)}")
    require(private and any(name.endswith(".parquet") for name in names), "what was pushed is not private, or no data")
    return f"pushed {len(names)} files, private; the card names the model, the tools and the licence"
