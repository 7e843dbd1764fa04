"""The chat in a script: a question on standard input, the answer on standard output, everything else elsewhere."""

from __future__ import annotations

import sys

from batchchat.chats import Message
from batchchat.errors import UsageError
from batchchat.interactive.conversation import Conversation, Provenance
from batchchat.interactive.opening import OfferedTools
from batchchat.interactive.responder import Responder
from batchchat.recipe import Recipe
from batchchat.reporting.escape import printable

CHAT_ID = "chat-1"
"""As the first conversation of a terminal's chat has it: the same question gets the same answer there."""


def answer_once(recipe: Recipe, offered: OfferedTools) -> None:
    """Answer all of standard input as one question, its text as it is, commands not looked for.

    Raises UsageError for an empty one, and BadRow where it cannot be answered.
    """
    question = _question()
    talk = Conversation(tools=offered.tools)
    talk.system = recipe.chat.system
    talk.messages.append(Message("user", question))
    reply = Responder(recipe).answer(talk, Provenance(CHAT_ID, 0, recipe))
    text = reply.message.content or ""
    print(printable(text) if sys.stdout.isatty() else text)
    if reply.finish_reason == "length":
        print("batchchat: the answer was cut at max_new_tokens; raise it for a longer one", file=sys.stderr)
    for what, number in reply.cut.items():
        print(f"batchchat: chat.overflow={recipe.chat.overflow} took {number} {what} away", file=sys.stderr)


def _question() -> str:
    """Standard input without its last line end."""
    try:
        question = sys.stdin.buffer.read().decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text (byte {error.start}); convert it with iconv") from error
    if not question.strip():
        raise UsageError("standard input holds no question; pipe one in: echo 'What is 2 plus 2?' | batchchat chat")
    return question
