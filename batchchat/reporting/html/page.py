"""The page: templates filled in, everything escaped, and a policy that lets nothing run or load."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from batchchat.reporting.escape import printable
from batchchat.reporting.html.figures import score_plots, work_plots
from batchchat.reporting.html.sections import about_facts, key_figures, lead, plain_tables, score_sections
from batchchat.reporting.report import AnyReport, Report

FILE = "report.html"


def render(report: AnyReport) -> str:
    style = files("batchchat.reporting.html").joinpath("templates/report.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            style=Markup(style),
            style_hash=Markup(base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()),
            lead=lead(report),
            facts=key_figures(report),
            about=about_facts(report),
            scores=score_sections(report),
            score_plots=score_plots(report),
            work_plots=work_plots(report) if isinstance(report, Report) else [],
            tables=plain_tables(report),
            events=report.events.first if isinstance(report, Report) else (),
            started=report.about.started if report.about is not None else None,
        )
    )


def render_key_figures(report: AnyReport) -> str:
    """The key figures alone, as a part of another page."""
    return (
        _environment().get_template("figures.html").render(report=report, lead=lead(report), facts=key_figures(report))
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("batchchat.reporting.html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: Any) -> Any:
    """Text with control characters and direction marks made visible; what is markup already stays as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
