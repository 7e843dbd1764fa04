"""The whole job on the engine without a model: conservation, order, formats of the results, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchchat import load_recipe, run
from batchchat.chats import SourceRow
from batchchat.sources import open_source
from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

GOOD = {"messages": [{"role": "user", "content": "hello"}]}
BAD = ['{"messages": ', '{"messages": []}', "[1]", '{"messages": [{"role": "user", "content": 5}]}', '{"x": 1}']


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def test_every_row_is_answered_once_in_order(tmp_path: Path, batchchat: Command) -> None:
    rows = [{"id": n, "messages": messages("x" * (1 + 37 * n % 50), "again"), "mark": [n, None]} for n in range(100)]
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows))
    ended = batchchat("run", recipe, "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["rows"] == {"in": 100, "answered": 100, "failed": 0}
    assert report["turns"] == 200
    outputs = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert [output["id"] for output in outputs] == list(range(100))
    for row, output in zip(rows, outputs, strict=True):
        assert [m["role"] for m in output["messages"]] == ["user", "assistant"] * 2
        assert output["messages"][1]["content"] == row["messages"][0]["content"]  # type: ignore[index]
        assert output["mark"] == row["mark"]
        assert output["batchchat"]["turns"][0]["completion_tokens"] == len(row["messages"][0]["content"])  # type: ignore[index]
    assert (tmp_path / "runs/test/errors.jsonl").read_bytes() == b""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.one_of(
            st.sampled_from(BAD),
            st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=3).map(
                lambda texts: {"messages": messages(*texts)}
            ),
            st.sampled_from(["a", "b"]).map(lambda id_: {"id": id_, **GOOD}),
        ),
        max_size=30,
    ),
    batch_rows=st.integers(1, 8),
    look_ahead=st.integers(0, 20),
    samples=st.integers(1, 3),
    fail_every=st.integers(0, 4),
)
def test_conservation(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    batch_rows: int,
    look_ahead: int,
    samples: int,
    fail_every: int,
) -> None:
    folder = tmp_path_factory.mktemp("conservation")
    # A good first row settles the format, as it does in real files.
    source = write_jsonl(folder / "in.jsonl", [GOOD, *rows])
    path = scripted_recipe(
        folder / "r.yaml",
        source,
        generation={"samples": samples},
        engine={"max_batch_rows": batch_rows, "look_ahead": look_ahead, "scripted": {"fail_every": fail_every}},
        max_error_rate=1.0,
    )
    result = run(load_recipe(path))
    outputs = read_jsonl(result.directory / "outputs.jsonl")
    errors = read_jsonl(result.directory / "errors.jsonl")
    places = [(output["batchchat"]["index"], output["batchchat"]["sample"]) for output in outputs]
    assert places == sorted(set(places))
    failed: set[tuple[int, int]] = set()
    for error in errors:
        samples_of = [error["sample"]] if "sample" in error else range(samples)
        failed |= {(error["index"], sample) for sample in samples_of}
        assert error["reason"]
        assert error["line"] == error["index"] + 1
    assert failed.isdisjoint(places)
    assert failed | set(places) == {(index, sample) for index in range(len(rows) + 1) for sample in range(samples)}
    assert result.report.rows.in_ == len(rows) + 1
    assert result.exit_code == 0


def test_the_error_rate_decides_the_exit_code(tmp_path: Path, batchchat: Command) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [GOOD] * 9 + ["{"])
    recipe = scripted_recipe(tmp_path / "r.yaml", source)
    ended = batchchat("run", recipe, "max_error_rate=0.1")
    assert ended.code == 0
    ended = batchchat("run", recipe, "max_error_rate=0.09")
    assert ended.code == 3
    assert "1 of 10 rows failed" in ended.err
    assert "errors.jsonl" in ended.err
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert error["line"] == 10
    assert error["row"] == "{"


def test_a_second_row_with_an_id_names_both_places(tmp_path: Path, batchchat: Command) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": "a", **GOOD}, {"id": "b", **GOOD}, {"id": "a", **GOOD}])
    assert batchchat("run", scripted_recipe(tmp_path / "r.yaml", source)).code == 3
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert error["line"] == 3
    assert f"{source}:1" in error["reason"]
    assert len(read_jsonl(tmp_path / "runs/test/outputs.jsonl")) == 2


def test_samples_differ_and_are_numbered(tmp_path: Path, batchchat: Command) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": n, **GOOD} for n in range(3)])
    recipe = scripted_recipe(
        tmp_path / "r.yaml", source, generation={"samples": 4}, engine={"scripted": {"answer": "counting"}}
    )
    assert batchchat("run", recipe).code == 0
    outputs = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert [(o["id"], o["batchchat"]["sample"]) for o in outputs] == [(n, s) for n in range(3) for s in range(4)]
    assert len({o["batchchat"]["turns"][0]["seed"] for o in outputs}) == 12
    assert len({o["messages"][-1]["content"] for o in outputs}) > 4


def test_a_turn_that_fails_keeps_the_answers_before_it(tmp_path: Path, batchchat: Command) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"id": "long", "messages": messages("short", "x" * 300)}])
    recipe = scripted_recipe(tmp_path / "r.yaml", source, chat={"max_context": 200}, generation={"max_new_tokens": 20})
    assert batchchat("run", recipe).code == 3
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert (error["sample"], error["turn"]) == (0, 1)
    assert [answer["content"] for answer in error["answered"]] == ["short"]
    assert error["row"]["id"] == "long"


def test_parquet_equals_jsonl(tmp_path: Path, batchchat: Command) -> None:
    rows = [
        {"id": 1, **GOOD, "mixed": 1, "nested": {"a": [1, 2]}, "tags": ["x"]},
        {"id": 2, **GOOD, "mixed": "one", "nested": {"b": None}, "empty": {}},
        {"id": 3, **GOOD, "mixed": None, "big": 2**70, "tags": []},
    ]
    recipe = scripted_recipe(
        tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows), sink={"formats": ["jsonl", "parquet"]}
    )
    assert batchchat("run", recipe).code == 0
    lines = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert [without_nulls(line) for line in lines] == read_parquet(tmp_path / "runs/test/outputs.parquet")


def read_parquet(path: Path) -> list[Any]:
    """Rows of an exported Parquet file as they are read as an input, nulls taken out."""
    with open_source([str(path)]) as source:
        return [without_nulls(item.data) for item in source.rows() if isinstance(item, SourceRow)]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def test_a_row_with_a_batchchat_column_keeps_it(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", [{**GOOD, "batchchat": {"x": 1}}]))
    assert batchchat("run", recipe).code == 0
    (output,) = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert output["batchchat"]["previous"] == {"x": 1}
    assert output["batchchat"]["turns"]


def test_timings_only_where_asked_for(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", [GOOD]))
    assert batchchat("run", recipe).code == 0
    assert "seconds" not in read_jsonl(tmp_path / "runs/test/outputs.jsonl")[0]["batchchat"]["turns"][0]
    assert batchchat("run", recipe, "sink.timings=true").code == 0
    assert read_jsonl(tmp_path / "runs/test/outputs.jsonl")[0]["batchchat"]["turns"][0]["seconds"]["working"] >= 0


def test_an_empty_input_is_an_empty_result(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(
        tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", []), sink={"formats": ["jsonl", "parquet"]}
    )
    ended = batchchat("run", recipe)
    assert ended.code == 0, ended.err
    assert (tmp_path / "runs/test/outputs.jsonl").read_bytes() == b""
    assert pq.read_table(tmp_path / "runs/test/outputs.parquet").num_rows == 0


def test_text_that_terminals_obey_is_shown_harmless(tmp_path: Path, batchchat: Command) -> None:
    text = "\x1b]0;owned\x07\x1b[31mred \u202egnp"
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", [{"messages": messages(text)}]))
    ended = batchchat("run", recipe, "--show", "1")
    assert ended.code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(ended.out)
    assert "\\x1b" in ended.out
    assert read_jsonl(tmp_path / "runs/test/outputs.jsonl")[0]["messages"][1]["content"] == text
