"""The bar in a notebook: one output of the cell that is drawn anew, with what every front end can show."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchchat.reporting.progress import RunProgress

_SECONDS_BETWEEN_DRAWINGS = 0.2


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook (Jupyter, VS Code, Colab, …)."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class NotebookLine:
    """A progress element of HTML and a line of text; needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = 0.0
        self._waiting: _Shown | None = None

    def show(self, progress: RunProgress) -> None:
        self._waiting = _Shown(progress)
        if time.perf_counter() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def close(self) -> None:
        self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        if self._waiting is None:
            return
        if self._handle is None:
            self._handle = display(self._waiting, display_id=True)
        else:
            self._handle.update(self._waiting)
        self._drawn, self._waiting = time.perf_counter(), None


class _Shown:
    """What IPython asks an object that it shows."""

    def __init__(self, progress: RunProgress):
        self._progress = progress

    def __repr__(self) -> str:
        return f"{self._progress.run}: {self._progress}"

    def _repr_html_(self) -> str:
        done, total = self._progress.chats_done, self._progress.chats_total
        known = f' max="{max(1, total)}" value="{done}"' if total is not None else ""
        name, said = escape(self._progress.run), escape(str(self._progress))
        return f'<progress{known} aria-label="{name}" style="width: 20em"></progress> {name}: {said}'
