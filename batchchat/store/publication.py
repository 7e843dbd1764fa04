"""Copies of a run's results where others find them: on object storage, or wherever else fsspec writes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from batchchat.errors import EnvironmentFault, UsageError
from batchchat.store.database import RunStore
from batchchat.store.directory import RunDirectory
from batchchat.store.seals import sealed

log = logging.getLogger("batchchat")

_KEY = "published"
_RESULTS = ("outputs.", "outputs-", "scores.jsonl")
"""How the names begin of files that a run may have or not."""

Result = TypeVar("Result")


class Publication:
    """Copies finished files of a run directory to `address`, each as often as it changes. Without an address it does
    nothing.

    The run directory stays what a run goes on from. Parts (`sink.every`) are copied while the run goes on, in a thread
    of their own; what of them fails is said and tried again at the end, where it ends the run with EnvironmentFault.
    """

    def __init__(self, address: str | None, directory: RunDirectory, store: RunStore):
        self._address = address
        self._directory = directory
        self._store = store
        self._system: Any
        self._system, self._root = (None, "") if address is None else open_address(address)
        self._thread = ThreadPoolExecutor(1, "publication")
        self._waiting: list[tuple[str, Future[str]]] = []
        known = store.meta(_KEY)
        self._known: dict[str, str] | None = known["files"] if known and known["address"] == address else None
        """The hash of each file as it was copied; None where nothing was copied to this address by this run."""

    def __enter__(self) -> Publication:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=kind is None, cancel_futures=True)

    def begin(self, replace: bool) -> None:
        """Copy what says which run this is, so that an address that cannot be written to is known before any work.
        Raises UsageError where another run's results lie there, unless they are to be replaced."""
        if self._address is None:
            return
        manifest = self._directory.manifest
        if self._known is None:
            place = self._place(manifest.name)
            there = self._try(self._system.cat_file, place) if self._try(self._system.exists, place) else None
            if there not in (None, manifest.read_bytes()) and not replace:
                raise UsageError(
                    f"{self._address} holds the results of another run: choose another address with sink.publish=…, or "
                    "begin anew with --restart, which replaces them"
                )
        for file in (self._directory.recipe, manifest):
            self._settle(file.name, self._try(self._copy, file))
        self._remember(whole=False)

    def soon(self, file: Path) -> None:
        """Copy a finished file while the run goes on."""
        if self._address is not None:
            self._waiting.append((self._name(file), self._thread.submit(self._copy, file)))

    def finish(self, files: Iterable[Path]) -> None:
        """Copy what was not copied yet, the report as JSON last: where that is, everything is. Files of earlier forms
        of these results are removed."""
        if self._address is None:
            return
        self._take_in()
        last = self._directory.report_json
        wanted = sorted({file for file in files if file.is_file()}, key=lambda file: (file == last, file))
        for file in wanted:
            if (self._known or {}).get(self._name(file)) != _hash(file):
                self._settle(self._name(file), self._try(self._copy, file))
        names = {self._name(file) for file in wanted}
        for name in self._stale(names):
            self._try(self._system.rm_file, self._place(name))
        self._known = {name: digest for name, digest in (self._known or {}).items() if name in names}
        self._remember(whole=True)
        log.info("published to %s", self._address)

    def _take_in(self) -> None:
        """What came of the files that were copied meanwhile."""
        for name, copied in self._waiting:
            try:
                self._settle(name, copied.result())
            except Exception as error:
                log.warning("%s was not copied to %s (%s); it is tried again", name, self._address, _words(error))
        self._waiting = []

    def _stale(self, wanted: set[str]) -> list[str]:
        """Results at the address that are none of these: of other forms, or of a run that they replace."""
        root = self._root.rstrip("/") + "/"
        there = [path.removeprefix(root) for path in self._try(self._system.find, self._root)]
        return [name for name in there if name.startswith(_RESULTS) and name not in wanted]

    def _copy(self, file: Path) -> str:
        """Returns the hash of what was copied, or of what was there before it."""
        digest, place = _hash(file), self._place(self._name(file))
        if "file" in self._system.protocol:
            self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(file), place)
        return digest

    def _settle(self, name: str, digest: str) -> None:
        self._known = {**(self._known or {}), name: digest}

    def _remember(self, whole: bool) -> None:
        self._store.set_meta(_KEY, {"address": self._address, "files": self._known, "whole": whole})
        self._store.commit()

    def _name(self, file: Path) -> str:
        return file.relative_to(self._directory.path).as_posix()

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, action: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return action(*arguments)
        except Exception as error:  # each kind of storage has exceptions of its own
            raise EnvironmentFault(
                f"{self._address} cannot be written to ({_words(error)}): all answers so far are in "
                f"{self._directory.path}; mend that and run the same command again"
            ) from error


def open_address(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises EnvironmentFault where the package for this kind of
    address is missing, UsageError for a kind that is none."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise EnvironmentFault(f"{address} needs a package that is not installed: {error}") from None
    except Exception as error:
        raise UsageError(f"{address} cannot be used: {_words(error)}") from error
    return system, path


def is_published(store: RunStore, address: str | None) -> bool:
    """Whether the results, as they are now, were copied to the address."""
    if address is None:
        return True
    known = store.meta(_KEY) or {}
    if known.get("address") != address or not known["whole"]:
        return False
    now = {name: facts["sha256"] for name, facts in sealed(store).items()}
    return all(now.get(name, digest) == digest for name, digest in known["files"].items())


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
