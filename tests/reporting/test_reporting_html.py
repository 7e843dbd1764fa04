"""report.html: everything in one small page that runs and loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat import load_recipe, run
from batchchat.reporting.html.numbers import ticks
from batchchat.reporting.html.page import render
from batchchat.reporting.report import Recording, Report
from batchchat.scoring.distributions import Calibration, calibration_error, histogram
from tests.support.jobs import Command, scripted_recipe, write_jsonl

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\x00\"'&"


class Tags(HTMLParser):
    """The elements of a page, their attributes, and whether all that begins also ends."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Of a run whose names, columns and errors hold what must not be shown raw."""
    rows = [
        {"id": f"c{n}", "messages": [{"role": "user", "content": "x" * n}], "reference": "x", "group": HOSTILE}
        for n in range(1, 40)
    ]
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", rows),
        scoring=["exact", {"length": {"unit": "characters"}}],
        summary={"by": ["group"]},
        gates=["exact.mean >= 0.5", "errors <= 90%"],
        engine={"scripted": {"fail_every": 7}},
        max_error_rate=1.0,
    )
    return run(load_recipe(recipe)).report


def test_the_page_runs_and_loads_nothing(report: Report) -> None:
    page = (Path(report.directory) / "report.html").read_text(encoding="utf-8")
    assert page == render(report)
    assert len(page.encode()) < 300_000
    tags = Tags(page)
    assert not tags.open
    names = {name for name, _ in tags.found}
    assert not names & {"script", "img", "link", "iframe", "object", "form", "a"}
    assert not any(name.startswith("on") or name in ("style", "src", "href") for _, kept in tags.found for name in kept)
    policy = next(kept["content"] for name, kept in tags.found if kept.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert "\\u202egnp.exe\\x1b[31m" in page


def test_the_page_says_what_was_run_and_what_it_came_to(report: Report) -> None:
    seconds = (0.0, 1.0, 2.0)
    work = {"generated_tokens": (0.0, 40.0, 100.0), "batches": (0.0, 2.0, 4.0), "batch_rows": (0.0, 8.0, 12.0)}
    watch = Recording(interval_seconds=1.0, columns={"seconds": seconds, "host_bytes": (1e9, 2e9, 2e9), **work})
    page = render(report.model_copy(update={"watch": watch}))
    assert "from 40 to 60 tokens/s" in page
    assert "from 2 to 4 rows" in page
    assert report.about is not None
    assert report.scoring is not None
    for shown in (report.about.started, report.about.machine.processor, report.batchchat, "scripted", "failed"):
        assert shown in page
    for image in ("Rows in flight", "Memory", "Length of prompts", "Length of answers", "Why answers ended"):
        assert f'aria-label="{image}"' in page
    exact = report.scoring.metrics["exact"]
    assert f"{exact.low:.4g} to {exact.high:.4g}" in page
    assert exact.histogram is not None
    assert (exact.histogram.edges, exact.histogram.counts) == ((-0.5, 0.5, 1.5), (38, 1))
    assert report.lengths is not None
    assert sum(report.lengths.answer.counts) == report.turns


def test_the_watcher_records_the_work(report: Report) -> None:
    assert report.watch is not None
    columns = report.watch.columns
    generated = [value for value in columns["generated_tokens"] if value is not None]
    assert generated == sorted(generated)
    assert generated[-1] == report.session.generated_tokens
    assert columns["batches"][-1] == report.session.batches


def test_a_report_on_answers_of_another_tool_is_a_page_too(
    tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]
    answers = write_jsonl(tmp_path / "answers.jsonl", [{"id": "a", "messages": chat, "reference": "1"}])
    (tmp_path / "r.yaml").write_text("source: {path: unused.jsonl}\nscoring: [exact]\n", encoding="utf-8")
    ended = batchchat("score", answers, "r.yaml")
    assert ended.code == 0, ended.err
    page = (tmp_path / "runs/answers/report.html").read_text(encoding="utf-8")
    assert not Tags(page).open
    assert "Report on answers" in page
    assert "answers.jsonl" in page


@given(st.dictionaries(st.floats(-1e12, 1e12), st.integers(1, 50), min_size=1))
def test_a_histogram_holds_every_value(counted: dict[float, int]) -> None:
    found = histogram(counted)
    assert found is not None
    assert sum(found.counts) == sum(counted.values())
    assert len(found.edges) == len(found.counts) + 1 <= 27
    assert list(found.edges) == sorted(found.edges)
    slack = 1e-6 * max(map(abs, counted))
    assert found.edges[0] - slack <= min(counted) <= max(counted) <= found.edges[-1] + slack


def test_a_histogram_without_values_is_none() -> None:
    assert histogram({}) is None
    assert histogram({float("nan"): 3}) is None


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_enclose_what_they_measure(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found == sorted(set(found))
    assert 2 <= len(found) <= 8
    slack = 1e-6 * max(1.0, abs(low), span)
    assert found[0] <= low + slack
    assert found[-1] >= low + span - slack


def test_calibration_is_the_distance_of_confidence_and_score() -> None:
    book = Calibration()
    for confidence, score in ((0.95, 1.0), (0.95, 0.0), (0.15, 0.0), (1.0, 1.0)):
        book.add(confidence, score)
    bins = book.bins()
    assert [one.n for one in bins] == [1, 3]
    assert calibration_error(bins) == pytest.approx((0.15 + abs(2.9 - 2)) / 4)
    book.add(0.5, 3.0)
    assert book.bins() == (), "a grade from 1 to 10 is no share"
    assert calibration_error(()) is None
