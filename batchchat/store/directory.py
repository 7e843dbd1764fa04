"""The run directory: its files, its lock, and whether a run may go on in it."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import IO

from batchchat.chats.json_text import encodable
from batchchat.errors import DISK_FULL, EnvironmentFault, UsageError
from batchchat.recipe import SinkSection
from batchchat.store.lock import hold

_LOCK = "lock"


class RunDirectory:
    """`directory` and the names of what lies in it. Nothing is created before `lock()`."""

    def __init__(self, directory: Path):
        self.path = directory
        self.database = directory / "run.sqlite"
        self.manifest = directory / "manifest.json"
        self.recipe = directory / "recipe.yaml"
        self.log = directory / "run.log"
        self.errors = directory / "errors.jsonl"
        self.report_json = directory / "report.json"
        self.report_markdown = directory / "report.md"
        self.report_html = directory / "report.html"
        self._lock: FileIO | None = None

    @property
    def reports(self) -> tuple[Path, ...]:
        """The report in each of its forms."""
        return (self.report_html, self.report_json, self.report_markdown)

    def outputs(self, format_: str) -> Path:
        return self.path / f"outputs.{format_}"

    def parts(self, format_: str) -> Path:
        """The folder of outputs that are written in parts."""
        return self.path / f"outputs-{format_}"

    def results(self, sink: SinkSection) -> list[Path]:
        """Where the outputs lie, as files or as folders of parts."""
        place = self.outputs if sink.shards is None and sink.every is None else self.parts
        return [place(format_) for format_ in sink.formats]

    def lock(self) -> None:
        """Create the directory and hold it until `release` or the end of the process, however that comes."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / _LOCK, "ab", buffering=0)
            hold(self._lock)
            moved = not os.path.samestat(os.fstat(self._lock.fileno()), (self.path / _LOCK).stat())
        except BlockingIOError:
            self.release()
            holder = (self.path / _LOCK).read_text(encoding="utf-8", errors="replace").strip() or "another process"
            raise UsageError(
                f"{self.path} is in use by {holder}: wait until it ends, or begin another run with sink.directory=…"
            ) from None
        except FileExistsError:
            raise UsageError(f"{self.path} is not a directory: choose another with sink.directory=…") from None
        except OSError as error:
            raise EnvironmentFault(
                f"the run directory {self.path} cannot be used: {error.strerror}; choose another with sink.directory=…"
            ) from None
        if moved:  # the directory was set aside before it was held
            self.release()
            self.lock()
            return
        with suppress(OSError):  # on a full disk it is held all the same, without a name
            self._lock.truncate(0)
            self._lock.write(f"process {os.getpid()}".encode())

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def set_aside(self) -> Path | None:
        """Move an existing run directory to the next free `NAME.old-N`; None where there is none. Raises UsageError
        where another process works in it, or where it holds other things than a run."""
        if not self.path.exists():
            return None
        if not any((self.path / name).exists() for name in (_LOCK, self.database.name, self.manifest.name)):
            if self.path.is_dir() and not any(self.path.iterdir()):
                return None
            raise UsageError(
                f"{self.path} holds no run, so it is not moved aside: choose another directory with sink.directory=…"
            )
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.lock()
        if os.name == "nt":  # where nothing moves in which a file is open
            self.release()
        try:
            self.path.rename(aside)
        except OSError as error:
            raise EnvironmentFault(f"{self.path} cannot be moved to {aside}: {error.strerror}") from error
        finally:
            self.release()
        return aside

    def write(self, path: Path, text: str) -> None:
        """Replace a file of the directory in one step: readers see the old one or the new one, whole. Names of files
        that are not UTF-8 stand in it as escapes."""
        with replacing(path) as file:
            file.write(encodable(text).encode("utf-8"))


def make_folder(path: Path) -> None:
    """Raises EnvironmentFault where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        full = "the disk is full, and " if error.errno in DISK_FULL else ""
        raise EnvironmentFault(f"{full}the folder {path} cannot be made: {error.strerror}") from error


class replacing:  # noqa: N801 - reads as a verb in a with statement
    """`with replacing(path) as file:` writes a temporary neighbour and renames it over `path` once it is durable.

    An exception leaves `path` as it was and removes the temporary file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")

    def __enter__(self) -> IO[bytes]:
        try:
            self._file: IO[bytes] = open(self._temporary, "wb")
        except OSError as error:
            raise self._fault(error) from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                self._temporary.replace(self._path)
        except OSError as problem:
            self._temporary.unlink(missing_ok=True)
            raise self._fault(problem) from problem
        if kind is not None:
            self._temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._fault(error) from error

    def _fault(self, error: OSError) -> EnvironmentFault:
        if not self._path.parent.exists():
            return EnvironmentFault(
                f"{self._path.parent} was removed while the run worked in it, and its answers with it; run the same "
                "command again"
            )
        full = "the disk is full, and " if error.errno in DISK_FULL else ""
        return EnvironmentFault(
            f"{full}{self._path} cannot be written: {error.strerror or error}; what was finished is kept, so make room "
            "for it and run the same command again"
        )
