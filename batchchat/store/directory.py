"""The run directory: its files, its lock, and whether a run may go on in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from batchchat.errors import EnvironmentFault, UsageError
from batchchat.recipe import SinkSection
from batchchat.store.lock import hold


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
        self._lock: IO[str] | None = None

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
            self._lock = open(self.path / "lock", "a+", encoding="utf-8")
            hold(self._lock)
        except BlockingIOError:
            self.release()
            holder = (self.path / "lock").read_text(encoding="utf-8").strip() or "another process"
            raise UsageError(
                f"{self.path} is in use by {holder}: wait until it ends, or give this run another name with name=…"
            ) from None
        except FileExistsError:
            raise UsageError(f"{self.path} is not a directory: choose another with sink.directory=…") from None
        except OSError as error:
            raise EnvironmentFault(
                f"the run directory {self.path} cannot be made: {error.strerror}; choose another with sink.directory=…"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()}")
        self._lock.flush()

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def set_aside(self) -> Path | None:
        """Move an existing run directory to the next free `NAME.old-N`; None where there is none."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside

    def write(self, path: Path, text: str) -> None:
        """Replace a file of the directory in one step: readers see the old one or the new one, whole."""
        with replacing(path) as file:
            file.write(text.encode("utf-8"))

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        self.write(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


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
        return EnvironmentFault(
            f"{self._path} cannot be written: {error.strerror or error}; everything is in the run store, "
            "so free some space and run the same command again"
        )
