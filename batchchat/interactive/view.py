"""An answer on the terminal while it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from batchchat.interactive.markdown import finished, markdown
from batchchat.prompts import ParsedAnswer
from batchchat.reporting.escape import printable

_KEPT_FREE = 2
"""Lines of the terminal that the part still being written leaves alone."""


class AnswerView:
    """Prints what is finished for good, block by block, and redraws the rest below it.

    So an answer longer than the screen scrolls as all text does, and drawing costs no more as it grows.
    """

    def __init__(self, console: Console):
        self._console = console
        self._thinking = _Part()
        self._has_thought = False
        self._content = _Part()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> AnswerView:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.update("")
        self._live.stop()

    def show(self, answer: ParsedAnswer) -> None:
        """The answer as far as it is written. One that could not be read yet changes nothing."""
        if answer.note is None:
            self._take(answer)
            content = self._content.waiting
            rest = _spoken(content) if content else self._thought(self._thinking.waiting)
            self._live.update(_Tail(rest), refresh=True)

    def finish(self, answer: ParsedAnswer) -> None:
        """The whole answer; what is not shown yet is printed."""
        self._live.update("", refresh=True)
        self._take(answer, whole=True)
        for call in answer.message.tool_calls:
            function = call["function"]
            self._print(Text(printable(f"calls {function['name']}({_arguments(function['arguments'])})"), "cyan"))

    def _take(self, answer: ParsedAnswer, whole: bool = False) -> None:
        """Print the blocks that are finished now."""
        content = answer.message.content or ""
        thought = self._thinking.take(answer.message.reasoning or "", whole or bool(content.strip()))
        if thought:
            self._print(self._thought(thought))
            self._has_thought = True
        said = self._content.take(content, whole)
        if said:
            self._print(_spoken(said))

    def _thought(self, text: str) -> Text:
        """Thinking is told apart by its style, and by a word where there are no styles."""
        head = "thinking: " if text and not self._has_thought else ""
        return Text(head + printable(text), style="dim italic")

    def _print(self, block: RenderableType) -> None:
        self._console.print(block)
        self._console.print()


class _Part:
    """A text that grows: what of it is printed, and what waits."""

    def __init__(self) -> None:
        self._text = ""
        self._printed = 0

    @property
    def waiting(self) -> str:
        return self._text[self._printed :].strip("\n")

    def take(self, text: str, whole: bool) -> str:
        """Take the longer text; what can be printed of it now. A text that does not go on where the printed one ended,
        since it is read otherwise now that it is whole, is printed from its beginning."""
        if not text.startswith(self._text[: self._printed]):
            if not whole:
                return ""
            self._printed = 0
        self._text = text
        new = text[self._printed :]
        end = len(new) if whole else finished(new)
        self._printed += end
        return new[:end].strip("\n") if new[:end].strip() else ""


class _Tail:
    """The last lines of something, as many as the terminal has room for."""

    def __init__(self, content: RenderableType):
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        room = max(1, console.height - _KEPT_FREE)
        for line in console.render_lines(self._content, options, pad=False)[-room:]:
            yield from line
            yield Segment.line()


def _spoken(text: str) -> RenderableType:
    return markdown(printable(text))


def _arguments(arguments: object) -> str:
    return json.dumps(arguments, ensure_ascii=False)
