"""Real files from public repositories: each goes in by its own format, or each bad row says why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchchat.chats import Chat, Message, RowError, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions, detect_format
from batchchat.errors import BadRow, UsageError
from batchchat.sources import open_source
from tests.support.jobs import write_jsonl

Read = list[tuple[SourceRow, str, Chat]]

ANEW = ReadOptions(turns="regenerate")
NOT_CHATS = {
    "batch_api/example_results.jsonl": (2, "this is a result line of an OpenAI batch"),
    "mt_bench/answer_gpt-3.5-turbo.jsonl": (80, "this row holds answers (choices)"),
    "mt_bench/answer_vicuna-7b-v1.3.jsonl": (80, "this row holds answers (choices)"),
    "mt_bench/reference_answer_gpt-4.jsonl": (30, "this row holds answers (choices)"),
    "mt_bench/judge_prompts.jsonl": (8, "the row has no known format"),
    "naughty_strings/blns.json": (515, "the element is a string, not an object"),
    "naughty_strings/blns.base64.json": (676, "the element is a string, not an object"),
}
CHATS = {
    "batch_api/vllm_openai_example_batch.jsonl": (2, "openai", ReadOptions()),
    "gsm8k/test.jsonl": (1319, "prompt", ReadOptions()),
    "ifeval/input_data.jsonl": (541, "prompt", ReadOptions()),
    "mixed_formats/v1_sft_demo.jsonl": (500, "messages", ANEW),
    "mt_bench/question.jsonl": (80, "turns", ReadOptions()),
    "parquet/curator_reasoning_dataset.parquet": (5, "prompt", ReadOptions()),
    "sharegpt/dummy_conversation.json": (500, "sharegpt", ANEW),
    "sharegpt/dummy_conversation_with_system.json": (500, "sharegpt", ANEW),
    "tool_calls/glaive_toolcall_en_demo.json": (300, "sharegpt", ANEW),
    "tool_calls/reason_tool_use_demo_50.jsonl": (50, "messages", ANEW),
}
OTHER = {"naughty_strings/blns.txt", "naughty_strings/blns.base64.txt"}


def read(path: Path, options: ReadOptions) -> tuple[Read, list[tuple[int, str]]]:
    """Rows with their chats, and (line, reason) of those that have none."""
    good: Read = []
    bad: list[tuple[int, str]] = []
    with open_source([str(path)]) as source:
        for index, item in enumerate(source.rows()):
            if isinstance(item, RowError):
                bad.append((item.place.line, item.reason))
                continue
            try:
                name = detect_format(item.data, options)
                good.append((item, name, FORMATS[name].read(item, index, options)))
            except BadRow as error:
                bad.append((item.place.line, str(error)))
        source.fingerprint()
        assert source.count() in (None, len(good) + len(bad))
    return good, bad


def chats_of(shared_data: Path, name: str) -> Read:
    num_rows, format_, options = CHATS[name]
    good, bad = read(shared_data / name, options)
    assert not bad
    assert len(good) == num_rows
    assert {found for _, found, _ in good} == {format_}
    return good


def test_every_file_is_tried(shared_data: Path) -> None:
    there = {
        f"{path.parent.name}/{path.name}" for path in shared_data.glob("*/*.*") if path.parent.name != "chat_templates"
    }
    assert there == CHATS.keys() | NOT_CHATS.keys() | OTHER


@pytest.mark.parametrize("name", NOT_CHATS)
def test_rows_that_are_no_chats_say_why(shared_data: Path, name: str) -> None:
    num_rows, reason = NOT_CHATS[name]
    good, bad = read(shared_data / name, ReadOptions())
    assert not good
    assert len(bad) == num_rows
    assert all(found.startswith(reason) for _, found in bad)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_files_without_rows_are_refused(shared_data: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a kind of file that is read here"):
        open_source([str(shared_data / name)])


@pytest.mark.parametrize("name", CHATS)
def test_rows_come_back_with_their_answers(shared_data: Path, name: str) -> None:
    options = CHATS[name][2]
    answer = Message("assistant", "an answer")
    for row, format_, chat in chats_of(shared_data, name):
        written = FORMATS[format_].write(row.data, chat, [answer] * chat.num_turns, options)
        changed = {column for column in row.data if written[column] != row.data[column]}
        assert changed <= {"messages", "conversations"}
        assert json.dumps(written, ensure_ascii=False).count("an answer") >= chat.num_turns
        if format_ != "openai":  # and can be read again, with the same turns to write
            again = FORMATS[format_].read(SourceRow(0, row.place, written), 0, options)
            assert [len(segment) for segment in again.segments] == [len(segment) for segment in chat.segments]


@pytest.mark.parametrize("name", [name for name, (_, _, options) in CHATS.items() if options is ANEW])
def test_finished_chats_say_what_to_do(shared_data: Path, name: str) -> None:
    good, bad = read(shared_data / name, ReadOptions())
    assert not good
    assert all("chat.prefill=true to continue it or chat.turns=regenerate" in reason for _, reason in bad)
    continued, bad = read(shared_data / name, ReadOptions(prefill=True))
    assert all(reason.startswith("the chat ends in a tool call") for _, reason in bad)
    assert len(bad) == (11 if "reason_tool" in name else 0)
    assert all(chat.prefill and chat.segments[-1][-1].role == "assistant" for _, _, chat in continued)


def test_mt_bench(shared_data: Path) -> None:
    chats = [chat for _, _, chat in chats_of(shared_data, "mt_bench/question.jsonl")]
    assert [chat.id for chat in chats] == [str(number) for number in range(81, 161)]
    assert all([len(segment) for segment in chat.segments] == [1, 1] for chat in chats)
    assert {type(chat.reference) for chat in chats} == {list, type(None)}


def test_gsm8k_and_ifeval(shared_data: Path) -> None:
    assert all("####" in chat.reference for _, _, chat in chats_of(shared_data, "gsm8k/test.jsonl"))
    row, _, chat = chats_of(shared_data, "ifeval/input_data.jsonl")[0]
    assert (chat.id, chat.segments[0][0].content) == ("1000", row.data["prompt"])


def test_tool_calls(shared_data: Path) -> None:
    glaive = chats_of(shared_data, "tool_calls/glaive_toolcall_en_demo.json")
    assert Counter(chat.tools is None for _, _, chat in glaive) == {False: 191, True: 109}
    assert all(tool["type"] == "function" for _, _, chat in glaive for tool in chat.tools or ())

    turns: list[Message] = []
    parts: list[Any] = []
    for row, format_, _ in chats_of(shared_data, "tool_calls/reason_tool_use_demo_50.jsonl"):
        more = {**row.data, "messages": [*row.data["messages"], {"role": "user", "content": "go on"}]}
        chat = FORMATS[format_].read(SourceRow(0, row.place, more), 0, ReadOptions("last"))
        turns.extend(chat.segments[0][:-1])
        parts += [part for turn in row.data["messages"] for part in turn["content"] if part["type"] == "tool_call"]
    assert Counter(turn.role for turn in turns) == {"assistant": 112, "user": 70, "system": 50, "tool": 42}
    assert all(turn.reasoning for turn in turns if turn.role == "assistant")
    calls = [call["function"] for turn in turns for call in turn.tool_calls]
    assert calls == [json.loads(part["value"]) for part in parts]


def test_places_are_lines_of_the_file(shared_data: Path) -> None:
    for name in ("sharegpt/dummy_conversation.json", "mt_bench/question.jsonl"):
        lines = (shared_data / name).read_bytes().split(b"\n")
        for row, _, _ in chats_of(shared_data, name):
            assert lines[row.place.line - 1].lstrip().startswith(b"{")


def test_naughty_strings_come_out_equal(shared_data: Path, tmp_path: Path) -> None:
    texts: list[Any] = json.loads((shared_data / "naughty_strings" / "blns.json").read_text(encoding="utf-8"))
    rows = [{"messages": [{"role": "user", "content": text}], "text": text} for text in texts]
    options = ReadOptions(prompt_template="{text}")
    for found in (ReadOptions(), options):
        good, bad = read(write_jsonl(tmp_path / "naughty.jsonl", rows), found)
        assert not bad
        assert [chat.segments[0][0].content for _, _, chat in good] == texts
