"""A table of what can be named in a recipe: what comes along, and what installed packages add by entry points.

Nothing is imported before it is asked for by name, and what a package adds takes part only where a recipe names it, so
that installing one never changes what a recipe means.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from batchchat.errors import EnvironmentFault, UsageError

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Package:
    """An installed package that adds something."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Registry(Generic[T]):
    """Names, and what each stands for.

    `kind` is what messages call an entry, `group` the group of entry points by which packages add more, `builtin` the
    names of what comes along with the places where it is (`module` or `module:name`), `contract` the place of the
    class that every entry is an instance of, and `options` the attribute of an entry that holds the model of its own
    options (None: it has none).
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str], contract: str, options: str = "options"):
        self.kind = kind
        self.group = group
        self.builtin = builtin
        self._contract = contract
        self._options = options
        self._loaded: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from self.added()

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self.added()

    def __len__(self) -> int:
        return len(self.builtin) + len(self.added())

    def __getitem__(self, name: str) -> T:
        """What a name stands for. Raises UsageError for an unknown name, EnvironmentFault where a package is at fault:
        its entry cannot be imported, is of another kind, or has a name that is taken."""
        found = self._loaded.get(name)
        if found is None:
            found = self._loaded[name] = self._load(name)
        return found

    def added(self) -> list[str]:
        """The names that packages add, sorted, without those that come along. Imports none of them."""
        return sorted(name for name in _entries(self.group) if name not in self.builtin)

    def package(self, name: str) -> Package | None:
        """Where an entry comes from; None for what comes along."""
        return None if name in self.builtin else _package(_entries(self.group)[name][0])

    def options(self, name: str) -> type[Any] | None:
        """The model of an entry's own options, if it has some. Raises as looking the entry up does."""
        found: type[Any] | None = getattr(self[name], self._options)
        return found

    def faults(self) -> list[str]:
        """A sentence for each name by which a package adds something that cannot be used."""
        found = []
        for name in _entries(self.group):
            try:
                self[name]
            except EnvironmentFault as fault:
                found.append(str(fault))
        return found

    def fault(self, name: str, what: str, advice: str) -> EnvironmentFault:
        """`the engine 'NAME' of the package P 1.0 WHAT; ADVICE`."""
        packages = " and ".join(f"the package {_package(entry)}" for entry in _entries(self.group).get(name, ()))
        return EnvironmentFault(f"the {self.kind} '{name}' of {packages or 'batchchat'} {what}; {advice}")

    def nearest(self, name: str) -> str | None:
        """The name in the table that another one is most like, if it is like any."""
        return next(iter(difflib.get_close_matches(name, list(self), n=1)), None)

    def _load(self, name: str) -> T:
        entries = _entries(self.group).get(name, ())
        if name in self.builtin:
            if entries:
                what = f"takes the name of the {self.kind} that comes with batchchat"
                raise self.fault(name, what, f"uninstall it: pip uninstall {_package(entries[0]).name}")
            loaded: T = _resolve(self.builtin[name])
            return loaded
        if not entries:
            near = self.nearest(name)
            hint = f"did you mean '{near}'? " if near else ""
            raise UsageError(f"there is no {self.kind} '{name}'; {hint}choose one of: {', '.join(self)}")
        mend = f"mend it, or uninstall it: pip uninstall {_package(entries[-1]).name}"
        if len(entries) > 1:
            raise self.fault(name, "has a name that only one of them can have", mend)
        if not _NAME.fullmatch(name):
            raise self.fault(name, "has a name that is not letters, digits and underscores", mend)
        try:
            found = entries[0].load()
        except Exception as error:  # importing runs the package's code, which may raise anything
            raise self.fault(name, f"cannot be imported ({type(error).__name__}: {error})", mend) from error
        contract = _resolve(self._contract)
        if not isinstance(found, contract):
            what = f"is at {entries[0].value} a {type(found).__name__}, not an instance of {contract.__name__}"
            raise self.fault(name, what, mend)
        return found


def _resolve(place: str) -> Any:
    module, _, name = place.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found


@cache
def _entries(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name; usually one each."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in _all_entry_points().select(group=group):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


@cache
def _all_entry_points() -> Any:
    return entry_points()  # reads a file of every installed package


def _package(entry: EntryPoint) -> Package:
    return Package("unnamed", "") if entry.dist is None else Package(entry.dist.name, entry.dist.version)
