"""What the command line says of itself: exit codes, and what a shell completes."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchchat.errors import EXIT_CODES, BatchchatError, EnvironmentFault, UsageError
from tests.support.jobs import ROOT, Command

COMMANDS = ("run", "run-batch", "chat", "score", "compare", "convert", "check", "plan", "init", "schema", "bench")


def exit_codes_in_the_source() -> Iterator[tuple[str, int]]:
    """Every number with which the command line or a result ends, with its file."""
    for path in (ROOT / "batchchat").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Exit", "sys.exit", "Exit"):
                values = list(node.args)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("cls", "RunResult", "ScoreResult"):
                values = node.args[2:]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "exit_code":
                values = [node.value]
            for value in values:
                for inside in ast.walk(value):
                    if isinstance(inside, ast.Constant) and type(inside.value) is int:
                        yield str(path.relative_to(ROOT)), inside.value


def test_every_exit_code_is_documented(batchchat: Command) -> None:
    found = list(exit_codes_in_the_source())
    used = {code for _, code in found}
    assert used >= {3, 4, 5, 130, 143}, "the search finds what there is"
    assert not [(file, code) for file, code in found if code not in EXIT_CODES]
    assert {error.exit_code for error in (BatchchatError, UsageError, EnvironmentFault)} == {1, 2, 5}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in readme
    for arguments in (["--help"], *([command, "--help"] for command in COMMANDS)):
        shown = batchchat(*arguments).out
        for code, meaning in EXIT_CODES.items():
            assert f"{code:<3}  {meaning}" in shown, arguments


BASH = """
set -e
export HOME={home} PATH={home}:$PATH
batchchat --install-completion > /dev/null
source ~/.bashrc
complete -p batchchat
while read -r -a COMP_WORDS; do
  COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
  _batchchat_completion batchchat
  echo "${{COMPREPLY[*]}}"
done
"""

COMPLETED = {
    "ru": "run run-batch",
    "run recipes/": "recipes/mine.yaml",
    "run builtin : quick": "quickstart.yaml",
    "check r.yaml generation.top_": "generation.top_k= generation.top_p= generation.top_h=",
    "plan r.yaml engine.kind = pi": "pipeline",
    "run r.yaml source.shuffle =": "true false",
}
"""What is typed, parted into words as bash does, and what it offers."""


def test_a_shell_completes_once_that_is_installed(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not on this machine")
    program = tmp_path / "batchchat"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchchat "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "work/recipes").mkdir(parents=True)
    for name in ("mine.yaml", "rows.jsonl"):
        (tmp_path / "work/recipes" / name).touch()
    done = subprocess.run(
        [bash, "-c", BASH.format(home=tmp_path)],
        input="".join(f"batchchat {typed}\n" for typed in COMPLETED),
        cwd=tmp_path / "work",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    installed, *offered = done.stdout.splitlines()
    assert "-F _batchchat_completion batchchat" in installed
    assert dict(zip(COMPLETED, offered, strict=True)) == COMPLETED
