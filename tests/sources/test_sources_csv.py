"""CSV and TSV files: what they hold comes back as text, and what is wrong costs its row, with file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import RowError, SourceRow
from batchchat.errors import UsageError
from batchchat.recipe import load_recipe, recipe_from_mapping
from batchchat.sources import open_source
from batchchat.sources.delimited import CsvOptions
from tests.support.jobs import Command, read_jsonl, scripted_recipe


def rows(path: Path | str, **options: Any) -> list[SourceRow | RowError]:
    own = CsvOptions(**options)
    with open_source([str(path)], options=lambda name: own if name == "csv" else None) as source:
        return list(source.rows())


def data(path: Path | str, **options: Any) -> list[Any]:
    return [row.data if isinstance(row, SourceRow) else row.reason for row in rows(path, **options)]


def written(tmp_path: Path, text: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


cells = st.text(st.one_of(st.sampled_from(',;|\t"\n\r \x00ü'), st.characters(exclude_categories=["Cs"])), max_size=8)


@given(
    table=st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), max_size=6)),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
)
def test_what_is_written_is_read(
    table: list[list[str]], delimiter: str, end: str, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"column {n}" for n in range(len(table[0]) if table else 2)]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    places = []
    for record in [names, *table]:
        places.append(text.getvalue().count("\n") + 1)
        writer.writerow(record)
    raw = text.getvalue().encode()
    folder = tmp_path_factory.mktemp("csv")
    path = written(folder, gzip.compress(raw) if packed else raw, "a.csv.gz" if packed else "a.csv")
    found = rows(path, delimiter=delimiter)
    assert [row.data for row in found if isinstance(row, SourceRow)] == [
        dict(zip(names, record, strict=True)) for record in table
    ]
    assert [row.place.line for row in found] == places[1:]
    assert [row.number for row in found] == list(range(len(table)))


@given(raw=st.binary(max_size=60) | st.text(st.sampled_from('a",\n\r;é'), max_size=40).map(str.encode))
def test_any_bytes_end_in_rows_or_in_a_usage_error(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.mktemp("csv"), b"a,b\n" + raw)
    try:
        found = rows(path)
    except UsageError:
        return
    assert [row.number for row in found] == list(range(len(found)))
    lines = [row.place.line for row in found]
    assert lines == sorted(set(lines))
    kept = "".join(row.raw if isinstance(row, RowError) else "".join(row.data.values()) for row in found)
    for letter in "aé":
        if b"\\x" not in kept.encode():
            assert kept.count(letter) == raw.decode("utf-8", "ignore").count(letter)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(tmp_path: Path, delimiter: str) -> None:
    text = f'question{delimiter}answer\n"1, 2; 3|4\t5"{delimiter}x, y\nz; z{delimiter}w\n'.replace("x, y", '"x, y"')
    if delimiter == ";":
        text = text.replace("z; z", '"z; z"')
    found = data(written(tmp_path, text))
    assert found == [{"question": "1, 2; 3|4\t5", "answer": "x, y"}, {"question": "z; z", "answer": "w"}]


def test_a_tsv_file_has_tabs_whatever_else_it_holds(tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor().compress(b"a,b\tc,d\n1,2\t3,4\n")
    assert data(written(tmp_path, packed, "a.tsv.zst")) == [{"a,b": "1,2", "c,d": "3,4"}]


def test_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert data(written(tmp_path, 'prompt\nhello\n"a, b"\n')) == [{"prompt": "hello"}, {"prompt": "a, b"}]


def test_values_stay_the_texts_that_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffid,prompt,x\n007,1e5,true\n\n, n/a ,\n")
    assert data(path) == [{"id": "007", "prompt": "1e5", "x": "true"}, {"id": "", "prompt": " n/a ", "x": ""}]
    assert [row.place.line for row in rows(path)] == [2, 4]


def test_json_columns_are_parsed_where_they_are_named(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": 'say "a, b"\nand stop'}]
    text = io.StringIO()
    csv.writer(text).writerows([["id", "messages"], ["1", json.dumps(messages)], ["2", ""], ["3", "{"]])
    found = data(written(tmp_path, text.getvalue()), json_columns=("messages",))
    assert found[:2] == [{"id": "1", "messages": messages}, {"id": "2", "messages": None}]
    assert "column messages is not JSON" in found[2]


def test_numbers_in_json_columns_keep_their_digits(tmp_path: Path, batchchat: Command) -> None:
    path = written(tmp_path, 'prompt,scores\nhi,"[1.10, 1e2]"\nho,"{""a"": 1, ""a"": 2}"\nhu,\n')
    source = {"path": str(path), "csv": {"json_columns": "scores"}}
    recipe = scripted_recipe(tmp_path / "r.yaml", path)
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "source": source, "max_error_rate": 1}))
    done = batchchat("run", "-q", recipe)
    assert done.code == 0, done.err
    lines = (tmp_path / "runs/test/outputs.jsonl").read_text().splitlines()
    assert [line.partition('"messages"')[0] for line in lines] == [
        '{"prompt": "hi", "scores": [1.10, 1e2], ',
        '{"prompt": "hu", "scores": null, ',
    ]
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert "the key 'a' stands twice" in error["reason"]


def test_a_bad_row_costs_itself_and_names_its_line(tmp_path: Path) -> None:
    lines = ["a,b", '"one\nline",2', "1,2,3", "1", '"x"y,2', "caf\udce9,2", "5,6"]
    found = rows(written(tmp_path, "\n".join(lines).encode("utf-8", "surrogateescape")))
    assert [row.place.line for row in found] == [2, 4, 5, 6, 7, 8]
    reasons = [row.reason if isinstance(row, RowError) else "" for row in found]
    assert "3 values, but there are 2 columns" in reasons[1]
    assert "1 value, but there are 2 columns" in reasons[2]
    assert "write a double quote in a quoted value twice" in reasons[3]
    assert "holds the byte 0xe9): save the file as UTF-8" in reasons[4]
    assert (reasons[0], reasons[5]) == ("", "")
    assert isinstance(found[1], RowError)
    assert found[1].raw == "1,2,3"


def test_a_quote_that_never_closes_is_one_bad_row_for_the_rest(tmp_path: Path) -> None:
    found = rows(written(tmp_path, 'a,b\n1,2\n"3,4\n5,6\n'))
    assert [row.place.line for row in found] == [2, 3]
    assert isinstance(found[1], RowError)
    assert "never closes" in found[1].reason
    assert found[1].raw == '"3,4\n5,6'


def test_a_damaged_file_says_where_it_breaks(tmp_path: Path) -> None:
    whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(90_000)))
    found = rows(written(tmp_path, whole[: len(whole) // 2], "a.csv.gz"))
    assert isinstance(found[-1], RowError)
    assert "breaks off here" in found[-1].reason
    assert all(isinstance(row, SourceRow) for row in found[:-1])
    assert found[-1].place.line == len(found) + 1


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (b"a,b,a\n1,2,3\n", {}, "has two columns called a: rename one of them"),
        (b"a,,\n1,2,3\n", {}, "has two columns without a name"),
        (b"", {}, "is empty: it needs a header, or source.csv.column_names"),
        (b"caf\xe9,b\n", {}, r"a\.csv:1: the header cannot be read: .*save the file as UTF-8"),
        ("a,b\n".encode("utf-16"), {}, "is UTF-16: save it as UTF-8"),
        (b"a,b\rc,d\r", {}, "carriage return alone"),
        (b"a,mesages\n", {"json_columns": ("messages",)}, "did you mean mesages"),
    ],
)
def test_files_that_cannot_be_read_at_all(tmp_path: Path, text: bytes, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        rows(written(tmp_path, text), **options)


def test_a_path_may_say_that_it_is_csv(tmp_path: Path) -> None:
    path = written(tmp_path, "1;hello\n2;bye\n", "table.txt")
    found = data(f"csv:{path}", delimiter=";", column_names=("id", "prompt"))
    assert found == [{"id": "1", "prompt": "hello"}, {"id": "2", "prompt": "bye"}]
    with pytest.raises(UsageError, match=r"is no JSON list.*write jsonl:"):
        data(f"json:{path}")


def test_init_check_and_run_take_a_csv_file(
    batchchat: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = 'id;question;answer\na;"Who said ""I am""?";nobody\nb;"two\nlines";x\nc;only\n'
    written(tmp_path, text, "chats.csv")
    made = batchchat("init", "chats.csv")
    assert made.code == 0, made.err
    source = load_recipe("recipe.yaml").source
    assert (source.format, source.path) == ("prompt", ("chats.csv",))
    path = scripted_recipe(tmp_path / "r.yaml", "chats.csv")
    checked = batchchat("check", path)
    assert checked.code == 3
    assert "chats.csv:5: the row has 2 values, but there are 3 columns" in checked.out
    done = batchchat("run", "-q", path, "max_error_rate=0.5")
    assert done.code == 0, done.err
    first, second = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert (first["id"], first["question"]) == ("a", 'Who said "I am"?')
    assert second["messages"] == [
        {"role": "user", "content": "two\nlines"},
        {"role": "assistant", "content": "two\nlines"},
    ]
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert (error["line"], error["row"]) == (5, "c;only")


def test_the_options_are_part_of_what_a_recipe_is() -> None:
    plain = recipe_from_mapping({"source": {"path": "a.csv"}})
    assert plain.digest() == recipe_from_mapping({"source": {"path": "a.csv", "csv": {}}}).digest()
    other = recipe_from_mapping({"source": {"path": "a.csv"}}, ["source.csv.delimiter=;"])
    assert other.source.options_of("csv").delimiter == ";"
    assert plain.digest() != other.digest()
    assert recipe_from_mapping(other.model_dump(exclude_none=True)) == other
