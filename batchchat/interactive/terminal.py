"""The keys: a prompt with several lines, history and completion, up before the model is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console

from batchchat.interactive.commands import COMMANDS
from batchchat.interactive.examples import EXAMPLES
from batchchat.interactive.keys import keyboard
from batchchat.interactive.opening import OfferedTools
from batchchat.interactive.responder import Responder
from batchchat.interactive.session import ChatSession, LoadFailed
from batchchat.recipe import Recipe
from batchchat.recipe.json_schema import settings

_PATHS = ("!load", "!save", "!export")


def talk(recipe: Recipe, offered: OfferedTools) -> None:
    """Chat in the terminal until the user leaves. Raises UsageError or EnvironmentFault where the model does not load.

    The model is loaded while the first question is typed.
    """
    console = Console(highlight=False, emoji=False)
    loading: Future[Responder] = Future()

    def responder() -> Responder:
        if not loading.done():
            with console.status("loading the model"):
                loading.exception()
        return loading.result()

    session = ChatSession(recipe, responder, console, offered.tools)
    session.note(f"{recipe.model.name}: !help lists the commands, Ctrl-D leaves.")
    if offered.tools:
        session.note(f"tools of {offered.place}: {len(offered.tools)}; !status names them")
    elif offered.reason:
        session.note(f"no tools were read: {offered.reason}")
    Thread(target=_load, args=(recipe, loading), daemon=True).start()
    try:
        with keyboard(session.interrupt):
            session.run(QuestionPrompt(loading).read)
    except LoadFailed as failed:
        raise failed.reason from None


class QuestionPrompt:
    """Reads what is typed, and gives up when loading the model fails meanwhile."""

    def __init__(self, loading: Future[Responder]):
        self._loading = loading
        self._session: PromptSession[str] = PromptSession(
            [("bold", "> ")],
            multiline=True,
            prompt_continuation="  ",
            history=_history(),
            completer=CommandCompleter(),
            complete_while_typing=False,
            key_bindings=_keys(),
        )

    def read(self, draft: str) -> str:
        """What the user sends. Raises EOFError where he leaves, LoadFailed where there is nobody to answer."""
        return self._session.prompt(default=draft, pre_run=self._give_up_if_loading_fails)

    def _give_up_if_loading_fails(self) -> None:
        app = get_app()
        loop = app.loop
        assert loop is not None, "a prompt that runs has its loop"

        def leave() -> None:
            error = self._loading.exception()
            if error is not None and app.is_running:
                app.exit(exception=LoadFailed(error))

        def told(_: Future[Responder]) -> None:
            with suppress(RuntimeError):  # the prompt has been left, and its loop is closed
                loop.call_soon_threadsafe(leave)

        self._loading.add_done_callback(told)


class CommandCompleter(Completer):
    """Completes commands, settings, examples and files."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        command, space, rest = text.partition(" ")
        if not text.startswith("!"):
            return
        if not space:
            for name, known in COMMANDS.items():
                if f"!{name}".startswith(command):
                    yield Completion(f"!{name}", -len(command), display_meta=known.meaning)
        elif command in _PATHS:
            yield from PathCompleter(expanduser=True).get_completions(Document(rest), complete_event)
        else:
            word = rest.rpartition(" ")[2]
            for choice in _choices(command):
                if choice.startswith(word):
                    yield Completion(choice, -len(word))


def _choices(command: str) -> list[str]:
    """What may stand behind a command."""
    if command == "!example":
        return list(EXAMPLES)
    if command == "!set":
        known = [setting.path for setting in settings() if setting.section in ("generation", "chat")]
        return [f"{path.removeprefix('generation.')}=" for path in known]
    return []


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        """Send; with an open menu, take what is chosen in it."""
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        """Forget the line: it stops answers, not the program."""
        event.current_buffer.reset()

    return keys


def _history() -> History:
    """What was typed in earlier chats, in a file that only its owner reads; of this one where there can be none."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = state / "batchchat" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        return FileHistory(path)
    except OSError:
        return InMemoryHistory()


def _load(recipe: Recipe, loading: Future[Responder]) -> None:
    try:
        loading.set_result(Responder(recipe))
    except BaseException as error:  # raised again where the responder is asked for
        loading.set_exception(error)
