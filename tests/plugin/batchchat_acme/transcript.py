"""A writer: the scripts of all chats in one text."""

from typing import IO

from pydantic import Field

from batchchat.recipe import Section
from batchchat.store import Outputs, Writer


class TranscriptOptions(Section):
    """A text of all chats."""

    between: str = Field(default="--", description="The line between two chats.")


def write(file: IO[bytes], outputs: Outputs, options: TranscriptOptions) -> int:
    count = 0
    for row in outputs.rows():
        file.write(f"{row['script']}\n{options.between}\n".encode())
        count += 1
    return count


TRANSCRIPT = Writer(write, TranscriptOptions)
