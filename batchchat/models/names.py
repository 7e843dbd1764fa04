"""What a model's name means, and why a model could not be loaded."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from batchchat.errors import BatchchatError, EnvironmentFault, UsageError
from batchchat.hub import is_out_of_reach
from batchchat.models.devices import cuda_fault
from batchchat.recipe.model import NO_MODEL, ModelSection

_BUILTIN = "builtin:"
_FOLDERS = {"tiny-chat": Path(__file__).parent / "tiny_chat"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

_SETTINGS = {"model": "model.name", "adapter": "model.adapter"}

_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")
"""What is fetched from a mirror."""

__all__ = [
    "NO_MODEL",
    "explained",
    "hub_arguments",
    "locate",
    "require_adapter_in_reach",
    "require_in_reach",
    "resolve_name",
]


def locate(section: ModelSection) -> str:
    """Where the files of the recipe's `model` section are: a folder, or a hub id. With `model.endpoint` they are
    fetched from that mirror first. Raises what `resolve_name` raises, and what explains why nothing was fetched."""
    name = require_in_reach(section)
    if Path(name).is_dir() or section.endpoint is None:
        return name
    wanted = _FILES if section.gguf_file is None else (*_FILES[:-1], section.gguf_file)
    code = ("*.py",) if section.trust_remote_code else ()
    with explained(section.name):
        return _fetched(
            name, section.revision, section.endpoint, section.cache_dir, section.local_files_only, (*wanted, *code)
        )


def require_in_reach(section: ModelSection) -> str:
    """The folder or hub id of the recipe's model. Raises EnvironmentFault where its hub repository is neither here nor
    to be had, before any large library is read."""
    name = resolve_name(section.name, section.gguf_file)
    file = section.gguf_file or "config.json"
    if Path(name).is_dir() or section.endpoint is not None:
        return name
    if is_out_of_reach(name, file, section.revision, section.cache_dir, section.local_files_only):
        raise _unreachable(f"the model {name}", "model.name")
    return name


def require_adapter_in_reach(adapter: str, local_files_only: bool) -> None:
    """The same of the hub repository of its adapter."""
    if is_out_of_reach(adapter, "adapter_config.json", None, None, local_files_only):
        raise _unreachable(f"the adapter {adapter}", "model.adapter")


@cache
def _fetched(
    name: str,
    revision: str | None,
    endpoint: str,
    cache_dir: str | None,
    local_files_only: bool,
    patterns: tuple[str, ...],
) -> str:
    """The folder with a mirror's files; asked once per process."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name,
        revision=revision,
        endpoint=endpoint,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        allow_patterns=list(patterns),
    )


def resolve_name(name: str, gguf_file: str | None = None) -> str:
    """The folder or hub id that `model.name` stands for. Raises UsageError for a built-in model that is unknown, and
    for a folder that is missing or holds no model: no config.json, or not the GGUF file that has one inside."""
    if name == NO_MODEL:
        raise UsageError(
            "model.name 'scripted' stands for no model, and this engine needs one; set engine.kind=scripted, or name a "
            "model"
        )
    if name.startswith(_BUILTIN):
        folder = _FOLDERS.get(name.removeprefix(_BUILTIN))
        if folder is None:
            known = [_BUILTIN + known for known in _FOLDERS]
            near = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise UsageError(f"the built-in model {name!r} does not exist; did you mean model.name={near}?")
        return str(folder)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if gguf_file is not None:
            if not (folder / gguf_file).is_file():
                raise UsageError(f"the folder {name} holds no {gguf_file}; set model.gguf_file to one of its files")
        elif not (folder / "config.json").is_file():
            raise UsageError(
                f"the folder {name} holds no config.json, so it is no model; set model.name to a model's folder or "
                "hub id"
            )
        return str(folder)
    if folder.exists():
        raise UsageError(f"model.name {name} is a file; set it to the folder that holds the model's config.json")
    if not _HUB_ID.fullmatch(name):
        raise UsageError(f"the folder {name} does not exist; set model.name to a model's folder or hub id")
    return name


def hub_arguments(section: ModelSection) -> dict[str, Any]:
    """The arguments that every `from_pretrained` of the model gets."""
    return {
        "revision": section.revision or "main",
        "trust_remote_code": section.trust_remote_code,
        "local_files_only": section.local_files_only,
        "cache_dir": section.cache_dir,
    }


@contextmanager
def explained(name: str, kind: str = "model") -> Iterator[None]:
    """Within it, whatever loading the model `name` raises becomes one sentence, a UsageError or EnvironmentFault.
    `kind`: adapter, where it is one."""
    try:
        yield
    except BatchchatError:
        raise
    except Exception as error:  # loading runs code of the hub, the model and its libraries, which raise anything
        raise _explain(f"the {kind} {name}", _SETTINGS[kind], error) from error


def _explain(it: str, setting: str, error: Exception) -> BatchchatError:
    kinds = {type(link).__name__ for link in _chain(error)}
    words = " ".join(str(error).split())
    if "GatedRepoError" in kinds:
        return UsageError(
            f"{it} is gated and this machine may not read it; accept its terms on the hub, then log in "
            "with `hf auth login`"
        )
    if "RevisionNotFoundError" in kinds:
        return UsageError(f"{it} has no such revision; set model.revision to one of its branches, tags or commits")
    if "RepositoryNotFoundError" in kinds:
        return UsageError(
            f"{it} is neither a folder here nor on the hub; set {setting} to one of them, or log in with "
            "`hf auth login` if it is private"
        )
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError", "ConnectTimeout"}:
        return _unreachable(it, setting)
    if "OutOfMemoryError" in kinds:
        return EnvironmentFault(
            f"{it} does not fit into memory; set model.quantization=4bit, a smaller model.dtype, or "
            "model.device_map=auto"
        )
    fault = cuda_fault(it, words)
    if fault is not None:
        return fault
    if "offload_folder" in words or "offload_dir" in words:
        return UsageError(f"{it} is to lie on the disk in part, and no place is named; set model.offload_folder")
    if "trust_remote_code" in words:
        return UsageError(
            f"{it} comes with Python code of its own; read that code, then set model.trust_remote_code=true"
        )
    if "safetensors" in words and isinstance(error, OSError):
        return UsageError(
            f"{it} has no safetensors weights, and other weights can run code when read; save it again "
            "with `save_pretrained`, or name another model"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return EnvironmentFault(
            f"the disk is full and {it} cannot be stored; free some space, or set model.cache_dir to a larger disk"
        )
    if isinstance(error, ImportError):
        return EnvironmentFault(f"{it} needs a package that is missing: {_short(words)}; install it with pip")
    return UsageError(
        f"{it} cannot be loaded: {_short(words) or type(error).__name__}; check its files, or name another with "
        f"{setting}"
    )


def _unreachable(it: str, setting: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"{it} is not on this machine and the hub cannot be asked; set {setting} to a folder, or connect "
        "(model.local_files_only=false, no HF_HUB_OFFLINE)"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _short(words: str, limit: int = 300) -> str:
    return words.rstrip(".") if len(words) <= limit else words[: limit - 1] + "…"
