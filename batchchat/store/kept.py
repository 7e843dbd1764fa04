"""What a part of a run remembers from one session to the next."""

from __future__ import annotations

from collections import UserDict
from typing import Any

from batchchat.store.database import RunStore


class Kept(UserDict[str, Any]):
    """JSON values by name, in the store under one key: written with the transaction that is open, read once."""

    def __init__(self, store: RunStore, key: str):
        super().__init__()
        self._store = store
        self._key = key
        self.data = store.meta(key) or {}

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self._store.set_meta(self._key, self.data)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._store.set_meta(self._key, self.data)
