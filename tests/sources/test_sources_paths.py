"""What a path stands for, what is said of one that stands for nothing, and fingerprints."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchchat.chats import SourceRow
from batchchat.errors import UsageError
from batchchat.sources import Source, open_source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl", "deep/c.json", "deep/deeper/d.jsonl", "notes.md", "deep/.hidden.jsonl"):
        (tmp_path / name).write_text(json.dumps({"file": name}) + "\n")
    return tmp_path


def files(source: Source) -> list[str]:
    with source:
        return [item.data["file"] for item in source.rows() if isinstance(item, SourceRow)]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["b.jsonl", "a.jsonl"], ["b.jsonl", "a.jsonl"]),
        (["*.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["**/*.json*"], ["a.jsonl", "b.jsonl", "deep/c.json", "deep/deeper/d.jsonl"]),
        (["[b]*", "deep/*.json"], ["b.jsonl", "deep/c.json"]),
        (["deep"], ["deep/c.json"]),
        (["."], ["a.jsonl", "b.jsonl"]),
        ([], []),
    ],
)
def test_paths(folder: Path, paths: list[str], found: list[str]) -> None:
    source = open_source(paths)
    assert [str(Path(name)) for name in source.files] == found
    assert files(source) == found


def test_rows_are_numbered_through_all_files(folder: Path) -> None:
    with open_source(["a.jsonl", "b.jsonl"]) as source:
        places = [(item.number, str(item.place)) for item in source.rows()]
        assert places == [(0, "a.jsonl:1"), (1, "b.jsonl:1")]
        assert places == [(item.number, str(item.place)) for item in source.rows()], "rows can be read again"


def test_a_file_whose_name_is_a_pattern(folder: Path) -> None:
    (folder / "a[1].jsonl").write_text('{"file": "it"}')
    assert files(open_source(["a[1].jsonl"])) == ["it"]


def test_only_some_columns_of_json(folder: Path) -> None:
    (folder / "e.jsonl").write_text('{"a": 1, "b": 2}\n{"b": 3}\nbad\n')
    with open_source(["e.jsonl"], columns=["a"]) as source:
        first, second, bad = source.rows()
    assert isinstance(first, SourceRow)
    assert first.data == {"a": 1}
    assert isinstance(second, SourceRow)
    assert second.data == {}
    assert not isinstance(bad, SourceRow)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("aa.jsonl", r"there is no file aa\.jsonl; the current folder has a\.jsonl"),
        ("deep/x.json", r"there is no file deep/x\.json; deep has c\.json"),
        ("deep/zzzz", "there is no file deep/zzzz; deep has "),
        ("none/deeper/x.jsonl", r"there is no file none/deeper/x\.jsonl: there is no folder none"),
        ("none/x.jsonl", "there is no folder none"),
        ("*.parquet", r"no file matches \*\.parquet; the current folder has"),
        ("none/*/x*.jsonl", r"no file matches none/\*/x\*\.jsonl: there is no folder none"),
        ("empty", r"empty is a folder without data files .* directly in it$"),
        ("outer", r'name them as "outer/\*\*/\*"'),
        ("a.jsonl/x", "there is no file a.jsonl/x"),
        ("builtin:nothing", "builtin:nothing"),
        ("broken", "broken cannot be read: No such file"),
        ("notes.md", None),
    ],
)
def test_a_path_that_stands_for_nothing(folder: Path, path: str, says: str | None) -> None:
    (folder / "empty").mkdir()
    (folder / "outer" / "inner").mkdir(parents=True)
    (folder / "outer" / "inner" / "x.jsonl").touch()
    (folder / "broken").symlink_to("nowhere")
    if says is None:  # JSON lines in a file of another name are JSON lines
        assert files(open_source([path])) == [path]
        return
    with pytest.raises(UsageError, match=says):
        open_source([path])


def test_the_advice_for_an_outer_folder_works(folder: Path) -> None:
    (folder / "outer" / "inner").mkdir(parents=True)
    (folder / "outer" / "inner" / "x.jsonl").write_text('{"file": "x"}')
    assert files(open_source(["outer/**/*"])) == ["x"]


def test_one_file_named_twice(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.jsonl is named twice"):
        open_source(["a.jsonl", "*.jsonl"])


@pytest.mark.parametrize("option", ["split", "subset", "revision"])
def test_options_of_data_sets_do_not_fit_files(folder: Path, option: str) -> None:
    with pytest.raises(UsageError, match=rf"source\.{option} is for data sets, but a\.jsonl is read as files"):
        open_source(["a.jsonl"], **{option: "x"})  # type: ignore[arg-type]


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything, so be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_permission(folder: Path) -> None:
    (folder / "a.jsonl").chmod(0)
    (folder / "deep").chmod(0)
    folder.chmod(0o755)
    with ordinary_user():
        with pytest.raises(UsageError, match=r"a\.jsonl may not be read by this user"):
            open_source(["a.jsonl"])
        for path in ("deep", "deep/c.json"):
            with pytest.raises(UsageError, match=r"deep.* may not be read by this user"):
                open_source([path])
    (folder / "deep").chmod(0o700)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = b'{"file": "1"}\n{"file": "2"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with open_source(["-"]) as source:
        assert [str(item.place) for item in source.rows()] == ["-:1", "-:2"]
        assert len(list(source.rows())) == 2
        assert source.fingerprint() == [
            {"path": "-", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        ]
        assert len(list(tmp_path.iterdir())) == 1, "it is kept in a file"
    assert not list(tmp_path.iterdir())


def test_standard_input_that_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary = os.openpty()
    with open(secondary) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(UsageError, match="standard input is a terminal"):
            open_source(["-"])
    os.close(primary)


def test_a_pipe_is_read_once(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    writer = threading.Thread(target=(folder / "pipe").write_text, args=['[{"file": "1"}, {"file": "2"}]'])
    writer.start()
    source = open_source(["pipe"])
    writer.join()
    assert source.files == ("pipe",)
    assert files(source) == ["1", "2"]


def test_fingerprint_follows_the_content(folder: Path) -> None:
    with open_source(["a.jsonl", "deep/c.json"]) as source:
        first = source.fingerprint()
    content = (folder / "a.jsonl").read_bytes()
    assert first[0] == {"path": "a.jsonl", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "a.jsonl").write_bytes(content.replace(b"a", b"A"))
    with open_source(["a.jsonl", "deep/c.json"]) as source:
        second = source.fingerprint()
    assert second[0]["sha256"] != first[0]["sha256"]
    assert second[1] == first[1]


def test_count_is_known_once_lines_were_read(folder: Path) -> None:
    with open_source(["a.jsonl", "b.jsonl"]) as source:
        assert source.count() is None
        source.fingerprint()
        assert source.count() == 2
    (folder / "list.json").write_text("[]")
    with open_source(["a.jsonl", "list.json"]) as source:
        source.fingerprint()
        assert source.count() is None
