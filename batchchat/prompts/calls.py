"""How a model writes tool calls: found by having its chat template write some, which its parser must read back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from batchchat.chats import CallSyntax, Message
from batchchat.errors import BadRow, UsageError
from batchchat.prompts.codec import Codec, TokenizerCodec

_NAME = "batchchat_probe"
_ARGUMENTS = {"batchchat_key": "batchchat_value"}
_WRITTEN = re.compile(r'\{\s*"batchchat_key"\s*:\s*"batchchat_value"\s*\}')
_ASKED = "batchchat-question"
_CALL = {"type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": _NAME,
        "parameters": {"type": "object", "properties": {"batchchat_key": {"type": "string", "description": "a key"}}},
    },
}


_UNREAD = "its tokenizer has no response_template that reads calls from an answer"


class _NotFound(Exception):
    """Why the syntax of calls is not known, in the words behind 'this model'."""


def call_syntax(codec: Codec) -> CallSyntax:
    """How calls are written. Raises UsageError, in one sentence, where that cannot be told or an answer with such a
    call would not be read back."""
    try:
        if not isinstance(codec, TokenizerCodec):
            raise _NotFound(_UNREAD)
        return _found(codec)
    except _NotFound as error:
        raise UsageError(
            f"the arguments of tool calls cannot be held to their schemas with this model: {error}; leave out "
            "tools.strict, and strict in the tools of rows"
        ) from error


@lru_cache(maxsize=4)
def _found(codec: TokenizerCodec) -> CallSyntax:
    template = getattr(codec.tokenizer, "response_template", None)
    field = template.get("fields", {}).get("tool_calls") if isinstance(template, Mapping) else None
    if field is None:
        raise _NotFound(_UNREAD)
    opens = _literals(field, "open")
    if len(opens) != 1 or not opens[0]:
        raise _NotFound("its response_template does not say with one text how a call begins")
    one = _written(codec, 1)
    assert one is not None, "a single call is written, or an error says why not"
    syntax = _syntax(codec, opens[0], _literals(field, "close"), one, _written(codec, 2))
    if syntax.again is not None and _misread(codec, syntax, 2) is not None:
        syntax = replace(syntax, again=None)
    if (misread := _misread(codec, syntax, 1)) is not None:
        raise _NotFound(misread)
    return syntax


def _literals(field: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The texts that open or close a call; of a pattern the text that it stands for, white space around it apart, up to
    the tool's name."""
    given = field.get(name)
    if given is not None:
        return (given,) if isinstance(given, str) else tuple(given)
    pattern = field.get(f"{name}_pattern")
    if pattern is None:
        return ()
    bare = re.sub(r"\\s[*+?]", "", pattern.partition("(?P<name>")[0])
    text = re.sub(r"\\(\W)", r"\1", bare)
    if re.search(r"(?<!\\)[\[\](){}*+?.^$|]", bare) or re.search(r"\\\w", bare):
        raise _NotFound(f"its response_template finds calls by the pattern {pattern!r}, which is no plain text")
    return (text,)


def _written(codec: TokenizerCodec, calls: int) -> str | None:
    """What the template writes behind a question for an answer with so many calls; None where it takes one only."""
    chat = (Message("user", _ASKED), Message("assistant", "", tool_calls=(_CALL,) * calls))
    try:
        text = codec.render_text(chat, [_TOOL])
    except BadRow as error:
        if calls > 1:
            return None
        raise _NotFound(f"{error}") from error
    return text.rpartition(_ASKED)[2]


def _syntax(codec: TokenizerCodec, opens: str, closes: tuple[str, ...], one: str, two: str | None) -> CallSyntax:
    arguments = _WRITTEN.search(one)
    if arguments is None:
        raise _NotFound("its chat template does not write the arguments of a call as a JSON object")
    name = one.rfind(_NAME, 0, arguments.start())
    begun = one.rfind(opens, 0, name) if name >= 0 else -1
    if begun < 0:
        raise _NotFound(
            f"its chat template does not write {opens!r} and the tool's name before the arguments of a call"
        )
    before, between = one[begun + len(opens) : name], one[name + len(_NAME) : arguments.start()]
    behind, closed = _behind(codec, one[arguments.end() :], closes)
    again = None
    if two is not None:
        found = list(_WRITTEN.finditer(two))
        next_name = two.find(_NAME, found[0].end()) if len(found) == 2 else -1
        if next_name < 0:
            raise _NotFound("its chat template does not write two calls as it writes one")
        joint = two[found[0].end() : next_name]
        again = None if closed and joint.startswith(behind) else joint
    return CallSyntax(opens, before, between, behind, again, closes, closed)


def _behind(codec: TokenizerCodec, rest: str, closes: tuple[str, ...]) -> tuple[str, bool]:
    """What closes a call, and whether the answer goes on behind it: up to a text that does, or else up to the turn's
    end."""
    turn = _turn(codec, rest)
    ends = [turn.find(one) + len(one) for one in closes if one in turn]
    return (turn[: min(ends)], True) if ends else (turn.rstrip(), False)


def _turn(codec: TokenizerCodec, rest: str) -> str:
    """The text up to a token that ends an answer."""
    ends = [codec.decode([token]) for token in codec.eos_token_ids]
    places = [rest.find(end) for end in ends if end and end in rest]
    if not places:
        raise _NotFound("its chat template does not write an end token behind a call")
    return rest[: min(places)]


def _misread(codec: TokenizerCodec, syntax: CallSyntax, calls: int) -> str | None:
    """What is wrong with how so many calls are read back; None where nothing is."""
    arguments = '{"batchchat_key": "batchchat_value"}'
    call = f"{_NAME}{syntax.between}{arguments}"
    text = syntax.opens + syntax.before + (syntax.again or "").join([call] * calls) + syntax.behind
    asked = codec.render_text((Message("user", _ASKED),), [_TOOL])
    try:
        read = codec.tokenizer.parse_response(text, prefix=asked, tools=[_TOOL]).get("tool_calls") or []
        same = [one["function"] == {"name": _NAME, "arguments": _ARGUMENTS} for one in read]
    except Exception as error:  # the response template is the model's and may raise anything
        return f"its response_template does not read {text!r} ({' '.join(str(error).split())[:200]})"
    return None if same == [True] * calls else f"its response_template does not read {text!r} as a call"
