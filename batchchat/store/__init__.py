"""The run directory: a locked folder with the SQLite run store, the manifest, and the ordered export."""

from batchchat.store.database import RunStore, StoredRow, Totals, TurnRecord
from batchchat.store.directory import RunDirectory
from batchchat.store.writers import Outputs, Writer

__all__ = ["Outputs", "RunDirectory", "RunStore", "StoredRow", "Totals", "TurnRecord", "Writer"]
