"""Systems that are not POSIX: nothing fails at import, and what cannot be had there says so in a sentence."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.jobs import ROOT, read_jsonl, scripted_recipe, write_jsonl

POSIX_ONLY = {
    "crypt", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog",
    "termios", "tty",
}  # fmt: skip
ALONE = {"benchmarks/peers/worker.py"}
"""Run by another Python, where vLLM is, which is no Windows."""


def imported_at_once(path: Path) -> Iterator[str]:
    """What a module imports whenever it is imported itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_no_module_needs_a_posix_system_to_be_imported() -> None:
    package = ROOT / "batchchat"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if POSIX_ONLY & {name.partition(".")[0] for name in imported_at_once(path)}
    }
    assert found == ALONE


WINDOWS = """
import builtins, os, sys, types

locked = set(sys.argv.pop(1).split(","))
original = builtins.__import__

def lacking(name, globals=None, locals=None, fromlist=(), level=0):
    asking = (globals or {}).get("__name__", "")
    if name in %(posix)r and asking.startswith("batchchat"):
        raise ImportError(f"No module named {name!r}")
    if name == "msvcrt" and asking.startswith("batchchat"):
        return types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    return original(name, globals, locals, fromlist, level)

def locking(number, mode, count):
    assert os.lseek(number, 0, os.SEEK_CUR) >= 2**30, "the text in the file stays readable"
    if "held" in locked:
        raise PermissionError(13, "Permission denied")
    locked.add("held")

builtins.__import__ = lacking
import psutil
memory = psutil.Process.memory_info
psutil.Process.memory_info = lambda process: types.SimpleNamespace(peak_wset=12345, **memory(process)._asdict())
%(body)s
"""


def on_windows(body: str, *arguments: str, held: bool = False) -> subprocess.CompletedProcess[str]:
    """A Python whose batchchat finds no POSIX modules, and a `msvcrt` in their place."""
    program = WINDOWS % {"posix": POSIX_ONLY, "body": body}
    command = [sys.executable, "-c", program, "held" if held else "", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_run_works_and_is_held_by_one_process(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "Hi"}]}]
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", rows))
    main = "from batchchat.cli import main\nmain()"
    done = on_windows(main, "run", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["memory"]["host_peak_bytes"] == 12345
    assert len(read_jsonl(tmp_path / "runs/test/outputs.jsonl")) == 1
    refused = on_windows(main, "run", str(recipe), held=True)
    assert refused.returncode == 2
    assert "runs/test is in use by process " in refused.stderr


def test_a_chat_in_a_terminal_says_what_it_needs() -> None:
    done = on_windows(
        "from batchchat.errors import EnvironmentFault\n"
        "from batchchat.interactive.keys import keyboard\n"
        "try:\n"
        "    with keyboard(print): pass\n"
        "except EnvironmentFault as error: print(error)"
    )
    assert done.stdout == (
        "a chat in a terminal needs a POSIX system, such as Linux, macOS or WSL; here, pipe the question in: "
        "echo 'What is 2 plus 2?' | batchchat chat\n"
    ), done.stderr
