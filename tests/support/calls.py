"""Tokenizers whose templates write tool calls in different ways, each with the parser that reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

from batchchat.prompts import TokenizerCodec
from tests.support import zoo

_HEAD = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }} in <tool_call></tool_call><|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' }}{{ message.content or '' }}"
)
_TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_CONTENT = {"close": "<|im_end|>", "content": "text"}
_WHOLE = {"type": "function", "function": "{content}"}
_EACH = {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}}
_NAMED = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
_ENDED = "{% for call in message.tool_calls or [] %}"

WRITTEN: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "lines": (
        _ENDED + "\n<tool_call>\n{\"name\": \"{{ call.function.name }}\", \"arguments\": "
        "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}",
        {"open_pattern": r"\s*<tool_call>", "close": "</tool_call>", "repeats": True, "content": "json",
         "transform": _WHOLE},
        (),
    ),
    "marks": (
        _ENDED + "<tool_call>{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
        "</tool_call>{% endfor %}",
        {"open": "<tool_call>", "close": "</tool_call>", "repeats": True, "content": "json", "transform": _WHOLE},
        ("<tool_call>", "</tool_call>"),
    ),
    "list": (
        "{% if message.tool_calls %}[TOOL_CALLS][" + _ENDED + "{{ {'name': call.function.name, 'arguments': "
        "call.function.arguments} | tojson }}{{ '' if loop.last else ', ' }}{% endfor %}]{% endif %}",
        {"open": "[TOOL_CALLS]", "content": "json", "transform": _EACH, "transform_each": True},
        ("[TOOL_CALLS]",),
    ),
    "named": (
        _ENDED + "[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}{% endfor %}",
        {"open_pattern": r"\[TOOL_CALLS\](?P<name>[^\[]+)\[ARGS\]", "content": "json", "repeats": True,
         "transform": _NAMED},
        ("[TOOL_CALLS]", "[ARGS]"),
    ),
}  # fmt: skip
"""By name: what a turn's calls are written with, the field that reads them, and further special tokens."""


@cache
def calling(name: str) -> TokenizerCodec:
    """A codec for one of `WRITTEN`, whose turns end with <|im_end|>."""
    calls, field, specials = WRITTEN[name]
    tokenizer = zoo.byte_bpe(_HEAD + calls + _TAIL)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *specials]})
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"tool_calls": field, "content": _CONTENT},
    }
    return TokenizerCodec(tokenizer, eos_token_ids=[tokenizer.convert_tokens_to_ids("<|im_end|>")])


_NUMBER = {"type": "integer", "minimum": 0, "maximum": 99}


def _tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **({"parameters": parameters} if parameters else {})}}


TOOLS: tuple[dict[str, Any], ...] = (
    _tool(
        "add",
        type="object",
        properties={"a": _NUMBER, "b": {"type": "integer"}},
        required=["a"],
        additionalProperties=False,
    ),
    _tool(
        "say-it",
        type="object",
        properties={"text": {"type": "string", "maxLength": 12}, "how": {"enum": ["low", "東京"]}},
        required=["text", "how"],
        additionalProperties=False,
    ),
    _tool("now"),
)
