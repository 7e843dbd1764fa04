"""JSON Lines, JSON lists and their compressed forms: every row once, every bad row with its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchchat.chats import RowError, SourceRow
from batchchat.errors import UsageError
from batchchat.sources import Item, open_source
from batchchat.sources.records import RAW_LIMIT

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def items(path: Path, content: bytes | None = None) -> list[Item]:
    """The file's rows, checked to be numbered through."""
    if content is not None:
        path.write_bytes(content)
    with open_source([str(path)]) as source:
        found = list(source.rows())
        assert [item.number for item in found] == list(range(len(found)))
        assert {item.place.file for item in found} <= {str(path)}
        return found


def values(found: list[Item]) -> list[Any]:
    assert all(isinstance(item, SourceRow) for item in found), found
    return [dict(item.data) for item in found if isinstance(item, SourceRow)]


def errors(found: list[Item]) -> list[tuple[int, str]]:
    return [(item.place.line, item.reason) for item in found if isinstance(item, RowError)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
rows_of_json = st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), max_size=6)


@unhurried
@given(
    rows=rows_of_json,
    ascii_=st.booleans(),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \t\n"]),
    last=st.booleans(),
)
def test_any_rows_in_jsonl(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], ascii_: bool, end: bytes, last: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=ascii_).encode() for row in rows]
    content = end.join(lines) + (end if last and lines else b"")
    assert values(items(path, content)) == rows
    with open_source([str(path)]) as source:
        assert source.count() is None
        source.fingerprint()
        assert source.count() == len(rows)


@unhurried
@given(
    rows=rows_of_json,
    indent=st.none() | st.integers(0, 2),
    ascii_=st.booleans(),
    bom=st.booleans(),
    more=st.text(" \n"),
)
def test_any_rows_in_a_list(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    indent: int | None,
    ascii_: bool,
    bom: bool,
    more: str,
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    text = more + json.dumps(rows, indent=indent, ensure_ascii=ascii_) + more
    assert values(items(path, text.encode("utf-8-sig" if bom else "utf-8"))) == rows


def test_a_line_ends_at_a_newline_only(tmp_path: Path) -> None:
    texts = ["a\u2028b", "a\u2029b", "a\x85b", "\ufeff", "a\x0cb", "\0"]
    content = "".join(json.dumps({"t": text}, ensure_ascii=False) + "\n" for text in texts)
    assert values(items(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + content.encode())) == [{"t": text} for text in texts]


def test_lines_are_counted_with_blank_ones(tmp_path: Path) -> None:
    found = items(tmp_path / "a.jsonl", b'\n{"a":1}\r\n \r\n\n{"a":2}')
    assert [item.place.line for item in found] == [2, 5]
    assert str(found[0].place) == f"{tmp_path / 'a.jsonl'}:2"


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str, content: bytes) -> None:
    assert items(tmp_path / name, content) == []
    with open_source([str(tmp_path / name)]) as source:
        source.fingerprint()
        assert source.count() == 0


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    assert items(tmp_path / "a.json", b" [ ] \n") == []
    assert values(items(tmp_path / "a.json", b'[{"a": 1},]')) == [{"a": 1}]


BAD_LINES: list[tuple[bytes, str]] = [
    (b"{", "expecting property name enclosed in double quotes at column 2"),
    (b'{"a": 1', "expecting ',' delimiter at column 8"),
    (b'{"a" 1}', "expecting ':' delimiter at column 6"),
    (b'{"a": 1} x', "extra data at column 10"),
    (b'{"a": 1}{"a": 2}', "extra data at column 9"),
    (b'{"a": "x}', "unterminated string starting at column 7"),
    (b'{"a": "\t"}', "invalid control character at column 8"),
    (b'{"a": "\\x"}', "column 8"),
    (b"{'a': 1}", "expecting property name"),
    (b'{"a": 01}', "column 8"),
    (b"x", "expecting value at column 1"),
    (b"[1]", "the line is a list, not an object"),
    (b'"x"', "the line is a string, not an object"),
    (b"5", "the line is a number, not an object"),
    (b"null", "the line is null, not an object"),
    (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8"),
    (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a": ' + b"9" * 5000 + b"}", "exceeds the limit"),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_costs_itself(tmp_path: Path, line: bytes, says: str) -> None:
    before, bad, after = items(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert values([before, after]) == [{"a": 1}, {"a": 3}]
    assert isinstance(bad, RowError)
    assert bad.place.line == 2
    assert says in bad.reason
    assert bad.raw == line.decode("utf-8", "backslashreplace")


def test_escapes_are_read(tmp_path: Path) -> None:
    (row,) = values(items(tmp_path / "a.jsonl", b'{"c": "\\ud83d", "d": "\\u0000"}'))
    assert str(row) == "{'c': '\\ud83d', 'd': '\\x00'}"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"a": NaN}', "NaN is no JSON value: write null"),
        ('{"a": [-Infinity]}', "-Infinity is no JSON value: write null"),
        ('{"a": 1, "b": {"c": 2, "c": 2}}', "the key 'c' stands twice"),
        ('{"\\ud800": 1}', "the name of a column holds the lone surrogate U+D800"),
        ('{"a": ' + "[" * 256 + "]" * 256 + "}", "nested too deeply"),
        ('{"a": ' + '{"b":' * 5000 + "1" + "}" * 5000 + "}", "nested too deeply"),
    ],
    ids=range(6),
)
def test_what_readers_take_differently_costs_its_row(tmp_path: Path, name: str, row: str, says: str) -> None:
    content = f'[{{"x": 1}},\n{row},\n{{"x": 2}}]' if name == "a.json" else f'{{"x": 1}}\n{row}\n{{"x": 2}}\n'
    before, bad, after = items(tmp_path / name, content.encode())
    assert values([before, after]) == [{"x": 1}, {"x": 2}]
    assert isinstance(bad, RowError)
    assert says in bad.reason


