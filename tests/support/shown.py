"""What the README and the documentation show."""

from __future__ import annotations

import re
from pathlib import Path


def commands(text: str) -> list[str]:
    """The `batchchat` commands in the shell blocks of a Markdown text; a line that ends in a backslash goes on."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = (line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith(("batchchat ", "cat ", "echo "))]


def python_blocks(page: Path) -> list[str]:
    """The pieces of Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
