"""A run that was finished before is told at once, and only where everything is as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import Command, read_jsonl, scripted_recipe, write_jsonl

ROWS = [{"id": n, "messages": [{"role": "user", "content": f"What is {n} plus 1?"}]} for n in range(3)]

LARGE = {"torch", "transformers", "datasets", "pyarrow", "scipy", "numpy", "huggingface_hub"}


def recipe_of(folder: Path, **sections: object) -> Path:
    data = {
        "name": "test",
        "source": {"path": str(write_jsonl(folder / "in.jsonl", ROWS))},
        "generation": {"max_new_tokens": 8},
        "sink": {"directory": str(folder / "runs/{name}"), "formats": ["jsonl", "parquet"]},
        "scoring": ["includes"],
        **sections,
    }
    path = folder / "r.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_finished_run_is_told_without_a_large_library(tmp_path: Path, batchchat: Command) -> None:
    recipe = recipe_of(tmp_path)
    first = batchchat("run", recipe, "--json")
    assert first.code == 0, first.err
    assert first.err.splitlines()[0] == "loading builtin:tiny-chat …"
    program = (
        f"import sys, time; sys.argv = ['batchchat', 'run', {str(recipe)!r}, '--json']\n"
        "from batchchat.cli import main\n"
        "main_ended = None\n"
        "try: main()\n"
        "except SystemExit as ended: main_ended = ended.code\n"
        "names = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print(main_ended, time.process_time(), *names, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(first.out)
    said, facts = done.stderr.splitlines()
    assert said == f"{tmp_path}/runs/test was finished before; begin anew with --restart"
    code, seconds, *imported = facts.split()
    assert code in ("0", "None")
    assert not LARGE & set(imported)
    assert float(seconds) < 2, "seconds of the processor; about 0.7 on a slow one"


def test_what_changed_is_looked_at_closely(tmp_path: Path, batchchat: Command) -> None:
    (tmp_path / "more").mkdir()
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        tmp_path / "more/*.jsonl",
        scoring=["includes"],
        gates=["errors <= 0"],
        sink={"formats": ["jsonl"]},
    )
    source = write_jsonl(tmp_path / "more/in.jsonl", ROWS)
    assert batchchat("run", recipe).code == 0
    outputs = tmp_path / "runs/test/outputs.jsonl"
    before = outputs.read_bytes()
    os.utime(source, ns=(1, 1))
    for _ in range(2):  # the same content with another time is the same input, then and later
        ended = batchchat("run", recipe, "--json")
        assert ended.code == 0
        assert "finished before" in ended.err
    assert batchchat("run", recipe, "--json", "scoring=[exact]", "gates=[]").code == 0
    assert (tmp_path / "runs/test/scores.jsonl").read_text().count('"exact"') == 3
    assert batchchat("run", recipe, "--json", "sink.formats=[jsonl, parquet]").code == 0
    assert (tmp_path / "runs/test/outputs.parquet").exists()
    assert outputs.read_bytes() == before
    stamp = source.stat().st_mtime_ns
    write_jsonl(source, [*ROWS[:2], {**ROWS[2], "id": 9}])  # as long as before
    os.utime(source, ns=(stamp + 1, stamp + 1))
    ended = batchchat("run", recipe)
    assert ended.code == 2
    assert "in.jsonl has changed" in ended.err
    write_jsonl(source, ROWS)
    write_jsonl(tmp_path / "more/other.jsonl", ROWS[:1])
    ended = batchchat("run", recipe)
    assert ended.code == 2
    assert "other.jsonl was not there before" in ended.err
    assert "generation.seed: 0 -> 3" in batchchat("run", recipe, "generation.seed=3").err


def test_a_finished_run_is_held_to_the_error_rate_that_is_asked_for_now(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", [*ROWS, "{broken"]))
    assert batchchat("run", recipe).code == 3
    assert batchchat("run", recipe, "max_error_rate=0.5").code == 0
    assert "max_error_rate: 0.5" in (tmp_path / "runs/test/recipe.yaml").read_text(encoding="utf-8")
    assert batchchat("run", recipe).code == 3


def test_standard_input_is_read_again(tmp_path: Path, batchchat: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", "-")
    file = write_jsonl(tmp_path / "in.jsonl", ROWS)
    for rows, code in ((ROWS, 0), (ROWS, 0), (ROWS[:2], 2)):
        write_jsonl(file, rows)
        with open(file, encoding="utf-8") as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            ended = batchchat("run", recipe)
        assert ended.code == code, ended.err
    assert len(read_jsonl(tmp_path / "runs/test/outputs.jsonl")) == 3
    assert "has changed" in ended.err


def test_no_rows_are_a_mistake_where_gates_stand_and_a_warning_elsewhere(tmp_path: Path, batchchat: Command) -> None:
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", ["", " "]))
    ended = batchchat("run", recipe, "gates=[errors <= 1%]")
    assert ended.code == 2
    assert ended.err == (
        f"batchchat: {tmp_path}/in.jsonl holds no rows, so there is nothing for the gates to hold of; set source.path "
        "to one with chats\n"
    )
    assert not (tmp_path / "runs").exists()
    ended = batchchat("run", recipe, "--quiet")
    assert ended.code == 0
    assert ended.err == f"{tmp_path}/in.jsonl holds no rows, so there is nothing to answer\n"


@pytest.mark.parametrize("what", ["the model ", ""], ids=["model", "data set"])
def test_what_is_out_of_reach_is_said_before_a_large_library_is_read(tmp_path: Path, what: str) -> None:
    """Asking a hub that does not answer takes 2.5 seconds at most, so with what is imported it is below five."""
    model = {"name": "nobody/unknown", "cache_dir": str(tmp_path / "cache")}
    recipe = recipe_of(tmp_path, **({"model": model} if what else {"source": {"path": "nobody/unknown"}}))
    for command in ("run", "check", "plan") if what else ("run", "check"):
        program = (
            "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
            f"sys.argv = ['batchchat', {command!r}, {str(recipe)!r}]\n"
            "from batchchat.cli import main\n"
            "main()"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.returncode == 5, done.stderr
        *said, sentence = done.stderr.splitlines()
        assert sentence.startswith(f"batchchat: {what}nobody/unknown is no")
        assert "the hub cannot be asked" in sentence
        loading = f"loading {'nobody/unknown' if what else 'builtin:tiny-chat'} …"
        assert said == ([loading] if command == "run" else [])
    assert not (tmp_path / "runs").exists()
