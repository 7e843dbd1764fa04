"""Files that lie on object storage are copied and read as any other."""

from __future__ import annotations

import gzip
from pathlib import Path

import fsspec
import pytest

from tests.support.jobs import Command, read_jsonl, scripted_recipe


@pytest.mark.parametrize("path", ["memory://bucket/*.gz", "memory://bucket/a.jsonl.gz"])
def test_files_at_an_address_are_answered(tmp_path: Path, batchchat: Command, path: str) -> None:
    with fsspec.open("memory://bucket/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"prompt": "one"}\n{broken\n'))
    assert batchchat("run", scripted_recipe(tmp_path / "r.yaml", path), "-q", "max_error_rate=1").code == 0
    (row,) = read_jsonl(tmp_path / "runs/test/outputs.jsonl")
    assert row["messages"][-1]["content"] == "one"
    (error,) = read_jsonl(tmp_path / "runs/test/errors.jsonl")
    assert error["file"] == "memory:///bucket/a.jsonl.gz"


@pytest.mark.parametrize(
    ("path", "code", "sentence"),
    [
        ("memory://nothing/a.jsonl", 2, "there is no file memory://nothing/a.jsonl"),
        ("memory://nothing/*.jsonl", 2, "no file matches memory://nothing/*.jsonl"),
        ("nosuch://bucket/a.jsonl", 2, "nosuch://bucket/a.jsonl cannot be read: Protocol not known: nosuch"),
    ],
)
def test_addresses_where_nothing_is(tmp_path: Path, batchchat: Command, path: str, code: int, sentence: str) -> None:
    found = batchchat("run", scripted_recipe(tmp_path / "r.yaml", path))
    assert found.code == code
    assert sentence in found.err
    assert not (tmp_path / "runs").exists()
