"""Whether the hub can be asked, found out in seconds: its library alone tries again for half a minute."""

from __future__ import annotations

from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal

_PATIENCE = 2.5
"""Seconds until a hub that says nothing counts as out of reach."""


def is_out_of_reach(
    name: str,
    file: str,
    revision: str | None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    kind: Literal["model", "dataset"] = "model",
) -> bool:
    """Whether `file` of the hub repository `name` is not on this machine and cannot be had: the hub is not to be asked,
    or does not answer. A repository that is not there or not open is within reach, and loading it says so."""
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, file, cache_dir=cache_dir, revision=revision, repo_type=kind), str):
        return False
    if local_files_only or is_offline_mode():
        return True
    return not _answers(name, file, revision, kind)


@cache
def _answers(name: str, file: str, revision: str | None, kind: str) -> bool:
    """Asked in a thread, since looking up a host's name heeds no time limit."""
    replies: SimpleQueue[bool] = SimpleQueue()
    Thread(target=lambda: replies.put(_asked(name, file, revision, kind)), daemon=True).start()
    try:
        return replies.get(timeout=_PATIENCE)
    except Empty:
        return False


def _asked(name: str, file: str, revision: str | None, kind: str) -> bool:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(name, file, revision=revision, repo_type=kind), timeout=_PATIENCE)
    except (HfHubHTTPError, FileMetadataError):  # an answer, whatever it says
        return True
    except Exception:  # no answer, in one of a network's many ways
        return False
    return True
