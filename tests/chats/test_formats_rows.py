"""Each row format: what is read, what is written back, and what a bad row says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchchat.chats import Chat, Message, Place, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions, detect_format
from batchchat.errors import BadRow, UsageError

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
YES = Message("assistant", "yes")
CALLS = Message("assistant", None, tool_calls=(CALL,))


def read(data: dict[str, Any], options: ReadOptions | None = None, name: str | None = None) -> Chat:
    options = options or ReadOptions()
    row = SourceRow(4, Place("rows.jsonl", 5), data)
    return FORMATS[name or detect_format(data, options)].read(row, 2, options)


def answered(
    data: dict[str, Any], *answers: Message, options: ReadOptions | None = None, **facts: Any
) -> dict[str, Any]:
    options = options or ReadOptions()
    written = FORMATS[detect_format(data, options)].write(data, read(data, options), answers, options, facts)
    assert list(written)[: len(data)] == list(data)
    changed = {name for name in data if written[name] is not data[name]}
    assert changed <= {"messages", "conversations", "dialog", "output", "history", "error"}
    return written


def messages(*turns: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(turns), **columns}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (messages(USER), "messages"),
        ({"conversations": [USER]}, "messages"),
        ({"prompt": [USER], "completion": []}, "messages"),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "sharegpt"),
        ({"turns": ["hi"]}, "turns"),
        ({"turns": [{"content": "hi"}], "prompt": "x"}, "turns"),
        ({"instruction": "a", "input": ""}, "alpaca"),
        ({"instruction": "a"}, "prompt"),
        ({"question": "a", "answer": "b"}, "prompt"),
        ({"custom_id": "1", "body": {"messages": [USER]}}, "openai"),
    ],
)
def test_detected(data: dict[str, Any], name: str) -> None:
    assert detect_format(data) == name
    read(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"foo": 1, "bar": 2}, r"looked for messages, .*its columns: foo, bar.*source\.prompt_template"),
        ({}, "its columns: none"),
        ({"custom_id": "1", "response": {}}, "a result line of an OpenAI batch"),
        ({"question_id": 1, "choices": []}, "holds answers"),
        ({"messages": []}, "no turns: messages is an empty list"),
        ({"prompt": 5}, "no known format"),
    ],
)
def test_not_detected(data: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRow, match=says):
        detect_format(data)


def test_named_columns_are_used() -> None:
    options = ReadOptions(columns={"messages": "dialog", "id": "nr", "reference": "gold", "tools": "f", "system": "s"})
    data = {"dialog": [USER], "nr": 7, "id": "no", "gold": [1], "answer": 2, "f": [TOOL], "s": "be kind", "messages": 0}
    chat = read(data, options)
    assert (chat.id, chat.reference, chat.tools) == ("7", [1], (TOOL,))
    assert chat.segments == ((Message("system", "be kind"), Message("user", "hi")),)
    written = answered(data, YES, options=options)
    assert written["dialog"] == [USER, {"role": "assistant", "content": "yes"}]
    assert read({"p": "hi"}, ReadOptions(columns={"prompt": "p"})).segments[0][0].content == "hi"
    with pytest.raises(BadRow, match="no column nr"):
        read({"dialog": [USER]}, options)


@pytest.mark.parametrize("columns", [{"message": "x"}])
def test_unknown_column_role(columns: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="it names id, messages"):
        ReadOptions(columns=columns)


@pytest.mark.parametrize(
    ("given", "id_"),
    [
        ({"id": 0}, "0"),
        ({"id": 1.0}, "1"),
        ({"id": -0.0}, "0"),
        ({"id": "a"}, "a"),
        ({"id": None, "question_id": 81}, "81"),
        ({"id": ""}, "row-4"),
        ({}, "row-4"),
    ],
)
def test_ids(given: dict[str, Any], id_: str) -> None:
    assert read(messages(USER, **given)).id == id_


@pytest.mark.parametrize("id_", [True, 1.5, float("nan"), ["a"], {"a": 1}, "\ud800"])
def test_what_is_no_id(id_: Any) -> None:
    """A column that the recipe names must hold ids; one that is only called like that may hold something else."""
    with pytest.raises(BadRow, match="the id in column id"):
        read(messages(USER, id=id_), ReadOptions(columns={"id": "id"}))
    assert read(messages(USER, id=id_)).id == "row-4"
    assert read(messages(USER, id=id_, uuid="u")).id == "u"


def test_row_settings_and_reference() -> None:
    chat = read(messages(USER, generation={"temperature": 0.5, "stop": None}, reference="", answer="x"))
    assert (chat.settings, chat.reference, chat.index, chat.place.line) == ({"temperature": 0.5}, None, 2, 5)
    assert read(messages(USER, generation="a text", answer="x")).settings == {}
    assert read(messages(USER, answer="x")).reference == "x"


def test_system_turns() -> None:
    options = ReadOptions(system="recipe")
    assert read(messages(USER), options).segments[0][0] == Message("system", "recipe")
    own = {"role": "system", "content": "own"}
    assert [m.content for m in read(messages(own, USER), options).segments[0]] == ["own", "hi"]
    assert [m.content for m in read(messages(USER, system="column"), options).segments[0]] == ["column", "hi"]
    assert [m.content for m in read(messages(own, USER, system="own"), options).segments[0]] == ["own", "hi"]
    assert [m.content for m in read(messages(USER, system=""), options).segments[0]] == ["recipe", "hi"]
    with pytest.raises(BadRow, match="two different system turns"):
        read(messages(own, USER, system="other"))


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]], [json.dumps(TOOL)]])
def test_tools(tools: Any) -> None:
    assert read(messages(USER, tools=tools)).tools == (TOOL,)


@pytest.mark.parametrize("tools", [None, "", " ", "[]", []])
def test_no_tools(tools: Any) -> None:
    assert read(messages(USER, tools=tools)).tools is None


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ("{", "tools is not JSON"),
        (5, "tools is a number, not a list"),
        ([5], r"tools\[0\] is a number"),
        ([{"type": "web_search"}], r"tools\[0\] is no function with a name"),
        ([{"name": "\udc00"}], "lone surrogate U\\+DC00"),
    ],
)
def test_bad_tools(tools: Any, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read(messages(USER, tools=tools))


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"role": "user"}, r"messages\[1\]\.content is absent"),
        ({"role": "user", "content": None}, r"messages\[1\]\.content is null"),
        ({"role": "user", "content": 5}, r"messages\[1\]\.content is a number, not a string"),
        ({"role": "human", "content": "x"}, r"messages\[1\]\.role is 'human'; it is one of system, .*tool"),
        ({"content": "x"}, r"messages\[1\]\.role is absent"),
        ({"role": ["user"], "content": "x"}, "role is"),
        ("hi", r"messages\[1\] is a string, not an object"),
        ({"role": "user", "content": "a\ud83d"}, r"U\+D83D at character 2"),
        ({"role": "user", "content": []}, "content is null"),
        ({"role": "user", "content": ["x"]}, r"content\[0\] is a string"),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, r"content\[0\] is null"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            r"content\[0\] is a part of type 'image_url'",
        ),
        ({"role": "tool", "content": [{"type": "image", "data": ""}]}, "part of type 'image'"),
        ({"role": "assistant", "content": None}, "content is null"),
        ({"role": "assistant", "content": "x", "reasoning_content": 5}, "reasoning_content is a number"),
        ({"role": "assistant", "tool_calls": "x"}, r"tool_calls is a string, not a list"),
        ({"role": "assistant", "tool_calls": [5]}, r"tool_calls\[0\] is a number"),
        ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "of type 'custom'"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "names no function"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}, "arguments is not JSON"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[]"}]}, "arguments is a list, not an object"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": "\ud800"}}]}, "lone surrogate"),
    ],
)
def test_bad_messages(turn: Any, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read(messages(USER, turn, USER))


def test_lone_surrogates_elsewhere_are_kept() -> None:
    data = messages({**USER, "mark": "\ud800"}, other="\ud83d")
    assert read(data).segments[0][0].extra == {"mark": "\ud800"}
    assert answered(data, YES)["other"] == "\ud83d"


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 1_000_000, "\u2028\u0085\ufeff", "{{name}} {% if %} </s>", "😀"])
def test_texts_stay_as_they_are(text: str) -> None:
    assert read(messages({"role": "user", "content": text})).segments[0][0].content == text


def test_everything_a_message_may_hold() -> None:
    data = messages(
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}], "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", **CALL, "index": 0}], "reasoning": "hm"},
        {"role": "function", "content": {"sky": "clear"}, "tool_call_id": "1", "loss_weight": 0.5, "tool_calls": None},
        {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"role": "tool", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
        {"role": "tool", "content": None},
        {"role": "tool", "content": [1, "ü"]},
    )
    (turns,) = read(data).segments
    assert turns == (
        Message("developer", "d"),
        Message("user", "ab", name="Ann"),
        Message("assistant", None, reasoning="hm", tool_calls=({"id": "1", **CALL},)),
        Message("tool", '{"sky": "clear"}', tool_call_id="1", extra={"loss_weight": 0.5}),
        Message(
            "assistant", None, tool_calls=({"type": "function", "function": {"name": "f", "arguments": {"a": 1}}},)
        ),
        Message("tool", "xy"),
        Message("tool", "null"),
        Message("tool", '[1, "ü"]'),
    )


def test_answers_are_written_as_the_row_writes_its_turns() -> None:
    both = Message("assistant", "ok", reasoning="hm", tool_calls=(CALL,))
    text_call = {**CALL, "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    plain = answered(messages(USER), both)["messages"][-1]
    assert plain == {"role": "assistant", "content": "ok", "reasoning_content": "hm", "tool_calls": [CALL]}
    earlier = {"role": "assistant", "content": "x", "reasoning": "r", "tool_calls": [text_call]}
    own = answered(messages(USER, earlier, USER), both)["messages"][-1]
    assert own == {"role": "assistant", "content": "ok", "reasoning": "hm", "tool_calls": [text_call]}
    parts = answered(messages({"role": "user", "content": [{"type": "text", "text": "hi"}]}), both)["messages"][-1]
    assert parts["content"] == [{"type": "text", "text": "ok"}]
    assert parts["tool_calls"] == [CALL]
    value = answered(messages({"role": "user", "content": [{"type": "text", "value": "hi"}]}), both)["messages"][-1]
    assert value == {
        "role": "assistant",
        "content": [
            {"type": "reasoning", "value": "hm"},
            {"type": "text", "value": "ok"},
            {"type": "tool_call", "value": '{"name": "get_weather", "arguments": {"city": "Oslo"}}'},
        ],
    }
    mixed = messages(
        {"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": "x"}, USER
    )
    assert answered(mixed, YES)["messages"][-1]["content"] == "yes"


def test_a_continued_turn_is_one_turn() -> None:
    options = ReadOptions(prefill=True)
    start = {"role": "assistant", "content": "It is", "reasoning_content": "a", "weight": 1}
    more = Message("assistant", " so", reasoning="b", tool_calls=(CALL,))
    written = answered(messages(USER, start), more, options=options)["messages"]
    joined = {"content": "It is so", "reasoning_content": "ab", "tool_calls": [CALL]}
    assert written == [USER, {**start, **joined}]
    part = {"role": "assistant", "content": [{"type": "text", "value": "It is"}]}
    written = answered(messages(USER, part), Message("assistant", " so", reasoning="b"), options=options)["messages"]
    assert written[1]["content"] == [{"type": "text", "value": "It is so"}, {"type": "reasoning", "value": "b"}]
    turns = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "It is"}]
    written = answered({"conversations": turns}, Message("assistant", " so"), options=options)["conversations"]
    assert written == [turns[0], {"from": "gpt", "value": "It is so"}]
    scripted = answered({"turns": ["x", {"role": "assistant", "content": "It is"}]}, more, options=options)
    assert [(turn["role"], turn["content"]) for turn in scripted["messages"]] == [
        ("user", "x"),
        ("assistant", "It is so"),
    ]


def test_sharegpt() -> None:
    turns = [
        {"from": "human", "value": "weather?"},
        {"from": "function_call", "value": '{"name": "get_weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": {"sky": "clear"}, "weight": 0},
    ]
    data = {"conversations": turns, "tools": json.dumps([TOOL["function"]]), "system": "be kind"}
    chat = read(data)
    assert chat.tools == (TOOL,)
    assert chat.segments[0] == (
        Message("system", "be kind"),
        Message("user", "weather?"),
        CALLS,
        Message("tool", '{"sky": "clear"}', extra={"weight": 0}),
    )
    assert answered(data, YES)["conversations"] == [*turns, {"from": "gpt", "value": "yes"}]
    both = Message("assistant", "let me see", reasoning="hm", tool_calls=(CALL, CALL))
    said, called = answered(data, both)["conversations"][-2:]
    assert said == {"from": "gpt", "value": "let me see", "reasoning_content": "hm"}
    assert called["from"] == "function_call"
    assert json.loads(called["value"]) == [json.loads(turns[1]["value"])] * 2  # type: ignore[arg-type]
    assert (
        answered({"conversations": [{"from": "user", "value": "x"}]}, YES)["conversations"][-1]["from"] == "assistant"
    )
    bing = [{"from": "user", "value": "x"}, {"from": "bing", "value": "y"}, {"from": "user", "value": "x"}]
    assert answered({"conversations": bing}, YES)["conversations"][-1]["from"] == "bing"


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"from": "nobody", "value": "x"}, r"conversations\[1\]\.from is 'nobody'; it is one of system, .*human"),
        ({"value": "x"}, r"\.from is absent"),
        ({"from": "human", "value": None}, r"conversations\[1\]\.value is null"),
        ({"from": "function_call", "value": "not json"}, r"value is not JSON"),
        ({"from": "function_call", "value": "[]"}, "is an empty list"),
        (5, "is a number, not an object"),
    ],
)
def test_bad_sharegpt(turn: Any, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read({"conversations": [{"from": "human", "value": "x"}, turn]})


def test_alpaca() -> None:
    data = {"instruction": "Add", "input": "1 + 1", "output": "2", "system": "be kind"}
    chat = read(data)
    assert chat.segments == ((Message("system", "be kind"), Message("user", "Add\n1 + 1")),)
    assert (chat.reference, chat.references) == ("2", ("2",))
    assert answered(data, YES) == {**data, "output": "yes"}
    empty = {"instruction": "Add", "input": "", "output": ""}
    assert read(empty).references == (None,)
    assert read(empty).segments == ((Message("user", "Add"),),)
    assert answered(empty, CALLS)["output"] == '{"name": "get_weather", "arguments": {"city": "Oslo"}}'


def test_alpaca_history() -> None:
    data = {"instruction": "c", "output": "C", "history": [["a", "A"], ["b", None]]}
    chat = read(data)
    assert chat.references == (None, "C")
    first, last = Message("assistant", "1"), Message("assistant", "2")
    assert answered(data, first, last) == {**data, "history": [["a", "A"], ["b", "1"]], "output": "2"}
    anew = ReadOptions("regenerate")
    whole = {"instruction": "c", "output": "C", "history": [["a", "A"]]}
    assert read(whole, anew).references == ("A", "C")
    assert answered(whole, first, last, options=anew) == {**whole, "history": [["a", "1"]], "output": "2"}
    with pytest.raises(BadRow, match=r"history\[0\] is not a pair"):
        read({**data, "history": ["a"]})


def test_prompt() -> None:
    data = {"question": "hi?", "answer": "hello", "n": None}
    assert read(data).reference == "hello"
    conversation = [{"role": "user", "content": "hi?"}, {"role": "assistant", "content": "yes"}]
    assert answered(data, YES) == {**data, "messages": conversation}
    with pytest.raises(BadRow, match="column question is null"):
        read({"question": None}, name="prompt")


def test_no_column_is_overwritten() -> None:
    data = {"question": "hi?", "messages": "mine", "batchchat_messages": "mine too"}
    written = answered(data, YES)
    assert written["messages"] == "mine"
    assert written["batchchat_messages"] == "mine too"
    assert written["batchchat_messages_2"][-1]["content"] == "yes"


def test_prompt_template() -> None:
    options = ReadOptions(prompt_template="{{Q}}: {question} {tags} {a.b} {n}")
    data = {"question": "{x}?", "tags": ["ü", 1], "a.b": "dot", "n": 5}
    assert read(data, options).segments[0][0].content == '{Q}: {x}? ["ü", 1] dot 5'
    with pytest.raises(BadRow, match="asks for column tags; the row's columns are question, messages"):
        read({"question": "x", "messages": []}, options)
    with pytest.raises(BadRow, match="column tags, which is null"):
        read({**data, "tags": None}, options)


@pytest.mark.parametrize("template", ["{", "{}", "{a!r}", "{a:>5}", "no column", "}"])
def test_bad_prompt_template(template: str) -> None:
    with pytest.raises(UsageError, match="prompt_template"):
        ReadOptions(prompt_template=template)


def test_turns() -> None:
    data = {"question_id": 81, "turns": ["a", {"content": "b"}], "reference": ["A", "B"]}
    chat = read(data)
    assert [[m.content for m in segment] for segment in chat.segments] == [["a"], ["b"]]
    assert (chat.id, chat.reference) == ("81", ["A", "B"])
    written = answered(data, YES, YES)["messages"]
    assert [turn["content"] for turn in written] == ["a", "yes", "b", "yes"]
    with pytest.raises(BadRow, match=r"turns\[1\] is null"):
        read({"turns": ["a", None]})


def line(**body: Any) -> dict[str, Any]:
    return {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [USER], **body}}


def test_openai_parameters_become_settings() -> None:
    chat = read(
        line(
            model="m", user="u", metadata={}, stream=False, max_completion_tokens=9, temperature=0.5, top_p=0.9, n=3,
            stop="x", seed=1, logprobs=True, top_logprobs=2, presence_penalty=1, frequency_penalty=None,
            logit_bias={"50": -100}, response_format={"type": "text"}, tool_choice="auto", tools=[TOOL],
        )
    )  # fmt: skip
    assert chat.settings == {
        "max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9, "samples": 3, "stop": "x", "seed": 1, "logprobs": 2,
        "presence_penalty": 1, "logit_bias": {50: -100},
    }  # fmt: skip
    assert (chat.id, chat.tools) == ("r1", (TOOL,))
    assert read(line(tools=[TOOL], tool_choice="none")).tools is None
    assert read(line(logprobs=True, max_tokens=4)).settings == {"logprobs": 0, "max_new_tokens": 4}
    assert read(line(response_format={"type": "json_object"})).settings == {"structured": {"json": True}}
    schema = {"type": "object", "properties": {"a": {"const": None}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert read(line(response_format=form)).settings == {"structured": {"json_schema": schema}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"response_format": {"type": "xml"}}, r"body\.response_format = .* is not supported; only"),
        ({"tool_choice": "required"}, r"body\.tool_choice"),
        ({"audio": {}}, r"body\.audio = \{\} changes the answer"),
        ({"temprature": 1}, r"body\.temprature"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "keep one"),
        ({"logit_bias": {"a": 1}}, "logit_bias is not an object"),
        ({"top_logprobs": 2}, "needs logprobs"),
        ({"messages": None}, "body.messages is null"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, r"body\.messages\[0\].*input_audio"),
    ],
)
def test_openai_parameters_that_are_not_understood(body: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read(line(**body))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "/v1/embeddings"}, "only /v1/chat/completions"),
        ({"method": "GET"}, "has POST"),
        ({"body": "x"}, "body is a string"),
        ({"custom_id": 1.5}, "the id in column custom_id"),
    ],
)
def test_bad_openai_lines(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read({**line(), **change}, name="openai")


def test_openai_asks_for_one_answer() -> None:
    assert read(line(messages=[USER, USER])).num_turns == 1
    with pytest.raises(BadRow, match=r"set chat\.turns=last"):
        read(line(), ReadOptions("regenerate"))


STEPS = [
    {"token_id": 1, "token": "ü", "logprob": -0.5, "top": [{"token_id": 1, "token": "ü", "logprob": -0.5}]},
    {"token_id": 2, "token": "\ufffd", "logprob": None},
]


def test_openai_result() -> None:
    turn = {"finish_reason": "stop_string", "prompt_tokens": 5, "completion_tokens": 2, "logprobs": STEPS}
    written = answered(line(model="asked"), YES, turns=[turn], sample=1, model="m", created=7)
    assert written["error"] is None
    assert written["id"].startswith("batch_req_")
    assert written["response"]["status_code"] == 200
    body = written["response"]["body"]
    assert body.pop("id").startswith("chatcmpl-")
    chosen = {"token": "ü", "logprob": -0.5, "bytes": [195, 188]}
    assert body == {
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 1,
                "message": {"role": "assistant", "content": "yes", "refusal": None},
                "logprobs": {
                    "content": [
                        {**chosen, "top_logprobs": [chosen]},
                        {"token": "\ufffd", "logprob": -9999.0, "bytes": None, "top_logprobs": []},
                    ],
                    "refusal": None,
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    bare = answered(line(model="asked"), CALLS)["response"]["body"]
    assert "usage" not in bare
    assert bare["model"] == "asked"
    call = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    assert bare["choices"][0]["message"] == message


def test_openai_parameters_that_change_nothing_are_taken() -> None:
    function = {"name": "f", "parameters": {}}
    chat = read(
        line(
            prompt_cache_key="k", prompt_cache_retention="24h", prediction={"type": "content", "content": "x"},
            verbosity="medium", seed=-5, functions=[function], function_call="auto", safety_identifier="s",
        )
    )  # fmt: skip
    assert (chat.settings, chat.tools) == ({"seed": -5}, ({"type": "function", "function": function},))
    assert read(line(functions=[function], function_call="none")).tools is None
    assert read(line(top_p=0, temperature=1.5)).settings == {"temperature": 0}


def test_sharegpt_calls_beside_the_text() -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "gpt", "value": "", "tool_calls": [call], "weight": 0},
        {"from": "observation", "value": "sunny", "tool_call_id": "c1", "name": "get_weather"},
        {"from": "human", "value": "and?"},
    ]
    chat = read({"conversations": turns})
    _, calling, result, _ = chat.segments[0]
    assert (calling.tool_calls, calling.extra) == ((call,), {"weight": 0})
    assert (result.tool_call_id, result.name) == ("c1", "get_weather")
    written = answered({"conversations": turns}, CALLS)["conversations"]
    assert written[:4] == turns
    assert written[4]["tool_calls"][0]["function"]["name"] == "get_weather"
    as_text = {**call, "function": {**call["function"], "arguments": '{"city": "Oslo"}'}}
    older = [turns[0], {"from": "gpt", "value": None, "tool_calls": [as_text]}, *turns[2:]]
    assert answered({"conversations": older}, CALLS)["conversations"][4]["tool_calls"][0]["function"]["arguments"] == (
        '{"city": "Oslo"}'
    )
    single = {"from": "gpt", "value": "", "function_call": {"name": "f", "arguments": "{}"}}
    (called,) = read({"conversations": [turns[0], single, *turns[2:]]}).segments[0][1].tool_calls
    assert called["function"] == {"name": "f", "arguments": {}}
    for bad, says in (
        ({"from": "human", "value": "x", "tool_calls": [call]}, "which only turns of the model do"),
        ({"from": "gpt", "value": "", "tool_calls": [{"name": 1}]}, "names no function"),
        ({"from": "gpt", "value": "", "tool_calls": "x"}, "not a list of tool calls"),
    ):
        with pytest.raises(BadRow, match=says):
            read({"conversations": [turns[0], bad, turns[3]]})


def test_every_key_of_a_turn_is_kept_for_the_template() -> None:
    turn = {"role": "user", "content": "hi", "tool_plan": "look", "weight": 0, "nothing": None}
    (message,) = read(messages(turn)).segments[0]
    assert message.as_dict() == {"role": "user", "content": "hi", "tool_plan": "look", "weight": 0}


def test_numbers_keep_their_digits_in_a_prompt() -> None:
    row = SourceRow(0, Place("a", 1), {"p": 1.1, "q": [float("inf")]}, '{"p": 1.10, "q": [1e400]}')
    options = ReadOptions(prompt_template="{p} {q}")
    assert FORMATS["prompt"].read(row, 0, options).segments[0][0].content == "1.10 [1e400]"


def test_null_keys_are_absent() -> None:
    """Parquet gives every struct every key."""
    turn = {"role": "user", "content": "hi", "tool_calls": None, "name": None, "reasoning_content": None}
    assert read(messages(turn)).segments == ((Message("user", "hi"),),)
