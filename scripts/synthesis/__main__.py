"""Shows what making data comes to: forms, recipes that are killed, the best of several answers, tools, duplicates.

    python -m scripts.synthesis [--parts PART …] [--rows N] [--output FOLDER]

Prints what was found, and a table at the end; ends with 1 where something is not as it should be. The parts llguidance
and xgrammar need the source distribution of jsonschema, which carries the JSON Schema test suite: pip fetches it into
build/structured, or it is put there by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from scripts import parts
from scripts.structured import suite
from scripts.synthesis import best_of_four, duplicates, killed, tool_loop

PARTS: Mapping[str, parts.Show] = {
    "duplicates": lambda folder, options: duplicates.show(options.texts),
    "llguidance": lambda folder, options: suite.show("llguidance", folder, options.schemas, options.tokens),
    "xgrammar": lambda folder, options: suite.show("xgrammar", folder, options.schemas, options.tokens),
    "killed": lambda folder, options: killed.show(folder, options.rows),
    "best-of-four": lambda folder, options: best_of_four.show(folder, options.rows // 4),
    "tools": lambda folder, options: tool_loop.show(folder),
}
"""The first one tells how much memory the process took, so nothing may come before it."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parts.parser_of("synthesis", PARTS, "Making data, at length.")
    parser.add_argument(
        "--rows", type=int, default=1000, help="of each recipe that is killed; a quarter get four answers"
    )
    parser.add_argument("--schemas", type=int, default=300, help="of the test suite")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer to a schema at most")
    parser.add_argument("--texts", type=int, default=100_000, help="among which duplicates are looked for")
    return parts.show(PARTS, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
