"""Copies of what can be read once only, or lies elsewhere: temporary files that are gone when the source is closed."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from batchchat.errors import BatchchatError, EnvironmentFault, UsageError
from batchchat.sources.files import DataFile

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")


def is_address(path: str) -> bool:
    """Whether a path names files on object storage or another machine: `s3://…`, `gs://…`, `https://…`."""
    return _ADDRESS.match(path) is not None


def copy_from(stack: ExitStack, address: str) -> list[DataFile]:
    """The files that an address or a pattern stands for, copied by fsspec. Raises EnvironmentFault where the package
    for this kind of address is missing, UsageError where nothing is there."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
        names = sorted(system.glob(path)) if any(sign in path for sign in "*?[") else [path]
        if not names:
            raise UsageError(f"no file matches {address}")
        found = []
        for name in names:
            with system.open(name, "rb") as stream:
                found.append(spool(stack, system.unstrip_protocol(name), stream, "".join(Path(name).suffixes[-2:])))
        return found
    except BatchchatError:
        raise
    except ImportError as error:
        raise EnvironmentFault(f"{address} needs a package that is not installed: {error}") from None
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"there is no file {address}") from None
    except Exception as error:  # each kind of storage has exceptions of its own
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{address} cannot be read: {words}") from error


def spool(stack: ExitStack, name: str, stream: BinaryIO, suffix: str = "") -> DataFile:
    """A stream's content in a temporary file, since it is read more than once."""
    try:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchchat-"))
        path = Path(folder) / f"rows{suffix}"
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file)
    except OSError as error:
        raise EnvironmentFault(
            f"{name} cannot be copied to {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to a larger folder"
        ) from error
    return DataFile(name, path)