@pytest.mark.parametrize("bad", [b'{"a": "\xff"}', b"\xff", b'{"a": tru\xe9}', b'{"\xed\xa0\x80": 1'])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_bytes_that_are_no_text_are_kept_as_escapes(tmp_path: Path, name: str, bad: bytes) -> None:
    content = b'[{"x": 1},\n' + bad + b"\n]" if name == "a.json" else b'{"x": 1}\n' + bad + b"\n"
    _, error = items(tmp_path / name, content)
    assert isinstance(error, RowError)
    assert error.raw.encode().startswith(bad.decode("utf-8", "backslashreplace").encode())


def test_a_row_may_be_deep(tmp_path: Path) -> None:
    row = '{"a": ' + "[" * 255 + "]" * 255 + "}"
    assert len(values(items(tmp_path / "a.jsonl", row.encode()))) == 1


def test_a_long_bad_line_is_cut(tmp_path: Path) -> None:
    (bad,) = items(tmp_path / "a.jsonl", b"{" + b"x" * 2_000_000)
    assert isinstance(bad, RowError)
    assert len(bad.raw) < RAW_LIMIT + 100
    assert bad.raw.endswith("[cut: the row has 2,000,001 characters]")


def test_a_long_line_is_read(tmp_path: Path) -> None:
    rows = [{"a": "x" * size} for size in (1, 65_536, 3_000_000, 65_520, 0)]
    assert values(items(tmp_path / "a.jsonl", b"\n".join(json.dumps(row).encode() for row in rows))) == rows
    assert values(items(tmp_path / "a.json", json.dumps(rows).encode())) == rows


BAD_ELEMENTS: list[tuple[str, str, str]] = [
    ("5", "5", "the element is a number, not an object"),
    ('"a, ] }"', '"a, ] }"', "the element is a string, not an object"),
    ('{"a": 1,, "b": {"c": [2, "]"]}}', '{"a": 1,, "b": {"c": [2, "]"]}}', "not JSON: expecting property name"),
    ("{'a': [1, 2]}", "{'a': [1, 2]}", "line 3, column 3"),
    ("nul", "nul\n", "expecting value"),
    ("9" * 5000, "9" * 5000, "exceeds the limit"),
    ("", "", "expecting value"),
    ("}", "}\n", "expecting value"),
    ('{"b": 2} {"c": [3, 4]}', '{"b": 2} {"c": [3, 4]}\n', "no comma follows this element"),
    ('{"b": "\udcff"}', '{"b": "\\xff"}', "not UTF-8"),
]


@pytest.mark.parametrize(("element", "raw", "says"), BAD_ELEMENTS, ids=range(len(BAD_ELEMENTS)))
def test_a_bad_element_costs_itself(tmp_path: Path, element: str, raw: str, says: str) -> None:
    content = f'[\n {{"a": 1}},\n {element}\n,\n {{"a": 3}}]\n'.encode("utf-8", "surrogateescape")
    before, bad, after = items(tmp_path / "a.json", content)
    assert values([before, after]) == [{"a": 1}, {"a": 3}]
    assert isinstance(bad, RowError)
    assert says in bad.reason
    assert bad.raw.strip() == raw.strip()
    assert [before.place.line, after.place.line] == [2, 5]


@pytest.mark.parametrize(
    ("content", "num_rows", "says"),
    [
        (b'[{"a": 1}, {"a": 2}', 2, "the file ends before its list does"),
        (b'[{"a": 1}, {"a": ', 1, "and no row behind it can be read"),
        (b'[{"a": 1}, {"a": "x', 1, "and no row behind it can be read"),
        (b'[{"a": 1}] {"a": 2}', 1, "something stands behind the end of the list"),
        (b"[", 0, "the file ends before its list does"),
    ],
)
def test_a_list_that_does_not_end_well(tmp_path: Path, content: bytes, num_rows: int, says: str) -> None:
    *rows, bad = items(tmp_path / "a.json", content)
    assert len(values(rows)) == num_rows
    assert isinstance(bad, RowError)
    assert says in bad.reason


