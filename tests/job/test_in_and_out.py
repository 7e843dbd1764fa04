"""What goes in comes out: every value, digit, type and id, in JSONL and in Parquet, or the row is refused aloud."""

from __future__ import annotations

import datetime
import decimal
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchchat.chats import SourceRow
from batchchat.chats.arrow import build_array, from_json
from batchchat.chats.json_text import json_text, read_exact
from batchchat.sources import open_source
from batchchat.store.parquet import write_parquet
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

ASK = {"messages": [{"role": "user", "content": "hello"}]}
BOTH = {"formats": ["jsonl", "parquet"]}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def ran(batchchat: Command, folder: Path, source: Path, **sections: Any) -> Path:
    """The directory of a run that was done, and then found to be done."""
    recipe = scripted_recipe(folder / "r.yaml", source, **{"sink": BOTH, "max_error_rate": 1.0, **sections})
    for _ in range(2):
        ended = batchchat("run", recipe)
        assert ended.code == 0, ended.err
    return folder / "runs/test"


def strict(path: Path) -> list[Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_bytes().splitlines()]


def loaded(path: Path, cache: Path) -> list[Any]:
    """The rows as `datasets` loads them."""
    datasets.disable_progress_bars()
    found = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(cache))
    return [dict(row) for row in found]


@pytest.mark.parametrize(
    "row",
    [
        "[" * 100_000,
        '{"id": "d", "prompt": "x", "x": ' + "[" * 1200 + "]" * 1200 + "}",
        '{"\\ud800": 1}',
        '{"prompt": "\\udc00"}',
    ],
    ids=["deep line", "deep value", "surrogate key", "surrogate prompt"],
)
def test_a_row_that_cannot_be_held_costs_itself(tmp_path: Path, batchchat: Command, row: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": "a", "prompt": "x"}, row, {"id": "b", "prompt": "y"}])
    directory = ran(batchchat, tmp_path, source)
    assert [output["id"] for output in strict(directory / "outputs.jsonl")] == ["a", "b"]
    assert pq.read_table(directory / "outputs.parquet").num_rows == 2
    (error,) = strict(directory / "errors.jsonl")
    assert error["line"] == 2
    assert error["row"]


def test_lone_surrogates_in_values_reach_reports(tmp_path: Path, batchchat: Command) -> None:
    rows = ['{"id": "a", "prompt": "x", "kind": "\\ud800", "answer": "x", "deep": {"\\udfff": ["\\ud83d"]}}']
    directory = ran(
        batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", rows), scoring=["exact"], summary={"by": "kind"}
    )
    (output,) = strict(directory / "outputs.jsonl")
    assert (output["kind"], output["deep"]) == ("\ud800", {"\udfff": ["\ud83d"]})
    (row,) = pq.read_table(directory / "outputs.parquet").to_pylist()
    assert json.loads(row["kind"]) == "\ud800"
    assert "kind=" in (directory / "report.md").read_text(encoding="utf-8")


def test_numbers_keep_their_digits(tmp_path: Path, batchchat: Command) -> None:
    numbers = ["1e400", "12345678901234567890.123", "1.10", "-0", "-0.0", "2E5", "1" * 400, "5e-324", "0.1"]
    line = '{"id": "a", "prompt": "x", "n": [' + ", ".join(numbers) + '], "price": 1.10, "big": 1e400}'
    directory = ran(batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", [line]))
    text = (directory / "outputs.jsonl").read_text()
    assert text.startswith(line[:-1])
    (row,) = pq.read_table(directory / "outputs.parquet").to_pylist()
    assert (json.loads(row["big"]), row["price"]) == (float("inf"), 1.1)
    assert row["big"] == "1e400"
    assert '"' + "1" * 400 + '"' not in str(row["n"])
    assert [number for number in numbers if number not in str(row["n"])] == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    )
)
def test_json_is_what_any_reader_takes(value: Any) -> None:
    def named(value: Any) -> Any:
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
        if isinstance(value, list):
            return [named(item) for item in value]
        return {key: named(item) for key, item in value.items()} if isinstance(value, dict) else value

    text = json_text(value)
    text.encode()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == named(value)
    assert json_text(read_exact(text)) == text


