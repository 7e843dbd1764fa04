"""Which model it was: a hash of its files, or the hub's commit."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from batchchat.models.names import locate, resolve_name
from batchchat.models.text import load_config
from batchchat.recipe.model import ModelSection

_WHOLE = 2 * 1024**3
"""Folders up to this many bytes are hashed whole; of larger ones each file's size, first and last mebibyte."""
_EDGE = 1024**2
_PATTERNS = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.gguf", "*.bin")


def folder_identity(folder: Path) -> dict[str, Any]:
    """`{"sha256": …, "bytes": …, "hashed": "whole" | "edges"}` of the files that make up a model."""
    files = _folder_files(folder)
    size = sum(file.stat().st_size for file in files)
    whole = size <= _WHOLE
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(_content(file, whole))
    return {"sha256": digest.hexdigest(), "bytes": size, "hashed": "whole" if whole else "edges"}


_ahead: dict[tuple[tuple[Path, int, int], ...], Future[dict[str, Any]]] = {}
"""Folders that are being hashed, by the names, sizes and times of their files."""


def hash_ahead(section: ModelSection) -> None:
    """Begin to hash the folder of the recipe's model in another thread, while libraries are imported in this one.
    `model_identity` asks for what it finds."""
    folder = Path(resolve_name(section.name, section.gguf_file))
    if folder.is_dir():
        with_one = ThreadPoolExecutor(1)
        _ahead[_state(folder)] = with_one.submit(folder_identity, folder)
        with_one.shutdown(wait=False)


def _state(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    return tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in _folder_files(folder))


def _identity(folder: Path) -> dict[str, Any]:
    found = _ahead.pop(_state(folder), None)
    return folder_identity(folder) if found is None else found.result()


def _folder_files(folder: Path) -> list[Path]:
    return sorted({file for pattern in _PATTERNS for file in folder.glob(pattern) if file.is_file()})


def _content(file: Path, whole: bool) -> bytes:
    """The digest of a file, or of its first and last mebibyte."""
    with open(file, "rb") as stream:
        if whole:
            return hashlib.file_digest(stream, "sha256").digest()
        edges = hashlib.sha256(stream.read(_EDGE))
        stream.seek(max(0, file.stat().st_size - _EDGE))
        edges.update(stream.read(_EDGE))
        return edges.digest()


def model_identity(section: ModelSection) -> dict[str, Any]:
    """What tells the recipe's model from others: its files' hash, or its commit on the hub."""
    resolved = locate(section)
    adapter = {} if section.adapter is None else {"adapter": _adapter_identity(section.adapter)}
    if Path(resolved).is_dir():
        return {"name": section.name, **_identity(Path(resolved)), **adapter}
    return {"name": section.name, "commit": getattr(load_config(section), "_commit_hash", None), **adapter}


def model_files(section: ModelSection) -> list[Path] | None:
    """The files that `model_identity` is about, found without asking the hub or reading a library of models; None where
    that cannot be."""
    name = resolve_name(section.name, section.gguf_file)
    folders = [folder_at_hand(name, section.gguf_file or "config.json", section)]
    if section.adapter is not None:
        folders.append(folder_at_hand(section.adapter, "adapter_config.json", section))
    found: list[Path] = []
    for folder in folders:
        if folder is None:
            return None
        found += _folder_files(folder)
    return found


def folder_at_hand(name: str, file: str, section: ModelSection) -> Path | None:
    """The folder of a model or adapter: its own, or where the hub's library keeps the revision that it fetched last."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if section.endpoint is not None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, cache_dir=section.cache_dir, revision=section.revision)
    return Path(found).parent if isinstance(found, str) else None


def _adapter_identity(name: str) -> dict[str, Any]:
    folder = Path(name).expanduser()
    return folder_identity(folder) if folder.is_dir() else {"name": name}
