"""The shows of `make other-engines` that need neither vLLM nor long: files of every kind and format, and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.other_engines.__main__ import PARTS, main
from scripts.other_engines.job import KEY


def test_conversions_are_lossless_or_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--parts", "conversion", "vllm", "key", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "30 pairs of formats" in said
    assert "lossless" in said
    assert "left out, as no --vllm-python is named" in said
    assert "not found in" in said


def test_a_key_that_was_written_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "log").write_text(f"Authorization: Bearer {KEY}")
    assert main(["--parts", "key", "--output", str(tmp_path)]) == 1
    assert "served/log" in capsys.readouterr().out
    assert list(PARTS)[-1] == "key", "it is looked for in what all others have written"
