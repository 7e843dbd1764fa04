"""Results in Python: chats from memory, an engine of one's own, rows, scores, tables and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchchat import RunResult, answer, load_result
from batchchat.engines import Engine, EngineContext
from batchchat.engines.scripted import ScriptedEngine
from batchchat.errors import UsageError

CHATS = [
    "What is 2 + 3?",
    {"id": "x", "messages": [{"role": "user", "content": "hi"}], "reference": "42", "kind": "<b>"},
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "again"}],
]


def own_engine(context: EngineContext) -> Engine:
    return ScriptedEngine(context.codec, context.meter, answer="text", text="42")


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    sink = {"directory": str(tmp_path / "runs/{name}")}
    return answer(CHATS, engine=own_engine, name="memory", scoring=["exact"], sink=sink)  # type: ignore[arg-type]


def test_chats_from_memory_are_answered_in_order(result: RunResult) -> None:
    assert result.exit_code == 0
    rows = list(result.rows())
    assert [row["id"] for row in rows] == ["row-0", "x", "row-2"]
    assert [row["messages"][-1]["content"] for row in rows] == ["42"] * 3
    assert rows[2]["messages"][0]["role"] == "system"
    assert result.report.engine.engine == "scripted"
    assert [score["value"] for score in result.scores() if score["status"] == "scored"] == [1.0]
    assert [row["id"] for row in result.rows(where="exact == 1")] == ["x"]
    with pytest.raises(UsageError, match="did you mean exact"):
        list(result.rows(where="exat == 1"))


def test_the_same_chats_are_not_answered_twice_and_others_are_refused(result: RunResult, tmp_path: Path) -> None:
    def never(context: EngineContext) -> Engine:
        raise AssertionError("the run was finished")

    sink = {"directory": str(tmp_path / "runs/{name}")}
    again = answer(CHATS, engine=never, name="memory", scoring=["exact"], sink=sink)  # type: ignore[arg-type]
    assert again.report == result.report
    with pytest.raises(UsageError, match="has changed"):
        answer(["other"], engine=own_engine, name="memory", sink=sink)
    with pytest.raises(UsageError, match="chat 1 is neither a text, a row nor a list of messages, but int"):
        answer(["a", 1], engine=own_engine, name="bad", sink=sink)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="takes its chats from memory"):
        answer([], source={"path": "x.jsonl"})


def test_tables_and_data_sets(result: RunResult) -> None:
    table: Any = result.to_pandas()
    assert list(table["answer"]) == ["42"] * 3
    assert table.loc[1, "score.exact"] == 1.0
    assert table.loc[1, "kind"] == "<b>"
    found: Any = result.dataset()
    assert found.column_names == ["messages"]
    assert found[1]["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "42"}]
    pairs: Any = result.dataset("prompt-completion", where="id == 'x'")
    assert pairs[0] == {
        "prompt": [{"role": "user", "content": "hi"}],
        "completion": [{"role": "assistant", "content": "42"}],
    }


def test_a_finished_run_is_loaded_and_shown(result: RunResult, tmp_path: Path) -> None:
    assert load_result(result.directory) == result
    with pytest.raises(UsageError, match="holds no finished run"):
        load_result(tmp_path)
    shown = result._repr_html_()
    assert "<strong>memory</strong>" in shown
    assert "3 of 3" in shown
    assert "<script" not in shown
