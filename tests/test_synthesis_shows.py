"""The shows of `make synthesis` that take neither long nor a network: tools that run, duplicates, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.structured import suite
from scripts.synthesis.__main__ import PARTS, main


def test_a_part_that_is_wrong_is_told_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the schemas, say, where pip reaches no index."""
    monkeypatch.setattr(suite, "_FOLDER", tmp_path / "schemas")
    for name in ("PIP_NO_INDEX", "PIP_DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(name, "1")
    (tmp_path / "schemas").mkdir()
    wanted = ["--parts", "xgrammar", "duplicates", "--texts", "2000", "--output", str(tmp_path)]
    assert main(wanted) == 1
    duplicates, xgrammar = capsys.readouterr().out.splitlines()[-2:]
    assert duplicates.startswith("| duplicates | ")
    assert "| yes | 2,000 texts of 128 words: 1,8" in duplicates
    assert "| **no** | **the schemas are in the source distribution of jsonschema==4.26.0, which pip could" in xgrammar
    assert f"put jsonschema-4.26.0.tar.gz into {tmp_path / 'schemas'}**" in xgrammar
    assert next(iter(PARTS)) == "duplicates", "what it says of memory is that of the process"
