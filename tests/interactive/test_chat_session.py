"""What is typed in a chat, without a model: commands, mistakes, and what reaches the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from rich.console import Console

from batchchat.chats import Message
from batchchat.errors import UsageError
from batchchat.interactive.commands import COMMANDS
from batchchat.interactive.markdown import finished
from batchchat.interactive.opening import changed, offered_tools, open_recipe
from batchchat.interactive.responder import Responder
from batchchat.interactive.session import ChatSession, LoadFailed
from batchchat.interactive.terminal import CommandCompleter
from batchchat.interactive.view import AnswerView
from batchchat.prompts import ParsedAnswer
from tests.support.jobs import Command, scripted_recipe, write_jsonl

ECHO = ("scripted", "engine.kind=scripted")


def session_of(*arguments: str, width: int = 80) -> ChatSession:
    recipe = open_recipe(arguments or ECHO)
    responder = Responder(recipe)
    return ChatSession(recipe, lambda: responder, Console(file=io.StringIO(), width=width, highlight=False))


def did(session: ChatSession, line: str) -> str:
    """What a line printed."""
    stream = session.console.file
    assert isinstance(stream, io.StringIO)
    before = len(stream.getvalue())
    session.do(line)
    return stream.getvalue()[before:]


def texts(session: ChatSession) -> list[str | None]:
    return [message.content for message in session.conversation.messages]


def test_all_the_commands_are_there() -> None:
    wanted = "help status clear set example save exit system undo retry edit load tokens export"
    assert set(wanted.split()) <= set(COMMANDS)
    listed = did(session_of(), "!help")
    assert all(f"!{name}" in listed for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("!helo", "did you mean !help?"),
        ("!xyzzy", "type !help"),
        ("!HELP", "did you mean !help?"),
        ("!undo", "no question to take back"),
        ("!retry", "no question to answer"),
        ("!edit", "no question to change"),
        ("!clear now", "takes nothing behind it"),
        ("!set", "!set temperature=0.7"),
        ("!set temperature", "write flag=value"),
        ("!set temprature=1", "generation.temperature"),
        ("!set temperature=hot", "a number"),
        ("!set 'a=b", "close the quote"),
        ("!set model.name=x", "cannot be changed in a running chat"),
        ("!set engine.max_batch_rows=2", "cannot be changed in a running chat"),
        ("!set samples=3", "one answer at a time"),
        ("!set source.path=x", "no meaning in a chat"),
        ("!set chat.system=x", "!system TEXT"),
        ("!example nope", "did you mean !example"),
        ("!tool x", "no tool was called"),
        ("!save", "nothing to save"),
        ("!load", "needs a file"),
        ("!export", "needs a file"),
        ("!export x.txt", "neither a row nor a recipe"),
        ("!export x.jsonl", "no run would write it"),
    ],
)
def test_mistakes_say_what_to_type(line: str, words: str) -> None:
    session = session_of()
    recipe = session.recipe
    printed = " ".join(did(session, line).split())
    assert words in printed
    assert texts(session) == []
    assert session.recipe == recipe


def test_lines_that_are_no_commands_are_said() -> None:
    session = session_of()
    for line in (" !help", "!!", "!= is an operator", "what?!"):
        session.do(line)
    assert texts(session)[::2] == [" !help", "!!", "!= is an operator", "what?!"]
    for line in ("", "   ", "\n\n"):
        assert did(session, line) == ""
    assert len(texts(session)) == 8


def test_undo_edit_and_clear() -> None:
    session = session_of()
    session.do("one")
    session.do("two")
    assert "two" in did(session, "!undo")
    assert texts(session) == ["one", "one"]
    session.do("!edit uno")
    assert texts(session) == ["uno", "uno"]
    session.do("!edit")
    assert (session.draft, texts(session)) == ("uno", [])
    session.do("three")
    session.do("!clear")
    assert texts(session) == []


def test_the_system_turn_stays_until_it_is_changed() -> None:
    session = session_of(*ECHO, "chat.system=Be brief.")
    session.do("one")
    assert "Be brief." in did(session, "!system")
    session.do("!system Be long.")
    session.do("!clear")
    session.do("two")
    assert texts(session) == ["Be long.", "two", "two"]
    assert "none" in did(session, "!system -")
    assert texts(session) == ["two", "two"]


def test_the_loop_ends_by_exit_or_end_of_input() -> None:
    lines = iter(["one", "!edit", "!exit", "never read"])
    drafts: list[str] = []

    def read(draft: str) -> str:
        drafts.append(draft)
        return next(lines)

    session_of().run(read)
    assert drafts == ["", "", "one"]
    assert next(lines) == "never read"

    def ended(draft: str) -> str:
        raise EOFError

    session_of().run(ended)


def test_a_model_that_does_not_load_ends_the_chat() -> None:
    def load() -> Responder:
        raise UsageError("no such model")

    session = ChatSession(open_recipe(ECHO), load, Console(file=io.StringIO()))
    session.do("!nonsense")
    with pytest.raises(LoadFailed, match="no such model"):
        session.do("hello")


def test_tokens_and_a_context_that_is_full() -> None:
    session = session_of(*ECHO, "chat.max_context=80", "max_new_tokens=20")
    assert "0 of 80 tokens used" in did(session, "!tokens")
    session.do("a" * 14)
    used = session.responder.num_tokens(session.conversation, session.recipe)
    assert f"{used} of 80 tokens used, {80 - used} left" in did(session, "!tokens")
    refused = " ".join(did(session, "b" * 14).split())
    assert "choose another chat.overflow" in refused
    assert texts(session) == ["a" * 14] * 2
    session.do("!set chat.overflow=drop_oldest_turns")
    told = " ".join(did(session, "b" * 14).split())
    assert "the 2 oldest messages were left out of the prompt (chat.overflow=drop_oldest_turns)" in told
    assert len(texts(session)) == 4


def test_an_engine_that_fails_costs_the_line() -> None:
    session = session_of(*ECHO, "engine.scripted.fail_every=1")
    assert "fails every 1th row" in did(session, "hello")
    assert texts(session) == []


@pytest.mark.parametrize("width", [20, 80])
def test_nothing_reaches_the_terminal_raw(width: int) -> None:
    evil = "a\x1b[31mred\x1b]0;title\x07\x08\x9b2J\u202egnp\r.\x00"
    stream = io.StringIO()
    recipe = open_recipe(ECHO)
    responder = Responder(recipe)
    console = Console(file=stream, width=width, highlight=False, force_terminal=True, color_system=None)
    session = ChatSession(recipe, lambda: responder, console)
    for line in (evil, f"!undo {evil}", "!undo", f"!system {evil}", f"!{evil}", f"!load {evil}", "!status", evil):
        session.do(line)
    text = stream.getvalue()
    for character in "\x07\x08\x9b\x00\u202e":
        assert character not in text
    assert "\x1b[31m" not in text
    assert "\x1b]" not in text
    assert texts(session)[-2:] == [evil, evil], "the model is asked what was typed"


def test_markdown_keeps_what_the_model_said() -> None:
    said = "# Head\n\nline *one*\nline two <b>bold</b>\n\n- item\n\n```python\nx = 1 < 2\n```\n\n[link](http://x.y)"
    stream = io.StringIO()
    with AnswerView(Console(file=stream, width=60, highlight=False)) as view:
        for end in range(len(said)):
            view.show(ParsedAnswer(Message("assistant", said[:end])))
        view.finish(ParsedAnswer(Message("assistant", said)))
    lines = [line.strip(" │┃") for line in stream.getvalue().splitlines()]
    words = ("line one", "line two <b>bold</b>", "• item", "x = 1 < 2", "link (http://x.y)")
    assert [lines.count(word) for word in words] == [1] * len(words)


def test_thinking_is_shown_apart_and_calls_are_shown() -> None:
    stream = io.StringIO()
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    with AnswerView(Console(file=stream, width=60)) as view:
        view.show(ParsedAnswer(Message("assistant", "", reasoning="Let me\n\nsee")))
        view.show(ParsedAnswer(Message("assistant", "Four", reasoning="Let me\n\nsee.")))
        view.finish(ParsedAnswer(Message("assistant", "Four.", reasoning="Let me\n\nsee.", tool_calls=(call,))))
    lines = [line.strip() for line in stream.getvalue().split("\n") if line.strip()]
    assert lines == ["thinking: Let me", "see.", "Four.", 'calls add({"a": 1})']


def test_an_answer_that_reads_otherwise_in_the_end_is_shown_whole() -> None:
    stream = io.StringIO()
    with AnswerView(Console(file=stream, width=60)) as view:
        view.show(ParsedAnswer(Message("assistant", "[first\n\nsecond\n\nthird")))
        view.show(ParsedAnswer(Message("assistant", "broken"), "could not be read"))
        view.finish(ParsedAnswer(Message("assistant", "Quite another.")))
    assert "Quite another." in stream.getvalue()
    assert "broken" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\ntwo", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", "one\n\n"),
        ("- a\n\n  more", ""),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nx", ""),
        ("~~~\n```\n\n~~~\n\nx", "~~~\n```\n\n~~~\n\n"),
    ],
)
def test_finished_blocks(text: str, done: str) -> None:
    assert text[: finished(text)] == done


def completions(text: str) -> list[str]:
    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


def test_completion(tmp_path: Path) -> None:
    (tmp_path / "talk.jsonl").touch()
    assert completions("!e") == ["!edit", "!example", "!export", "!exit"]
    assert completions("e") == []
    assert "max_new_tokens=" in completions("!set temperature=1 max_n")
    assert "chat.overflow=" in completions("!set chat.o")
    assert completions("!example su") == ["sum"]
    assert completions(f"!load {tmp_path}/ta") == ["lk.jsonl"]
    assert completions("!undo x") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["max_new_token=3"], "did you mean generation.max_new_tokens?"),
        (["quantization=4bit"], "model.quantization"),
        (["max_length=3"], "generation.max_new_tokens"),
        (["modle.name=x"], "modle is not a setting"),
        (["sink.directory=x"], "no meaning in a chat"),
        (["name=x"], "name"),
        (["scripted", "flag"], "'flag' is no flag"),
        (["=3"], "no flag"),
        (["num_return_sequences=2"], "generation.samples"),
        (["samples=2"], "one answer at a time"),
        (["scripted"], "engine.kind: scripted"),
        (["missing.yaml"], "there is no recipe missing.yaml"),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_recipe(arguments)
    assert words in str(raised.value)


def test_flags_are_settings() -> None:
    recipe = open_recipe(["do_sample=False", "max_new_tokens=10", "num_beams=None", "model.quantization=4bit"])
    assert recipe.model.name == "builtin:tiny-chat"
    assert recipe.model.quantization == "4bit"
    assert recipe.generation.do_sample is False
    assert recipe.generation.max_new_tokens == 10
    assert changed(recipe, ["temperature=0"]).generation.max_new_tokens == 10
    assert open_recipe(["some/model", "seed=1"]).model.name == "some/model"
    assert open_recipe(["builtin:quickstart"]).name == "quickstart"
    assert open_recipe(["builtin:tiny-chat"]).model.name == "builtin:tiny-chat"


def test_a_recipe_brings_its_settings_and_tools(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x", "tools": tools}])
    path = scripted_recipe(
        tmp_path / "r.yaml", source, chat={"system": "Hi."}, generation={"samples": 4, "max_new_tokens": 9}
    )
    recipe = open_recipe([str(path), "seed=3"])
    assert recipe.generation.model_dump(include={"samples", "max_new_tokens", "seed"}) == {
        "samples": 1,
        "max_new_tokens": 9,
        "seed": 3,
    }
    offered = offered_tools(recipe)
    assert offered.place == f"{source}:1"
    assert offered.tools is not None
    assert [tool["function"]["name"] for tool in offered.tools] == ["clock"]
    gone = scripted_recipe(tmp_path / "gone.yaml", tmp_path / "gone.jsonl")
    missing = offered_tools(open_recipe([str(gone)]))
    assert missing.tools is None
    assert "gone.jsonl" in (missing.reason or "")


def test_pipe(batchchat: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def piped(text: bytes, *arguments: str) -> tuple[int, str, str]:
        stdin = tmp_path / "stdin"
        stdin.write_bytes(text)
        with open(stdin, encoding="utf-8") as stream:
            monkeypatch.setattr("sys.stdin", stream)
            ended = batchchat("chat", *arguments)
        return ended.code, ended.out, ended.err

    assert piped(b"hi\nthere\n", *ECHO) == (0, "hi\nthere\n", "")
    assert piped(b"!help\n", *ECHO) == (0, "!help\n", "")
    code, out, err = piped(b"abcdef", *ECHO, "max_new_tokens=3")
    assert (code, out) == (0, "abc\n")
    assert "cut at max_new_tokens" in err
    for empty in (b"", b" \n"):
        code, out, err = piped(empty, *ECHO)
        assert (code, out) == (2, "")
        assert "holds no question" in err
    assert piped(b"\xff", *ECHO)[0] == 2
    assert piped(b"hi", *ECHO, "nonsense=1")[:2] == (2, "")
    code, out, err = piped(b"hi", *ECHO, "engine.scripted.fail_every=1")
    assert (code, out) == (3, "")
    assert "fails every" in err
    assert piped(b"hi", *ECHO, "chat.max_context=9", "max_new_tokens=2")[0] == 3
