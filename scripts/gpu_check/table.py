"""What was found, as a section of docs/BENCHMARKS.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchchat.benchmarks.results import markdown
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, Found
from scripts.gpu_check.plan import Part

_VERDICTS = ("right", "wrong", "reached", "missed")


def document(parts: Sequence[Part], found: Mapping[str, Found], bench: Bench) -> str:
    """All parts in their order: first how each ended, then what each found."""
    begun = [part for part in parts if part.name in found]
    where = "a GPU" if bench.on_gpu else "a CPU, to try the parts"
    lines = [
        f"## On {where}",
        "",
        f"Written by `make gpu`{' at toy sizes' if bench.toy else ''} on {datetime.now(UTC):%Y-%m-%d}. `right` and "
        "`wrong` are about results, `reached` and `missed` about a target of speed. All models have random weights.",
        "",
        *markdown(("part", "ended", "seconds", *_VERDICTS), (_ending(part, found[part.name]) for part in begun)),
    ]
    for part in begun:
        lines += ["", f"### {part.title}", "", part.text, *_findings(found[part.name].findings)]
        outcome = found[part.name].outcome
        if outcome is not None and outcome.why:
            lines += ["", f"{outcome.ended.capitalize()}: {outcome.why}."]
    return "\n".join(lines) + "\n"


def _ending(part: Part, found: Found) -> tuple[str, ...]:
    counts = Counter(finding.verdict for finding in found.findings)
    ended, seconds = ("not yet", "") if found.outcome is None else (found.outcome.ended, f"{found.outcome.seconds:.0f}")
    return part.name, ended, seconds, *(str(counts[verdict] or "") for verdict in _VERDICTS)  # type: ignore[index]


def _findings(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return []
    columns = list(dict.fromkeys(name for finding in findings for name in finding.figures))
    rows = (
        (finding.case, *(_shown(finding.figures.get(name)) for name in columns), finding.verdict, finding.note)
        for finding in findings
    )
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return ["", *markdown(("case", *columns, "", ""), cells)]


def _shown(value: Any) -> str:
    """Three figures that count; whole numbers as they are."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
