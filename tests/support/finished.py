"""Files of finished chats with everything that a viewer or an export has to show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tests.support.jobs import write_jsonl

HOSTILE = (
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "[link](javascript:window.ran=1) ![image](https://example.org/x.png) <a href='javascript:1'>x</a>",
    "\u202egnp.exe \x1b[31mred\x1b[0m nul\x00 \u2066isolate",
    "<!-- <script> --> ]]> &lt; {{ 7 * 7 }} ${7*7} <svg/onload=window.ran=1>",
    "lone \ud83d surrogate",
    "```html\n<b onclick=window.ran=1>x</b>\n```\n| a | b |\n|--|--|\n| <i>1</i> | 2 |",
)


def step(token: str, share: float) -> dict[str, Any]:
    """A token with its log-probability and another one that was likely."""
    top = [
        {"token_id": 1, "token": token, "logprob": math.log(share)},
        {"token_id": 2, "token": " other", "logprob": -3.0},
    ]
    return {"token_id": 1, "token": token, "logprob": math.log(share), "top": top}


def turn(reason: str = "stop", tokens: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "finish_reason": reason,
        "prompt_tokens": 9,
        "completion_tokens": tokens,
        "seed": 1,
        "raw": "",
        "token_ids": [],
    } | more


def chat(number: int, answer: str, **more: Any) -> dict[str, Any]:
    """A finished chat of one turn."""
    question = more.pop("question", f"Question {number}: say **{number}**")
    facts = more.pop("facts", turn("length" if number % 5 == 0 else "stop", len(answer)))
    said = {"role": "assistant", "content": answer, **more.pop("said", {})}
    return {
        "id": f"chat/{number}",
        "category": "even" if number % 2 == 0 else "odd",
        "level": number % 7,
        "messages": [{"role": "user", "content": question}, said],
        "reference": str(number),
        **more,
        "batchchat": {"id": f"chat/{number}", "index": number, "sample": 0, "turns": [facts]},
    }


def chats(count: int, wrong_every: int) -> list[dict[str, Any]]:
    """`count` chats with right and wrong answers; the first ones hold reasoning, a tool call, probabilities and what
    must never run."""
    rows = [
        chat(n, f"{n}" if n % wrong_every else f"I believe it is {n + 1}, but I may be wrong.") for n in range(1, count)
    ]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, "<b>"]}}}
    rows[0] = chat(1, "1", said={"reasoning_content": "Let me think about one."})
    rows[1] = chat(2, "", said={"content": None, "tool_calls": [call]})
    rows[2] = chat(3, "3 is it", facts=turn(logprobs=[step("3", 0.95), step(" is", 0.4), step(" it", 0.05)]))
    rows[3] = chat(4, "# Title\n\nSome *text* with `code`:\n\n- one\n- two\n\n1. first\n2. second\n\n> said")
    hostile = [chat(1000 + n, text, question=text, note=text) for n, text in enumerate(HOSTILE)]
    return [*rows, *hostile, chat(2000, "long " * 200_000)]


def write_chats(path: Path, count: int = 60, wrong_every: int = 4) -> Path:
    return write_jsonl(path, map(json.dumps, chats(count, wrong_every)))
