"""The viewer's page: its shell, style and program, with a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import cache
from importlib.resources import files

from batchchat.reporting.escape import printable

MODULES = (
    "dom", "text", "packed", "data", "state", "fields", "filters", "search", "diff", "markdown", "tokens", "answer",
    "chat", "compare", "table", "export", "keys", "main",
)  # fmt: skip
"""The program's modules, each after those that it imports."""

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|class|let)", re.MULTILINE)


def asset(name: str) -> str:
    """A file of the viewer."""
    return files("batchchat.viewer").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def program() -> str:
    """All modules as one script: their imports of each other are gone, and nothing of them is global."""
    parts = [_EXPORT.sub("", _IMPORT.sub("", asset(f"{name}.js"))) for name in MODULES]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n"


def beginning(title: str, head: str, sources: str) -> str:
    """The page up to where the chats follow. `head` is JSON for a script element; `sources` says what besides the page
    itself may be loaded, as directives of the policy."""
    style, script = asset("viewer.css"), program()
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'{sources}; "
        "base-uri 'none'; form-action 'none'"
    )
    shell = asset("viewer.html")
    values = {"title": html.escape(printable(title)), "policy": policy, "style": style, "head": head, "script": script}
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], shell)


ENDING = "</body>\n</html>\n"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