def test_a_bad_element_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    long = json.dumps({"a": ["x, ]" * 50_000, {"b": 1}]}).replace('"b": 1', '"b": 1,,')
    before, bad, after = items(tmp_path / "a.json", f'[{{"a": 1}}, {long}, {{"a": 3}}]'.encode())
    assert values([before, after]) == [{"a": 1}, {"a": 3}]
    assert isinstance(bad, RowError)
    assert bad.raw == long


def test_json_or_lines_is_told_by_the_content(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": 2}]
    lines = b'{"a": 1}\n{"a": 2}\n'
    assert values(items(tmp_path / "lines.json", lines)) == rows
    assert values(items(tmp_path / "lines.txt", lines)) == rows
    assert values(items(tmp_path / "list.jsonl", json.dumps(rows, indent=1).encode())) == rows
    assert errors(items(tmp_path / "lists.jsonl", b'[1]\n{"a": 1}\n')) == [(1, "the line is a list, not an object")]
    with pytest.raises(UsageError, match="neither a JSON list nor one JSON object per line"):
        items(tmp_path / "object.json", b'{\n "data": []\n}\n')


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a"])
def test_compressed(tmp_path: Path, suffix: str, name: str) -> None:
    rows = [{"n": n, "t": "ü" * (n % 50)} for n in range(2000)]
    text = json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows))
    # Two streams behind each other, as `cat a.gz b.gz` makes them, with padding between.
    half = len(text) // 2
    content = COMPRESS[suffix](text[:half].encode()) + b"\0" * 8 + COMPRESS[suffix](text[half:].encode())
    assert values(items(tmp_path / f"{name}{suffix}", content)) == rows
    assert values(items(tmp_path / "misnamed.jsonl", content)) == rows
    assert values(items(tmp_path / "plain.gz", text.encode())) == rows


def test_zstd_frames_to_be_passed_over(tmp_path: Path) -> None:
    skipped = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    first, second = (COMPRESS[".zst"](f'{{"n": {n}}}\n'.encode()) for n in (1, 2))
    content = skipped + first + skipped + second + skipped
    assert values(items(tmp_path / "a.jsonl.zst", content)) == [{"n": 1}, {"n": 2}]


def test_a_carriage_return_within_a_row_is_white_space(tmp_path: Path) -> None:
    assert values(items(tmp_path / "a.jsonl", b'{"a":\r1}\r\n{"a": 2}\r\n')) == [{"a": 1}, {"a": 2}]
    assert values(items(tmp_path / "a.json", b'[\r{"a": 1},\r{"a": 2}\r]')) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_broken_stream_says_where(tmp_path: Path, suffix: str, name: str) -> None:
    rng = random.Random(0)
    rows = [{"n": n, "t": rng.randbytes(300).hex()} for n in range(1500)]
    text = json.dumps(rows) if name == "a.json" else "".join(json.dumps(row) + "\n" for row in rows)
    whole = COMPRESS[suffix](text.encode())
    path = tmp_path / f"{name}{suffix}"
    *good, bad = items(path, whole[: len(whole) * 2 // 3])
    assert isinstance(bad, RowError)
    assert "breaks off here" in bad.reason
    assert 500 < len(good) < len(rows)
    assert values(good) == rows[: len(good)]
    assert json.dumps(rows[len(good)]).startswith(bad.raw)
    for cut in (8, len(whole) - 1):
        assert "breaks off here" in errors(items(path, whole[:cut]))[-1][1]
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 40] = b"\xa5" * 40
    *good, bad = items(path, bytes(damaged))
    assert isinstance(bad, RowError)
    assert "is damaged here" in bad.reason


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"question,answer\n", r"a\.txt is not a kind of file that is read here.*for example csv:.*a\.txt"),
        ("a.tar.gz", gzip.compress(b"ustar" * 100, mtime=0), "not a kind of file"),
        ("a.zip", b"PK\x03\x04", "not a kind of file"),
        ("a.jsonl", "{}".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16-le"), "is UTF-16LE: save it as UTF-8"),
        ("a.json", '[{"a": 1}]'.encode("utf-16-be"), "is UTF-16BE: save it as UTF-8"),
        ("a.jsonl", '{"a": 1}'.encode("utf-32"), "is UTF-32: save it as UTF-8"),
        ("a.jsonl", '\n{"a": 1}'.encode("utf-32-le"), "is UTF-32LE: save it as UTF-8"),
        ("a.jsonl", b'{"a": 1}\r{"a": 2}\r', "ends its lines with carriage returns alone"),
        ("a.jsonl.gz", gzip.compress(b"PAR1....", mtime=0), "compressed Parquet file"),
        ("a.parquet.encrypted", b"PARE....", "an encrypted Parquet file: decrypt it first"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        items(tmp_path / name, content)
