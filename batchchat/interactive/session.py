"""A chat in a terminal: what each line that is typed does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from typing import Any

from rich.console import Console
from rich.text import Text

from batchchat.chats import Chat, Message
from batchchat.errors import BadRow, BatchchatError
from batchchat.interactive.commands import is_command, run_command
from batchchat.interactive.conversation import Conversation, Provenance
from batchchat.interactive.opening import changed
from batchchat.interactive.responder import AnswerStopped, Reply, Responder
from batchchat.interactive.view import AnswerView
from batchchat.prompts import ParsedAnswer
from batchchat.recipe import Recipe
from batchchat.recipe.dumping import to_inline_yaml
from batchchat.reporting.escape import printable

Tool = Mapping[str, Any]
ReadLine = Callable[[str], str]
"""Asks for what is to be said, with a draft to begin with; EOFError where nothing more comes."""


class LoadFailed(Exception):
    """The model could not be loaded, so the chat cannot go on."""

    def __init__(self, reason: BaseException):
        super().__init__(str(reason))
        self.reason = reason


class ChatSession:
    """One chat. `load` gives the responder; it is called when it is first needed, so that the prompt need not wait.

    `tools` are offered in every new conversation.
    """

    def __init__(
        self, recipe: Recipe, load: Callable[[], Responder], console: Console, tools: Sequence[Tool] | None = None
    ):
        self.recipe = recipe
        self.console = console
        self.draft = ""
        """What the next line begins with."""
        self._load = load
        self._loaded: Responder | None = None
        self._tools = None if tools is None else tuple(tools)
        self._numbers = count(1)
        self._busy = self._leaving = False
        self.conversation = self._new_conversation()

    @property
    def responder(self) -> Responder:
        """Waits for the model. Raises LoadFailed."""
        if self._loaded is None:
            try:
                self._loaded = self._load()
            except BatchchatError as error:
                raise LoadFailed(error) from error
        return self._loaded

    def run(self, read: ReadLine) -> None:
        """Read and do lines until the user leaves."""
        while not self._leaving:
            draft, self.draft = self.draft, ""
            try:
                line = read(draft)
            except EOFError:
                return
            self.do(line)

    def do(self, line: str) -> None:
        """One line: a command, something to answer, or nothing. A line that cannot be done changes nothing; why is
        told, and the chat goes on. Raises LoadFailed."""
        before = self.recipe, self.conversation.copy()
        try:
            self._busy = True
            if is_command(line):
                run_command(self, line)
            elif line.strip():
                self.ask(Message("user", line))
        except (BatchchatError, AnswerStopped) as error:
            self.recipe, self.conversation = before
            self.console.print(Text(printable(str(error)), style="red"))
        finally:
            self._busy = False

    def interrupt(self) -> None:
        """Stop what is being done, if anything is; called from a signal's handler."""
        if self._busy and self._loaded is None:
            raise AnswerStopped("stopped while the model was being loaded; it still is")
        if self._busy and self._loaded is not None:
            self._loaded.stop()

    def ask(self, question: Message) -> None:
        """Say something and show the answer."""
        self.conversation.messages.append(question)
        self.answer()

    def answer(self, anew: bool = False, id_: str | None = None) -> Reply:
        """Answer what waits, and show it. `anew`: with a seed of its own. `id_` is the chat's id where it has one.

        Raises BadRow where it cannot be answered, or was stopped before its first token.
        """
        responder = self.responder
        origin = self._origin(anew, id_)
        with AnswerView(self.console) as view:
            reply = responder.answer(self.conversation, origin, view.show)
            view.finish(ParsedAnswer(reply.message, reply.note))
        if reply.stopped and not (reply.num_tokens or reply.message.content or reply.message.reasoning):
            raise BadRow("stopped before the first token; the question is taken back")
        self.conversation.answer(reply.message, None if reply.stopped else origin)
        self._tell(reply)
        return reply

    def resume(self, chat: Chat) -> None:
        """Go on with a conversation from elsewhere, its settings laid over those in force."""
        flags = [f"{name}={to_inline_yaml(value)}" for name, value in chat.settings.items() if name != "samples"]
        self.recipe = changed(self.recipe, flags)
        self.conversation = Conversation(tools=chat.tools)
        if chat.prefill:
            self._hear(tuple(chain(*chat.segments)))
            return
        for turn, segment in enumerate(chat.segments):
            self._hear(segment)
            if self.answer(id_=None if turn else chat.id).stopped:
                self.note(f"{chat.num_turns - turn - 1} turns behind it were left out")
                return
        self._hear(chat.tail)

    def restart(self) -> None:
        """Begin a new conversation."""
        self.conversation = self._new_conversation()

    def leave(self) -> None:
        """End the chat behind this line."""
        self._leaving = True

    def note(self, text: str) -> None:
        """Say something that is not the model's."""
        self.console.print(Text(printable(text), style="dim"))

    def quote(self, message: Message) -> None:
        """Show a message that was not typed."""
        calls = [call["function"]["name"] for call in message.tool_calls]
        text = message.content or f"calls {', '.join(calls)}"
        self.console.print(Text(f"{message.role}: ", style="bold") + Text(printable(text)))

    def _new_conversation(self) -> Conversation:
        conversation = Conversation(tools=self._tools)
        conversation.system = self.recipe.chat.system
        return conversation

    def _hear(self, messages: Sequence[Message]) -> None:
        """Take in and show messages from elsewhere."""
        for message in messages:
            self.quote(message)
        self.conversation.extend(messages)

    def _origin(self, anew: bool, id_: str | None) -> Provenance:
        """That of the next answer: the last one's where a run would write both."""
        talk = self.conversation
        last = talk.origins[-1] if talk.origins else None
        tool_turn = any(message.role == "tool" for message in talk.messages[-3:])
        if last is not None and last.recipe == self.recipe and not anew and id_ is None and not tool_turn:
            return last
        return Provenance(id_ or f"chat-{next(self._numbers)}", len(talk.origins), self.recipe)

    def _tell(self, reply: Reply) -> None:
        """What is to be known of an answer."""
        for event in reply.events:
            self.note(event)
        for what, number in reply.cut.items():
            self.note(_CUT[what].format(number) + f" (chat.overflow={self.recipe.chat.overflow})")
        if reply.note is not None:
            self.note(reply.note)
        tokens = reply.num_tokens
        counted = "" if tokens is None else f"{tokens} tokens"
        speed = f", {tokens / reply.seconds:.1f} tokens/s" if tokens is not None and reply.seconds > 0 else ""
        ended = "; stopped" if reply.stopped else "; cut at max_new_tokens" if reply.finish_reason == "length" else ""
        self.note(f"{counted}{speed}{ended}".removeprefix("; "))


_CUT = {
    "messages": "the context is full: the {} oldest messages were left out of the prompt",
    "prompt_tokens": "the context is full: the first {} tokens were left out of the prompt",
    "new_tokens": "the context is nearly full: the answer may have {} tokens fewer",
}