def test_a_repeated_key_is_said(tmp_path: Path, batchchat: Command) -> None:
    line = '{"id": "b", "prompt": "x", "dup": 1, "dup": 2}'
    directory = ran(batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x"}, line]))
    (error,) = strict(directory / "errors.jsonl")
    assert (error["id"], error["row"]) == ("b", line)
    assert "the key 'dup' stands twice" in error["reason"]


def test_nan_of_a_table_stays_a_number_there(tmp_path: Path, batchchat: Command) -> None:
    scores = [float("nan"), float("inf"), -float("inf"), 0.5, None]
    table = pa.table({"prompt": [*"abcde"], "score": scores, "id": pa.array([float("nan")] * 5)})
    pq.write_table(table, tmp_path / "in.parquet")
    directory = ran(batchchat, tmp_path, tmp_path / "in.parquet")
    lines = strict(directory / "outputs.jsonl")
    assert [line["score"] for line in lines] == ["NaN", "Infinity", "-Infinity", 0.5, None]
    assert [line["batchchat"]["id"] for line in lines] == [f"row-{n}" for n in range(5)]
    written = pq.read_table(directory / "outputs.parquet").select(["score"])
    assert str(written.to_pylist()) == str(table.select(["score"]).to_pylist())


CALL = {"type": "function", "function": {"name": "alarm", "arguments": {"minutes": 5, "note": None}}}
TOOL_ROWS: list[dict[str, Any]] = [
    {"id": "a", "messages": [{"role": "user", "content": "hi"}], "tools": [tool("weather", city={"type": "string"})]},
    {
        "id": "b",
        "messages": [
            {"role": "user", "content": "Wake me."},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": "alarm", "content": "set"},
            {"role": "user", "content": "Thanks."},
        ],
        "tools": [
            tool("alarm", minutes={"type": "integer", "default": None}),
            tool("weather", city={"type": "string"}),
        ],
        "metadata": {"x": 1},
    },
    {"id": "c", "messages": [{"role": "user", "content": "hi"}], "metadata": {"y": {}}},
]


def test_tools_go_to_parquet_and_back_with_no_key_that_was_not_there(tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "back").mkdir()
    directory = ran(batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", TOOL_ROWS))
    there = strict(directory / "outputs.jsonl")
    again = ran(batchchat, tmp_path / "back", directory / "outputs.parquet", chat={"turns": "regenerate"})
    back = strict(again / "outputs.jsonl")
    for first, second, row in zip(there, back, TOOL_ROWS, strict=True):
        assert first["messages"][: len(row["messages"])] == row["messages"]
        assert second["messages"][0] == row["messages"][0]
        assert (second.get("tools"), second.get("metadata")) == (row.get("tools"), row.get("metadata"))
    answers = [output["batchchat"]["turns"][0]["prompt_tokens"] for output in there]
    assert answers[0] == back[0]["batchchat"]["turns"][0]["prompt_tokens"]  # no byte more in the prompt
    rows = loaded(directory / "outputs.parquet", tmp_path / "cache")
    assert [row["tools"] for row in rows] == [row.get("tools") for row in TOOL_ROWS]
    assert rows[1]["messages"][1] == TOOL_ROWS[1]["messages"][1]
    same = pq.read_schema(again / "outputs.parquet")
    assert same.field("tools").type == pq.read_schema(directory / "outputs.parquet").field("tools").type


def test_what_datasets_wrote_is_read_as_it_was(tmp_path: Path, batchchat: Command) -> None:
    datasets.disable_progress_bars()
    made = datasets.load_dataset(
        "json",
        data_files=str(write_jsonl(tmp_path / "in.jsonl", TOOL_ROWS[:2])),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    made.to_parquet(str(tmp_path / "in.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for name in ("in.parquet", "saved"):
        folder = tmp_path / f"run-{name}"
        folder.mkdir()
        directory = ran(batchchat, folder, tmp_path / name)
        for output, row in zip(strict(directory / "outputs.jsonl"), TOOL_ROWS, strict=False):
            assert output["messages"][: len(row["messages"])] == row["messages"]
            assert output["tools"] == row["tools"]
        kept, given_ = pq.read_schema(directory / "outputs.parquet"), pq.read_schema(tmp_path / "in.parquet")
        assert kept.field("messages").type == given_.field("messages").type
        assert kept.field("tools").type == given_.field("tools").type


def test_nulls_that_arrow_fills_into_free_forms_are_no_keys(tmp_path: Path, batchchat: Command) -> None:
    tools = [[tool("a", x={"type": "string"})], [tool("b", y={"type": "string"})]]
    table = pa.table({"prompt": ["p", "q"], "tools": tools, "other": [{"k": 1}, {"l": 2}]})
    pq.write_table(table, tmp_path / "in.parquet")
    directory = ran(batchchat, tmp_path, tmp_path / "in.parquet")
    first, second = strict(directory / "outputs.jsonl")
    assert [first["tools"], second["tools"]] == tools
    assert first["other"] == {"k": 1, "l": None}
    assert pq.read_table(directory / "outputs.parquet").select(table.column_names).equals(table)


def test_columns_of_json_text_by_either_mark(tmp_path: Path, batchchat: Command) -> None:
    cells = ['{"price": 1.10, "n": 1e400}', None, '{"a": 1, "a": 2}', "[not json", "[" * 400 + "]" * 400]
    marked = pa.field("m", pa.string(), metadata={"batchchat": "json"})
    schema = pa.schema([("prompt", pa.string()), ("j", pa.json_()), marked])
    columns = [pa.array([*"abcde"]), pa.array(cells, pa.json_()), pa.array(cells)]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), tmp_path / "in.parquet")
    directory = ran(batchchat, tmp_path, tmp_path / "in.parquet")
    text = (directory / "outputs.jsonl").read_text()
    assert text.count('{"price": 1.10, "n": 1e400}') == 2
    assert [error["line"] for error in strict(directory / "errors.jsonl")] == [3, 4, 5]
    table = pq.read_table(directory / "outputs.parquet")
    assert table.schema.field("j").type == table.schema.field("m").type == pa.json_()
    assert table.to_pylist()[0]["m"] == cells[0]


def types_table() -> pa.Table:
    day = datetime.date(2026, 1, 2)
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)
    columns = {
        "prompt": pa.array(["a", "b"]),
        "us": pa.array([moment, None], pa.timestamp("us")),
        "zoned": pa.array([1, None], pa.timestamp("ms", "Europe/Rome")),
        "ns": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "day": pa.array([day, None]),
        "time": pa.array([moment.time(), None], pa.time64("us")),
        "took": pa.array([2**60 + 1, None], pa.duration("us")),
        "took_ns": pa.array([1_000_000_001, None], pa.duration("ns")),
        "price": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(6, 2)),
        "wide": pa.array([decimal.Decimal("-1234567890123456789012345678901234567890.5"), None], pa.decimal256(60, 1)),
        "raw": pa.array([b"\0\xff", None]),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "big": pa.array([2**63 + 5, None], pa.uint64()),
        "small": pa.array([-3, None], pa.int8()),
        "half": pa.array([0.1, None], pa.float32()),
        "quarter": pa.array([0.5, None], pa.float16()),
        "truth": pa.array([True, None]),
        "large": pa.array(["x", None], pa.large_string()),
        "kind": pa.array(["a", None], pa.dictionary(pa.int8(), pa.string())),
        "list": pa.array([[day], None], pa.large_list(pa.date32())),
        "three": pa.array([[1, 2, 3], None], pa.list_(pa.int16(), 3)),
        "struct": pa.array([{"d": day, "b": b"\1"}, None], pa.struct([("d", pa.date32()), ("b", pa.binary())])),
        "map": pa.array([[("x", 1), ("y", None)], None], pa.map_(pa.string(), pa.int64())),
        "numbered": pa.array([[(1, day)], None], pa.map_(pa.int32(), pa.date32())),
        "dated": pa.array([[(day, [1.5])], None], pa.map_(pa.date32(), pa.list_(pa.float64()))),
        "uuid": pa.array([b"0123456789abcdef", None], pa.uuid()),
        "none": pa.nulls(2),
    }  # fmt: skip
    return pa.table(columns)


def test_columns_keep_their_types_and_jsonl_can_be_undone(tmp_path: Path, batchchat: Command) -> None:
    table = types_table()
    pq.write_table(table, tmp_path / "in.parquet")
    table = pq.read_table(tmp_path / "in.parquet")  # Parquet itself has no seconds, say
    directory = ran(batchchat, tmp_path, tmp_path / "in.parquet")
    assert pq.read_table(directory / "outputs.parquet").select(table.column_names).equals(table)
    lines = strict(directory / "outputs.jsonl")
    for column in table.schema:
        values = [line[column.name] for line in lines]
        undone = build_array(values, column.type, from_json(column.type))
        assert undone.equals(table[column.name].combine_chunks()), column


def test_a_column_that_no_longer_fits_its_type_is_learnt_anew(tmp_path: Path, batchchat: Command) -> None:
    """ShareGPT's list of turns gets an entry with other keys than its struct has."""
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    turns = pa.array([[{"from": "human", "value": "hi"}]], pa.list_(turn))
    pq.write_table(pa.table({"conversations": turns, "n": pa.array([1], pa.int8())}), tmp_path / "in.parquet")
    directory = ran(batchchat, tmp_path, tmp_path / "in.parquet")
    schema = pq.read_schema(directory / "outputs.parquet")
    assert schema.field("conversations").type == pa.list_(turn)
    assert schema.field("n").type == pa.int8()


def test_one_type_of_batchchat_whatever_the_rows(tmp_path: Path, batchchat: Command) -> None:
    kinds: list[tuple[list[Any], dict[str, Any]]] = [
        ([{"prompt": "x"}], {}),
        ([{"prompt": "x", "batchchat": {"x": 1}}], {"generation": {"samples": 2, "temperature": 1.0}}),
        ([{"instruction": "x", "input": "", "output": "old"}], {"sink": {**BOTH, "timings": True}}),
        (["{broken"], {}),
        ([{"messages": [*ASK["messages"], {"role": "assistant", "content": "y"}]}], {"chat": {"turns": "regenerate"}}),
    ]  # fmt: skip
    types = []
    for number, (rows, sections) in enumerate(kinds):
        folder = tmp_path / str(number)
        folder.mkdir()
        directory = ran(batchchat, folder, write_jsonl(folder / "in.jsonl", rows), **sections)
        path = directory / "outputs.parquet"
        types.append(pq.read_schema(path).field("batchchat").type)
        lines = strict(directory / "outputs.jsonl")
        if lines:
            facts = [row["batchchat"]["turns"][0] for row in loaded(path, folder / "cache")]
            assert [turn["seed"] for turn in facts] == [line["batchchat"]["turns"][0]["seed"] for line in lines]
            assert all(0 <= turn["seed"] < 2**63 for turn in facts)
    assert len(set(map(str, types))) == 1


def test_no_row_is_lost_to_an_id(tmp_path: Path, batchchat: Command) -> None:
    rows = [
        {"key": "math", "prompt": "one"},
        {"key": "math", "prompt": "two"},
        {"prompt": "no id"},
        {"id": "row-2", "prompt": "a real id"},
        {"id": "row-5", "prompt": "before"},
        {"prompt": "made up, but taken"},
        {"id": {"x": 1}, "prompt": "no id"},
        {"id": 1.0, "prompt": "x"},
        {"id": "1", "prompt": "again"},
        {"id": "bad", "prompt": 5},
    ]
    directory = ran(batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", rows))
    ids = [output["batchchat"]["id"] for output in strict(directory / "outputs.jsonl")]
    assert ids == ["math", "row-1", "row-2", "row-2-2", "row-5", "row-5-2", "row-6", "1"]
    errors = strict(directory / "errors.jsonl")
    assert [error["id"] for error in errors] == ["1", "bad"]
    assert "was given before, at" in errors[0]["reason"]
    ended = batchchat("score", directory / "outputs.jsonl", "scoring=[length]", f"sink.directory={tmp_path}/scores")
    assert ended.code == 0, ended.err


def test_a_run_that_goes_on_knows_the_ids_that_it_gave(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"key": "same", "prompt": f"p{n}"} for n in range(6)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    (tmp_path / "whole").mkdir()
    whole = strict(ran(batchchat, tmp_path / "whole", source) / "outputs.jsonl")
    directory = ran(batchchat, tmp_path, source)
    (directory / "outputs.parquet").unlink()  # so that the rows are read from the store and exported again
    assert strict(ran(batchchat, tmp_path, source) / "outputs.jsonl") == whole
    assert Counter(line["batchchat"]["id"] for line in whole).most_common(1)[0][1] == 1


def test_openai_lines_one_for_each_request(tmp_path: Path, batchchat: Command) -> None:
    def line(id_: str, **more: Any) -> dict[str, Any]:
        body = {"model": "m", "messages": ASK["messages"], "max_tokens": 8, **more}
        return {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": body}

    rows = [line("one", n=2, temperature=1), line("two", seed=-5), line("three", top_p=0), line("four", messages=[])]
    directory = ran(batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", rows))
    lines = strict(directory / "outputs.jsonl")
    assert [found["custom_id"] for found in lines] == ["one", "two", "three"]
    assert len({found["response"]["body"]["id"] for found in lines}) == 3
    for found, count in zip(lines, (2, 1, 1), strict=True):
        body = found["response"]["body"]
        assert [choice["index"] for choice in body["choices"]] == list(range(count))
        assert {choice["finish_reason"] for choice in body["choices"]} <= {"stop", "length", "tool_calls"}
        assert all(choice["message"].keys() >= {"role", "content", "refusal"} for choice in body["choices"])
        assert body["created"] > 1_700_000_000
        assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
        assert len(found["batchchat"]["turns"]) == count
    (error,) = strict(directory / "errors.jsonl")
    assert (error["id"], error["custom_id"], error["response"]) == ("four", "four", None)
    assert error["error"]["message"] == "the chat has no turns"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b", "tools2", "metadata"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | st.text(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
                max_leaves=5,
            ),
        ),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_any_rows_come_back_from_parquet(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write_parquet(path, lambda: iter([{**row, "batchchat": None} for row in rows]), {})
    with open_source([str(path)]) as source:
        found = [dict(item.data) for item in source.rows() if isinstance(item, SourceRow)]
    assert len(found) == len(rows)
    for row, came in zip(rows, found, strict=True):
        assert came.pop("batchchat") is None
        assert {key: value for key, value in came.items() if value is not None} == {
            key: value for key, value in row.items() if value is not None
        }


def test_what_other_tests_read(tmp_path: Path, batchchat: Command) -> None:
    """A refused row of any format is written to the errors as it came."""
    rows = ['{"id": 1, "prompt": null, "price": 1.10}', '{"id": 2, "prompt": "x"}']
    directory = ran(batchchat, tmp_path, write_jsonl(tmp_path / "in.jsonl", rows))
    assert '"row": {"id": 1, "prompt": null, "price": 1.10}' in (directory / "errors.jsonl").read_text()
    assert len(read_jsonl(directory / "outputs.jsonl")) == 1
