"""Answers of strict tools: free but for their calls, which are what the tools take, whatever the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.chats import CallSyntax, Completion, GrammarBackend, Message, Request, Structure, Timings
from batchchat.errors import UsageError
from batchchat.prompts import TokenizerCodec
from batchchat.prompts.calls import call_syntax
from batchchat.sampling import SamplerRows
from batchchat.structure import calls_agreement, calls_structure, refusal, strict_schemas
from batchchat.structure.backends import BACKENDS
from tests.support import zoo
from tests.support.calls import TOOLS, WRITTEN, calling

SCHEMAS = strict_schemas(TOOLS, every=True)
assert SCHEMAS is not None


def request(codec: TokenizerCodec, structure: Structure | None) -> Request:
    messages = (Message("user", "hi"),)
    one = zoo.request(
        0, codec.render(messages, TOOLS), structured=structure, stop_token_ids=codec.eos_token_ids,
        max_new_tokens=400, temperature=1.0,
    )  # fmt: skip
    return replace(one, messages=messages, tools=TOOLS)


def written(
    codec: TokenizerCodec, asked: Request, begun: str, seed: int, favoured: tuple[str, ...] = (), steps: int = 160
) -> tuple[Completion, bool]:
    """What a row writes that the model begins with a text (special tokens in it are such), and goes on with on noise in
    which the tokens of some texts stand out; ends are rare. The second value says whether it came to its end."""
    size = codec.vocab_size + 24
    rows = SamplerRows.from_requests([asked], size, texts=codec.token_texts)
    noise = torch.Generator().manual_seed(seed)
    script = list(codec.encode_prompt(begun)) if begun else []
    loud = [token for text in favoured for token in codec.encode_prompt(text)]
    tokens: list[int] = []
    for step in range(steps):
        logits = torch.randn((1, size), generator=noise)
        logits[:, codec.vocab_size :] += 20.0
        logits[:, loud] += 4.0
        logits[:, list(codec.eos_token_ids)] -= 1.0
        if step < len(script):
            logits[:, script[step]] += 90.0
        choice = rows.choose(logits)
        assert not choice.failed.any(), (choice.reasons, codec.decode(tokens))
        rows.append(choice.ids)
        tokens.append(int(choice.ids[0]))
        if step < len(script):
            assert tokens[-1] == script[step], (codec.decode(tokens), begun)
        if tokens[-1] in codec.eos_token_ids:
            break
    ended = tokens[-1] in codec.eos_token_ids
    text = codec.decode(tokens[:-1] if ended else tokens)
    return Completion(asked, tuple(tokens), text, "stop" if ended else "length", Timings(0, 0, 1)), ended


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), before=st.sampled_from(["", "Well,", "Let me <tool_ see. "]))
def test_whatever_the_logits_calls_are_what_the_tools_take(
    name: str, backend: GrammarBackend, seed: int, before: str
) -> None:
    codec = calling(name)
    syntax = call_syntax(codec)
    structure = replace(calls_structure(syntax, SCHEMAS), backend=backend)
    assert refusal(structure) is None
    asked = request(codec, structure)
    loud = (*syntax.closes, syntax.opens, "</tool_call>", syntax.behind)
    found, ended = written(codec, asked, before + syntax.opens, seed, loud)
    answer = codec.parse(found)
    if ended:
        assert answer.note is None, (found.text, answer.note)
        assert len(answer.message.tool_calls) >= 1, found.text
        assert calls_agreement(SCHEMAS, answer.message.tool_calls).state == "valid", found.text


def test_how_calls_are_written_is_found_from_template_and_parser() -> None:
    assert call_syntax(calling("lines")) == CallSyntax(
        "<tool_call>", '\n{"name": "', '", "arguments": ', "}\n</tool_call>", None, ("</tool_call>",), True
    )
    assert call_syntax(calling("marks")) == CallSyntax(
        "<tool_call>", '{"name": "', '", "arguments": ', "}</tool_call>", None, ("</tool_call>",), True
    )
    assert call_syntax(calling("list")) == CallSyntax(
        "[TOOL_CALLS]", '[{"name": "', '", "arguments": ', "}]", '}, {"name": "', (), False
    )
    assert call_syntax(calling("named")) == CallSyntax("[TOOL_CALLS]", "", "[ARGS]", "", None, (), False)


def field_of(codec: TokenizerCodec, **changed: Any) -> TokenizerCodec:
    """The codec with another parser of calls."""
    tokenizer = zoo.byte_bpe(codec.template)
    given_ = codec.tokenizer.response_template
    tokenizer.response_template = {
        **given_, "fields": {**given_["fields"], "tool_calls": {**given_["fields"]["tool_calls"], **changed}}
    }  # fmt: skip
    return TokenizerCodec(tokenizer, eos_token_ids=codec.eos_token_ids)


def without(codec: TokenizerCodec, template: str | None = None, parser: Any = None) -> TokenizerCodec:
    tokenizer = zoo.byte_bpe(codec.template if template is None else template)
    tokenizer.response_template = parser
    return TokenizerCodec(tokenizer, eos_token_ids=codec.eos_token_ids)


MARKS = calling("marks")
PARSER = MARKS.tokenizer.response_template


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        (without(MARKS), "no response_template that reads calls"),
        (without(MARKS, parser={**PARSER, "fields": {"content": {"content": "text"}}}), "no response_template that"),
        (without(MARKS, zoo.CHATML.replace("call | tojson", "call.function.name"), PARSER), "as a JSON object"),
        (without(MARKS, zoo.STRICT, PARSER), "as a JSON object"),
        (without(MARKS, zoo.CHATML, PARSER), "does not write '<tool_call>'"),
        (field_of(MARKS, open=["<tool_call>", "<call>"]), "with one text how a call begins"),
        (field_of(MARKS, transform={"type": "function", "function": {"name": "{content.called}"}}), "does not read"),
    ],
)
def test_calls_that_cannot_be_held_are_said_to_be_so_in_a_sentence(codec: TokenizerCodec, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        call_syntax(codec)
    assert says in str(caught.value)
    assert "leave out tools.strict" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outside_of_calls_nothing_changes() -> None:
    codec = calling("marks")
    logits = torch.randn((1, codec.vocab_size), generator=torch.Generator().manual_seed(3))
    free, strict = (request(codec, one) for one in (None, calls_structure(call_syntax(codec), SCHEMAS)))
    kept = SamplerRows.from_requests([strict], codec.vocab_size, texts=codec.token_texts)
    plain = SamplerRows.from_requests([free], codec.vocab_size)
    for _ in range(20):
        one, other = kept.choose(logits), plain.choose(logits)
        assert one.ids.tolist() == other.ids.tolist()
        kept.append(one.ids)
        plain.append(other.ids)


def test_reasoning_may_speak_of_calls() -> None:
    """Until the reasoning ends, the text that opens a call opens none."""
    codec = TokenizerCodec(zoo.byte_bpe(calling("lines").template + "{# <think></think> #}"))
    codec.tokenizer.response_template = calling("lines").tokenizer.response_template
    structure = calls_structure(call_syntax(calling("lines")), SCHEMAS)
    asked = zoo.request(
        0, codec.encode_text("assistant\n<think>\n"), structured=structure, stop_token_ids=(1,), max_new_tokens=90
    )
    rows = SamplerRows.from_requests([asked], codec.vocab_size, texts=codec.token_texts)
    said = [*codec.encode_text("I could <tool_call> now</think>\n\n"), *codec.encode_text("<tool_call>")]
    for token in said:
        logits = torch.zeros((1, codec.vocab_size))
        logits[0, token] = 9.0
        choice = rows.choose(logits)
        assert int(choice.ids[0]) == token, codec.decode([token])
        rows.append(choice.ids)
    logits = torch.zeros((1, codec.vocab_size))
    logits[0, codec.encode_text(" no")[0]] = 9.0
    choice = rows.choose(logits)
    assert codec.decode(choice.ids.tolist()).startswith("\n")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "the keyword uniqueItems"),
        ({"type": "string"}, "not one of an object"),
        (["a"], "is none at #"),
        ({"type": "object", "properties": {"a": {"type": "numbr"}}}, "is none at #/properties/a/type"),
    ],
)
def test_a_schema_that_cannot_be_held_is_named_with_its_tool(parameters: Any, says: str) -> None:
    tools = [*TOOLS, {"type": "function", "function": {"name": "odd", "parameters": parameters}}]
    schemas = strict_schemas(tools, every=True)
    assert schemas is not None
    reason = refusal(calls_structure(call_syntax(calling("marks")), schemas))
    assert reason is not None
    assert "of the tool odd, its json_schema" in reason
    assert says in reason


def test_only_tools_that_say_so_are_strict() -> None:
    assert strict_schemas(TOOLS, every=False) is None
    mixed = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}, TOOLS[1]]
    assert strict_schemas(mixed, every=False) == {
        "add": TOOLS[0]["function"]["parameters"],
        "say-it": {"type": "object"},
    }
