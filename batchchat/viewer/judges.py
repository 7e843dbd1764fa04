"""What the judges of a run wrote about its answers, from the judges' own runs."""

from __future__ import annotations

from pathlib import Path

from batchchat.reporting.report import AnyReport
from batchchat.store import RunDirectory, RunStore


class JudgeReplies:
    """Finds a judge's replies on one answer. Without a report, or judges in it, there are none."""

    def __init__(self, report: AnyReport | None):
        self._stores: dict[str, RunStore] = {}
        for name, audit in report.judges.items() if report is not None else ():
            database = RunDirectory(Path(audit.directory)).database
            if database.is_file():
                self._stores[name] = RunStore(database, read_only=True)

    def of(self, judge: str, index: int, sample: int, turn: int) -> list[str]:
        """The replies, in both orders where pairs were compared."""
        store = self._stores.get(judge)
        if store is None:
            return []
        found: list[str] = []
        for order in ("", "-ab", "-ba"):
            row = store.row_by_id(f"{index}-{sample}-{turn}{order}")
            for turns in store.turns(row.index).values() if row is not None else ():
                found += [written.record["message"]["content"] or "" for written in turns]
        return found

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
