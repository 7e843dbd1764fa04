"""The data set's card: what made it, from what, what was left out, what it cost, and under which licence it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchchat.engines.facts import EndpointFacts
from batchchat.recipe.dumping import to_yaml
from batchchat.reporting.escape import markdown, printable
from batchchat.reporting.report import AnyReport, Report
from batchchat.reporting.score_tables import score_tables
from batchchat.version import __version__

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LONGEST = 2000
_SHOWN = ("Scores", "Kept", "Why rows failed")


@dataclass(frozen=True)
class Stage:
    """A run that the data went through: its name, report, sources as its manifest has them, and recipe as YAML."""

    name: str
    report: AnyReport
    sources: Sequence[Mapping[str, Any]]
    recipe: str


def render_card(
    name: str,
    stages: Sequence[Stage],
    counts: Mapping[str, int],
    sample: Mapping[str, Any] | None,
    licenses: Sequence[str],
) -> str:
    """README.md of a data set. `counts` are rows by configuration (`default`, and `pairs` where there are some).
    Whatever texts hold is shown as it is: none becomes markup, metadata or an end of a block."""
    head = {
        "pretty_name": printable(name),
        **({"license": licenses[0] if len(licenses) == 1 else list(licenses)} if licenses else {}),
        "tags": ["synthetic", "batchchat"],
        "size_categories": [_size(counts["default"])],
        "configs": [
            {"config_name": config, "data_files": f"{folder_of(config)}/*.parquet", **_default(config)}
            for config in counts
        ],
    }
    rows = ", ".join(f"{count:,} {'rows' if config == 'default' else config}" for config, count in counts.items())
    licence = ", ".join(licenses) if licenses else "not stated: ask whoever published this"
    lines = [
        "---", to_yaml(head).rstrip("\n"), "---", "",
        f"# {markdown(name)}", "",
        f"{rows}, made with batchchat {__version__}. Licence: {markdown(licence)}.", "",
        "```python", "from datasets import load_dataset", "",
        *(f'{_variable(config)} = load_dataset("PATH_OR_ID", "{config}", split="train")' for config in counts),
        "```", "",
    ]  # fmt: skip
    for stage in stages:
        lines += _stage(stage, several=len(stages) > 1)
    if sample is not None:
        text = json.dumps(sample, indent=2, ensure_ascii=False)
        cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
        lines += ["## A sample", "", *_block(printable(cut), "json")]
    for stage in stages:
        title = f"## The recipe of {markdown(stage.name)}" if len(stages) > 1 else "## The recipe"
        lines += [title, "", *_block(printable(stage.recipe.rstrip("\n")), "yaml")]
    return "\n".join(lines)


def folder_of(config: str) -> str:
    """Where a configuration's shards lie."""
    return "data" if config == "default" else config


def _stage(stage: Stage, several: bool) -> list[str]:
    report = stage.report
    title = f"## {markdown(stage.name)}" if several else "## How it was made"
    rows: list[tuple[str, str]] = []
    if isinstance(report, Report):
        if report.about is not None:
            known = report.about.identity
            commit = known.get("commit") or known.get("sha256")
            rows.append(("model", report.about.model + (f", {str(commit)[:12]}" if commit else "")))
            rows.append(("weights", f"{report.about.dtype or '–'}, quantization {report.about.quantization}"))
            told = ", ".join(f"{name}={json.dumps(value)}" for name, value in report.about.settings.items())
            rows.append(("settings", told))
            rows.append(("date", report.about.started))
        rows.append(
            ("rows", f"{report.rows.in_:,} read, {report.rows.answered:,} answered, {report.rows.failed:,} failed")
        )
        rows.append(("samples", f"{report.samples.answered:,} answered, {report.samples.failed:,} failed"))
        rows += _costs(report)
    elif report.input is not None:
        rows.append(
            ("answers", f"{report.input.rows:,} read, {report.input.failed:,} of them unreadable; none written")
        )
    rows += [("source", _source(source)) for source in stage.sources]
    lines = [title, "", *_table(rows)]
    for heading, figures in score_tables(report):
        if heading in _SHOWN or heading.startswith("Judge "):
            lines += [f"### {markdown(heading)}", "", *_table(figures)]
    return lines


def _costs(report: Report) -> list[tuple[str, str]]:
    tokens = f"{report.tokens.prompt:,} of prompts, {report.tokens.generated:,} written"
    seconds = sum(session.seconds for session in report.sessions)
    rows = [("tokens", tokens), ("time", f"{seconds:,.0f} s")]
    if isinstance(report.engine, EndpointFacts) and report.engine.cost is not None:
        rows.append(("cost", f"{report.engine.cost.spent:,.4f} in the currency of the server's prices"))
    return rows


def _source(source: Mapping[str, Any]) -> str:
    named = source.get("path") or source.get("name") or source
    told = [str(named), *(f"{name} {str(source[name])[:12]}" for name in ("sha256", "revision") if source.get(name))]
    return ", ".join(told)


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"| {markdown(what)} | {markdown(figure)} |" for what, figure in rows]
    return ["| what | figure |", "|---|---|", *lines, ""]


def _block(text: str, language: str) -> list[str]:
    """A block that no run of backticks in its text ends."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}{language}", text, fence, ""]


def _size(count: int) -> str:
    return next((name for most, name in _SIZES if count < most), "n>10M")


def _default(config: str) -> dict[str, bool]:
    return {"default": True} if config == "default" else {}


def _variable(config: str) -> str:
    return "rows" if config == "default" else config
