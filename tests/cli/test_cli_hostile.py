"""Rows whose ids, categories, column names and texts are meant for the terminal, the report or the build's page."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from tests.support.jobs import Command, scripted_recipe, write_jsonl

UGLY = "x|y\x1b[2J\u202e<script>alert(1)</script>\n## heading\n\n::error::boo\u2028\x9b"
COLUMN = "c|\x1b[1m\u202e<b>\n# h"


def obeyed(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {*"\n\t\u200c\u200d"}


def is_plain(text: str) -> bool:
    """No line of it passes for one of the program's own, or for a command to a build."""
    return not any(line.strip().startswith(("## h", "# h", "::", "##[")) for line in text.split("\n"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [
        {"id": f"{n}\x1b]0;t\x07\u2066", "messages": [{"role": "user", "content": UGLY}], "cat": UGLY, COLUMN: UGLY}
        for n in range(3)
    ]
    bad = [{"id": "bad\x1b\u202e", "messages": UGLY}, {"id": "role", "messages": [{"role": UGLY, "content": "x"}]}]
    template = tmp_path / "t.jinja"
    template.write_text("{{ raise_exception(messages[0]['content']) }}", encoding="utf-8")
    return scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", [*rows, *bad]),
        scoring=[{"exact": {"reference": "cat"}}, {"numeric": {"reference": "id"}}],
        summary={"by": ["cat", COLUMN]},
        gates=["errors <= 0", "exact.mean[cat=<script>|] > 0"],
        max_error_rate=1.0,
    )


def test_nothing_of_a_row_is_obeyed_anywhere(
    recipe: Path, tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    junit = tmp_path / "gates.xml"
    printed = [
        batchchat("run", recipe, "--show", "9", "--junit", junit),
        batchchat("run", recipe, "name=other", "engine.scripted.answer=counting", "--json"),
        batchchat("check", recipe),
        batchchat("check", recipe, "model.name=builtin:tiny-chat", "engine.kind=pipeline", "chat.template=t.jinja"),
        batchchat("score", tmp_path / "runs/test"),
        batchchat("compare", tmp_path / "runs/test", tmp_path / "runs/other", "--show", "9"),
        batchchat("init", tmp_path / "in.jsonl", "--output", tmp_path / "new.yaml"),
        batchchat("run", recipe, f"source.path={UGLY}"),
        batchchat("run", UGLY),
        batchchat("compare", UGLY, "x"),
        batchchat("run", recipe, f"--{UGLY}"),
        batchchat(UGLY),
    ]
    assert [ended.code for ended in printed[:2]] == [4, 4], printed[0].err
    for ended in printed:
        assert not obeyed(ended.out + ended.err)
        assert "Traceback" not in ended.err
    for ended in printed[:7]:
        assert is_plain(ended.out)
        assert is_plain(ended.err)
    written = [tmp_path / "runs/test" / name for name in ("report.md", "run.log")]
    for path in (*written, page):
        text = path.read_text(encoding="utf-8")
        assert not obeyed(text)
        assert path.name == "run.log" or "<script" not in text
        assert is_plain(text)
    assert not obeyed(junit.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "override",
    [
        "source.path=https://me:hunter2@host.test/x.jsonl", "model.name=https://hunter2@host.test/m",
        "sink.directory=s3://host.test/x?token=hunter2",
        "gates=[exact.mean not worse than https://me:hunter2@h.t by 1]",
        "judges={q: {model: {name: 'https://me:hunter2@host.test'}}}",
    ],
)  # fmt: skip
def test_credentials_are_refused_and_stand_nowhere(
    override: str, recipe: Path, tmp_path: Path, batchchat: Command
) -> None:
    ended = batchchat("run", recipe, override)
    assert ended.code == 2
    assert f"{override.partition('=')[0]}" in ended.err
    assert "an address with a password or a key in it" in ended.err
    assert "hunter2" not in ended.err + ended.out
    assert not (tmp_path / "runs").exists(), "nothing was written"
    recipe.write_text(json.dumps({"source": {"path": "https://me:hunter2@host.test/x"}}), encoding="utf-8")
    assert "hunter2" not in batchchat("run", recipe).err
    assert "hunter2" not in batchchat("score", "https://me:hunter2@host.test/x", "scoring=[exact]").err
