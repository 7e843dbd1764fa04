"""Parquet files and data sets of the `datasets` library."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchchat.chats import RowError, SourceRow
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.sources import Item, open_source
from batchchat.sources.data_sets import open_hub

ROWS: list[dict[str, Any]] = [
    {"id": n, "messages": [{"role": "user", "content": f"hi {n}", "extra": None}], "tags": [["a"], []], "x": n / 4}
    for n in range(1000)
]


def read(path: Path | str, **options: Any) -> list[Item]:
    with open_source([str(path)], **options) as source:
        found = list(source.rows())
        assert [item.number for item in found] == list(range(len(found)))
        assert [item.place.line for item in found] == list(range(1, len(found) + 1))
        assert source.count() in (None, len(found))
        return found


def values(found: list[Item]) -> list[Any]:
    assert all(isinstance(item, SourceRow) for item in found)
    return [item.data for item in found if isinstance(item, SourceRow)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=300, write_page_checksum=True, compression="none")
    return path


def test_rows_of_all_groups(table: Path) -> None:
    assert values(read(table)) == ROWS
    assert read(table)[-1].place.file == str(table)


def test_only_the_columns_that_are_asked_for(table: Path) -> None:
    assert values(read(table, columns=["x", "id"])) == [{"x": row["x"], "id": row["id"]} for row in ROWS]
    with pytest.raises(UsageError, match="has no column massages; did you mean messages"):
        read(table, columns=["massages"])


def test_magic_bytes_beat_the_name(table: Path) -> None:
    assert len(read(table.rename(table.with_name("rows.jsonl")))) == 1000


def test_a_damaged_group_costs_its_rows(table: Path) -> None:
    content = bytearray(table.read_bytes())
    at = content.index(b"hi 450")
    content[at : at + 6] = b"HI 450"
    table.write_bytes(content)
    found = read(table)
    bad = [item for item in found if isinstance(item, RowError)]
    assert len(found) == 1000
    assert {item.number for item in bad} == set(range(bad[0].number, 600))
    assert 300 <= bad[0].number <= 450
    assert "row group 2 is damaged from here on" in bad[0].reason
    good = [item.number for item in found if isinstance(item, SourceRow)]
    assert good == [*range(bad[0].number), *range(600, 1000)]


@pytest.mark.parametrize("change", [lambda b: b[:-20], lambda b: b[:100], lambda b: b"", lambda b: b"PAR1" + b"x" * 50])
def test_a_file_without_its_footer_is_refused(table: Path, change: Any) -> None:
    table.write_bytes(change(table.read_bytes()))
    with pytest.raises(UsageError, match="is not a whole Parquet file"):
        read(table)


def test_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"t": texts}), tmp_path / "a.parquet")
    first, bad, last = read(tmp_path / "a.parquet")
    assert values([first, last]) == [{"t": "a"}, {"t": "c"}]
    assert isinstance(bad, RowError)
    assert "cannot be read" in bad.reason


def test_types_that_json_lacks(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "when": [day],
            "day": [day.date()],
            "price": [decimal.Decimal("1.50")],
            "bytes": [b"\0\1"],
            "took": pa.array([datetime.timedelta(seconds=90)]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "nested": [[{"d": day.date()}]],
            "null": pa.nulls(1),
            "kind": pa.array(["a"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = values(read(tmp_path / "a.parquet"))
    assert json.loads(json.dumps(row)) == {
        "when": "2024-02-29T12:30:00+00:00",
        "day": "2024-02-29",
        "price": "1.50",
        "bytes": "AAE=",
        "took": 90.0,
        "map": {"k": 1},
        "nested": [{"d": "2024-02-29"}],
        "null": None,
        "kind": "a",
    }


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="two columns called a"):
        read(tmp_path / "a.parquet")


def test_a_saved_data_set(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    found = read(tmp_path / "saved")
    assert values(found) == ROWS
    assert values(read(tmp_path / "saved", columns=["id"])) == [{"id": row["id"]} for row in ROWS]
    with open_source([str(tmp_path / "saved")]) as source, open_source([str(tmp_path / "saved")]) as again:
        assert source.count() == 1000
        (print_,) = source.fingerprint()
        assert print_ == again.fingerprint()[0]
        assert print_["fingerprint"]
    with pytest.raises(UsageError, match=r"no splits, so remove source\.split=test"):
        read(tmp_path / "saved", split="test")


def test_a_saved_data_set_with_splits(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    parts = {name: datasets.Dataset.from_list(ROWS[:number]) for name, number in (("train", 5), ("test", 3))}
    datasets.DatasetDict(parts).save_to_disk(folder)
    found = read(folder, split="test")
    assert values(found) == ROWS[:3]
    assert found[0].place.file == f"{folder}[test]"
    with pytest.raises(UsageError, match=r"has several splits: set source\.split to one of train, test"):
        read(folder)
    with pytest.raises(UsageError, match="has no split dev"):
        read(folder, split="dev")


def test_a_folder_that_is_no_whole_data_set(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be loaded"):
        read(tmp_path)


@pytest.mark.parametrize("streaming", [True, False])
def test_load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    """A folder in the hub's layout stands in for the hub, which loads it by the same call."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for split, rows in (("train", ROWS), ("test", ROWS[:7])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"subset": None, "revision": None, "streaming": streaming, "columns": None}
    part = open_hub(str(folder), split="test", **options)  # type: ignore[arg-type]
    found = list(part.rows(10))
    assert values(found) == ROWS[:7]
    assert (found[0].number, found[0].place.line, found[0].place.file) == (10, 1, f"{folder}[test]")
    assert part.fingerprint()["split"] == "test"
    assert part.count() == (None if streaming else 7)
    with pytest.raises(UsageError, match=r"set source\.split to one of train, test"):
        open_hub(str(folder), split=None, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="dev"):
        open_hub(str(folder), split="dev", **options)  # type: ignore[arg-type]


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentFault, match="owner/name is no file here, and the hub cannot be asked"):
        open_source(["owner/name"])
