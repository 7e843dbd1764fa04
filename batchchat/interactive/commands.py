"""The commands of a chat: lines that begin with `!` and a letter."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from batchchat.chats import Message
from batchchat.errors import UsageError
from batchchat.interactive import files
from batchchat.interactive.examples import EXAMPLES
from batchchat.interactive.opening import changed, with_system
from batchchat.reporting.escape import printable

if TYPE_CHECKING:
    from batchchat.interactive.session import ChatSession

_COMMAND = re.compile(r"!([A-Za-z]\S*)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """`arguments` is how they are written, "" for none."""

    name: str
    arguments: str
    meaning: str
    do: Callable[[ChatSession, str], None]


COMMANDS: dict[str, Command] = {}
"""By name, in the order of the help."""


def is_command(line: str) -> bool:
    """Whether a line is a command; to say something that looks like one, begin it with a space."""
    return _COMMAND.match(line) is not None


def run_command(session: ChatSession, line: str) -> None:
    """Do what a line says. Raises UsageError for an unknown command, the nearest one named."""
    match = _COMMAND.match(line)
    assert match is not None, "only commands come here"
    name, rest = match.group(1), match.group(2).strip()
    if name not in COMMANDS:
        near = difflib.get_close_matches(name.lower(), COMMANDS, 1)
        advice = f"did you mean !{near[0]}?" if near else "type !help for the commands"
        raise UsageError(f"there is no command !{name}; {advice}")
    command = COMMANDS[name]
    if rest and not command.arguments:
        raise UsageError(f"!{name} takes nothing behind it; type !{name} alone")
    command.do(session, rest)


def _command(name: str, arguments: str, meaning: str) -> Callable[[Callable[[ChatSession, str], None]], None]:
    def register(do: Callable[[ChatSession, str], None]) -> None:
        COMMANDS[name] = Command(name, arguments, meaning, do)

    return register


@_command("help", "", "This list.")
def _help(session: ChatSession, _: str) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for command in COMMANDS.values():
        table.add_row(Text(f"!{command.name} {command.arguments}", style="bold"), Text(command.meaning))
    session.console.print(table)
    session.note(
        "Enter sends, Alt-Enter begins a new line, Tab completes a command, Ctrl-C stops an answer, Ctrl-D leaves. A "
        "line that begins with a space is never a command."
    )


@_command("status", "", "The model, its engine, and the settings in force.")
def _status(session: ChatSession, _: str) -> None:
    settings = session.responder.settings(session.recipe)
    how = {name: getattr(settings, name) for name in type(settings).__dataclass_fields__}
    shown = {name: value for name, value in how.items() if value not in ((), None)}
    talk = session.conversation
    rows: dict[str, object] = {
        "model": session.recipe.model.name,
        **session.responder.facts().as_dict(),
        "seed": session.recipe.generation.seed,
        **shown,
        "overflow": session.recipe.chat.overflow,
        "messages": len(talk.messages),
        "system": talk.system or "none",
        "tools": ", ".join(str(tool.get("function", tool).get("name")) for tool in talk.tools or ()) or "none",
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(printable(str(value))))
    session.console.print(table)


@_command("tokens", "", "Tokens of the context that are used and left.")
def _tokens(session: ChatSession, _: str) -> None:
    used = session.responder.num_tokens(session.conversation, session.recipe) if session.conversation.messages else 0
    context = session.responder.context_length(session.recipe)
    if context is None:
        session.note(f"{used} tokens used; nothing says how many the model takes (see chat.max_context)")
    else:
        most = session.responder.settings(session.recipe).max_new_tokens
        session.note(f"{used} of {context} tokens used, {context - used} left; an answer takes up to {most} of them")


@_command("set", "FLAG=VALUE …", "Change settings: max_new_tokens=64 temperature=0.7 chat.overflow=…")
def _set(session: ChatSession, rest: str) -> None:
    flags = _words(rest)
    if not flags:
        raise UsageError("!set needs settings, for example !set temperature=0.7; type !status for those in force")
    recipe = changed(session.recipe, flags)
    if recipe.chat.system != session.recipe.chat.system:
        raise UsageError("the system turn is no setting of a running chat; type !system TEXT")
    session.responder.settings(recipe)  # whatever is wrong with it is found before it counts
    session.recipe = recipe
    session.note(f"set: {' '.join(flags)}")


@_command("system", "[TEXT]", "Show the system turn, or set it; - for none.")
def _system(session: ChatSession, rest: str) -> None:
    if rest:
        text = None if rest == "-" else rest
        session.recipe = with_system(session.recipe, text)
        session.conversation.system = text
    session.note(f"system: {session.conversation.system or 'none'}")


@_command("clear", "", "Begin a new conversation.")
def _clear(session: ChatSession, _: str) -> None:
    session.restart()
    session.console.clear()


@_command("undo", "", "Take back the last question and its answer.")
def _undo(session: ChatSession, _: str) -> None:
    gone = session.conversation.take_back_question()
    if gone is None:
        raise UsageError("there is no question to take back; type one")
    session.note(f"taken back: {gone.content}")


@_command("retry", "", "Answer the last question once more, with another seed.")
def _retry(session: ChatSession, _: str) -> None:
    session.conversation.take_back_answer()
    if session.conversation.question is None:
        raise UsageError("there is no question to answer; type one")
    session.answer(anew=True)


@_command("edit", "[TEXT]", "Ask the last question in other words.")
def _edit(session: ChatSession, rest: str) -> None:
    gone = session.conversation.take_back_question()
    if gone is None:
        raise UsageError("there is no question to change; type one")
    if rest:
        session.ask(Message("user", rest))
    else:
        session.draft = gone.content or ""


@_command("example", "[NAME]", "Ask one of the examples in a new conversation.")
def _example(session: ChatSession, rest: str) -> None:
    if rest in EXAMPLES:
        session.restart()
        session.quote(Message("user", EXAMPLES[rest]))
        session.ask(Message("user", EXAMPLES[rest]))
        return
    if rest:
        near = difflib.get_close_matches(rest, EXAMPLES, 1, 0.0)[0]
        raise UsageError(f"there is no example {rest}; did you mean !example {near}?")
    for name, text in EXAMPLES.items():
        session.note(f"{name}: {text}")


@_command("tool", "RESULT", "Give the result of the tool that was called, as text or JSON.")
def _tool(session: ChatSession, rest: str) -> None:
    last = session.conversation.messages[-1] if session.conversation.messages else None
    if last is None or not last.tool_calls:
        raise UsageError("no tool was called, so there is no result to give; type a question")
    if not rest:
        raise UsageError('!tool needs the result, for example !tool {"celsius": 21}')
    call = last.tool_calls[-1]
    session.ask(Message("tool", rest, tool_call_id=call.get("id"), name=call["function"]["name"]))


@_command("save", "[FILE]", "Save the conversation and the settings as a JSONL row.")
def _save(session: ChatSession, rest: str) -> None:
    if not session.conversation.messages:
        raise UsageError("there is nothing to save; ask something first")
    session.note(f"saved: {files.save(session.conversation, session.recipe, rest)}")


@_command("load", "FILE[:LINE]", "Go on with a conversation of a file; what waits in it is answered.")
def _load(session: ChatSession, rest: str) -> None:
    if not rest:
        raise UsageError("!load needs a file, for example !load chats.jsonl or !load chats.jsonl:3")
    session.resume(files.load(rest, session.recipe.chat.system))


@_command("export", "FILE", "Write what makes `batchchat run` write the last answer again: NAME.jsonl or NAME.yaml.")
def _export(session: ChatSession, rest: str) -> None:
    if not rest:
        raise UsageError("!export needs a file: NAME.jsonl for a row, NAME.yaml for a recipe")
    paths = files.export(session.conversation, rest)
    session.note(f"written: {', '.join(map(str, paths))}")
    if paths[0].suffix == ".yaml":
        session.note(f"next: batchchat run {shlex.quote(str(paths[0]))}")


@_command("exit", "", "Leave.")
def _exit(session: ChatSession, _: str) -> None:
    session.leave()


def _words(text: str) -> list[str]:
    """Flags between spaces; quotes hold one with spaces together."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"the settings cannot be told apart ({error}); close the quote") from error
