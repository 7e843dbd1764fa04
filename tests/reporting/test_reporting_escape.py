"""Text of unknown origin, in each medium that people read."""

from __future__ import annotations

import io
import json
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.text import Text

from batchchat.credentials import holds_credentials, without_credentials
from batchchat.errors import UsageError
from batchchat.reporting.escape import html, markdown, one_line, printable, quoted, xml
from batchchat.reporting.terminal import Terminal, print_json

UGLY = (
    "x|y\x1b[2J\x9b1m\u202e\u2066\u2028<script>alert(1)</script>\r\n## heading\n---\n::error::no\t`a` *b* [c](d) \ud800"
)
texts = st.text() | st.text(alphabet="ab #|<>&*_`~[]()!\\\n\t\r-=+1.\x1b\x85\u202e\u2028") | st.just(UGLY)


def control(text: str, but: str = "") -> set[str]:
    """Characters that a terminal or a reader's order of letters obeys."""
    joiners = "\u200c\u200d"
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {*but, *joiners}


@given(texts)
def test_a_terminal_gets_nothing_that_it_obeys(text: str) -> None:
    assert not control(printable(text), "\n\t")
    assert not control(one_line(text))
    assert printable(printable(text)) == printable(text), "what was made visible stays as it is"
    assert all(line.startswith("  │ ") for line in quoted(text).split("\n")[1:])


@given(texts)
def test_a_console_lets_nothing_through_that_is_not_its_own_style(text: str) -> None:
    console = Terminal()
    console.file = io.StringIO()
    console.print(Text(text))
    console.table(text, [(text, text)])
    written = console.file.getvalue()
    assert not control(written, "\n\t")


def test_json_for_programs_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({UGLY: UGLY})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {UGLY: UGLY}


@given(texts)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    """One paragraph, or one cell, without a mark, a tag or a link of its own."""
    line = markdown(text)
    assert not control(line)
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    tokens = parser.parse(f"| a |\n|---|\n| {line} |\n")
    assert [token.type for token in tokens].count("td_open") == 1
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special"}
    cell = [token for token in tokens if token.type == "inline"][-1]
    shown = "".join(child.content for child in cell.children or ())
    assert shown == " ".join(text.split()) or control(text)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@given(texts)
def test_html_and_xml_hold_the_text_alone(text: str) -> None:
    parser = _Tags()
    parser.feed(f'<p title="{html(text)}">{html(text)}</p>')
    assert parser.tags == ["p"]
    assert not control(html(text), "\n\t")
    element = ElementTree.Element("a", name=xml(text))
    element.text = xml(text)
    read = ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8"))
    assert read.text in (xml(text), None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://me:hunter2@host.test/x", "https://…@host.test/x"),
        ("https://hunter2@host.test/x", "https://…@host.test/x"),
        ("csv:s3://key:hunter2@bucket/x?y=1", "csv:s3://…@bucket/x?y=1"),
        ("https://host.test/x?a=1&token=hunter2#b", "https://host.test/x?a=1&token=…#b"),
        ("https://b.test/x?X-Amz-Signature=hunter2&X-Amz-Expires=9", "https://b.test/x?X-Amz-Signature=…&X-Amz-Expires=9"),
        ("ssh://git:hunter2@host.test/x", "ssh://…@host.test/x"),
        ("proxy http://u:hunter2@127.0.0.1:9, then https://v:hunter2@b.test", "proxy http://…@127.0.0.1:9, then https://…@b.test"),
    ],
)  # fmt: skip
def test_credentials_are_left_out_of_addresses(given: str, kept: str) -> None:
    assert without_credentials(given) == kept
    assert holds_credentials(given)
    assert str(UsageError(f"there is no {given}")) == f"there is no {kept}"


@pytest.mark.parametrize(
    "text",
    [
        "https://host.test/@user/x",
        "git+ssh://git@host.test/x",
        "a@b.test",
        "acme/model",
        "https://host.test/x?monkey=1",
    ],
)
def test_addresses_without_credentials_stay(text: str) -> None:
    assert without_credentials(text) == text
