"""The viewer as a file, or as a folder where a file would be too large to open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from batchchat.chats.json_text import json_text
from batchchat.results import Results
from batchchat.store.directory import replacing
from batchchat.viewer.aligned import align
from batchchat.viewer.bodies import body
from batchchat.viewer.head import head
from batchchat.viewer.judges import JudgeReplies
from batchchat.viewer.packing import packed, packed_text, plain
from batchchat.viewer.page import ENDING, beginning
from batchchat.viewer.table import Block

BLOCK_CHATS = 4096
"""Chats in a block of the table."""
FIRST_CHATS = 500
"""Chats that are in the table at once, before anything is unpacked."""
_CHUNK_CHARACTERS = 400_000
_CHUNK_CHATS = 128
LARGEST_FILE = 50 * 2**20
"""Bytes of chats beyond which they lie in files of their own."""


@dataclass
class _Chunks:
    """Bodies of chats in compressed chunks, on the disk until the page is written."""

    file: IO[bytes]
    ends: list[int] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    characters: int = 0

    def add(self, value: Any) -> int:
        """Keep a body; returns the number of its chunk."""
        text = json_text(value)
        if self.waiting and (self.characters + len(text) > _CHUNK_CHARACTERS or len(self.waiting) >= _CHUNK_CHATS):
            self.flush()
        self.waiting.append(text)
        self.characters += len(text)
        return len(self.ends)

    def flush(self) -> None:
        if self.waiting:
            self.file.write(packed_text(f"[{','.join(self.waiting)}]").encode("ascii"))
            self.ends.append(self.file.tell())
            self.waiting, self.characters = [], 0

    def texts(self) -> Iterator[str]:
        """Each chunk's text in turn."""
        self.file.seek(0)
        begin = 0
        for end in self.ends:
            yield self.file.read(end - begin).decode("ascii")
            begin = end


def write_viewer(runs: Sequence[Results], output: Path, largest_file: int = LARGEST_FILE) -> Path:
    """Write the viewer of one or several runs to `output`; returns the page to open.

    Where the chats take more than `largest_file` bytes, `output` without its ending becomes a folder with the page
    and its chats. Memory holds the table, compressed, and a chunk of chats.
    """
    with ExitStack() as stack:
        judges = [JudgeReplies(run.report) for run in runs]
        for replies in judges:
            stack.callback(replies.close)
        chunks = _Chunks(stack.enter_context(TemporaryFile()))
        blocks: list[str] = []
        block, first, count = Block(len(runs)), None, 0
        for found in align(runs):
            block.add(found, chunks.add(body(found, judges)))
            count += 1
            if block.count == (FIRST_CHATS if first is None else BLOCK_CHATS):
                first, blocks = _kept(block, first, blocks)
                block = Block(len(runs))
        first, blocks = _kept(block, first, blocks)
        chunks.flush()
        known = {**head(runs), "count": count, "blocks": len(blocks), "chunks": len(chunks.ends), "first": first}
        title = " and ".join(run["name"] for run in known["runs"])
        if chunks.file.tell() <= largest_file:
            known["mode"] = "file"
            _write_file(output, beginning(title, plain(known), ""), blocks, chunks)
            return output
        known["mode"] = "folder"
        page = beginning(title, plain(known), " 'self'")
        return _write_folder(output.with_suffix(""), page, blocks, chunks)


def _kept(block: Block, first: Any, blocks: list[str]) -> tuple[Any, list[str]]:
    """The first block as it is, the others compressed."""
    if first is None:
        return block.as_dict(), blocks
    return first, [*blocks, packed(block.as_dict())] if block.count else blocks


def _write_file(output: Path, page: str, blocks: Sequence[str], chunks: _Chunks) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as file:
        file.write(page.encode("utf-8"))
        _write_blocks(file, blocks)
        for number, text in enumerate(chunks.texts()):
            file.write(f'<script type="text/plain" id="chunk-{number}">{text}</script>\n'.encode("ascii"))
        file.write(ENDING.encode("ascii"))


def _write_folder(folder: Path, page: str, blocks: Sequence[str], chunks: _Chunks) -> Path:
    """Each chunk is a script that hands over its text: pages on a disk may load scripts, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "chats"
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    for number, text in enumerate(chunks.texts()):
        (place / f"{number}.js").write_text(f'batchchatChunk({number},"{text}")\n', encoding="ascii")
    output = folder / "index.html"
    with replacing(output) as file:
        file.write(page.encode("utf-8"))
        _write_blocks(file, blocks)
        file.write(ENDING.encode("ascii"))
    return output


def _write_blocks(file: IO[bytes], blocks: Sequence[str]) -> None:
    for number, text in enumerate(blocks):
        file.write(f'<script type="text/plain" id="block-{number}">{text}</script>\n'.encode("ascii"))
