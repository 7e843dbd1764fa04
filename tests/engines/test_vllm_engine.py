"""vLLM itself, on the built-in model; skipped where it is not installed (`make test-vllm`)."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchchat.chats import Completion, GrammarBackend, Message, Request, Settings, Structure
from batchchat.engines import EngineContext, build_engine
from batchchat.engines.facts import VllmFacts
from batchchat.errors import UsageError
from batchchat.models import load_text_side
from batchchat.prompts.calls import call_syntax
from batchchat.recipe import Recipe
from batchchat.schedule import Feed, request_seed
from batchchat.structure import agreement, calls_agreement, calls_structure, strict_schemas
from batchchat.structure.backends import BACKENDS
from tests.support.calls import TOOLS
from tests.support.jobs import ROOT, Command, read_jsonl, report_of, write_jsonl
from tests.support.zoo import Clock

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (make test-vllm)"),
    pytest.mark.filterwarnings("default"),  # vLLM and what it imports warn
]

QUESTIONS = (
    "What is 3 plus 4?", "Repeat: blue sky", "Count to 5.", "What color is grass?", "Reverse abc.",
    "Write hello in upper case.", "What is 9 minus 2?", "Who are you?", "Spell cat.", "What is the capital of France?",
)  # fmt: skip


def recipe_for(kind: str, **sections: Any) -> Recipe:
    engine = {"kind": kind, "cuda_graphs": False, "max_batch_rows": 6, "max_batch_tokens": 4096}
    values: dict[str, Any] = {
        "model": {"name": "builtin:tiny-chat", "dtype": "float32"},
        "source": {"path": "-"},
        "generation": {"model_defaults": False},
        "engine": engine,
    }
    for section, found in sections.items():
        values[section] = {**values.get(section, {}), **found}
    return Recipe.model_validate(values)


CODEC = load_text_side(recipe_for("continuous")).codec


def request(index: int, **settings: Any) -> Request:
    """A question with these settings."""
    ids = CODEC.render([Message("user", QUESTIONS[(index + index // 10) % 10])])
    wanted = Settings(**{"max_new_tokens": 20, "stop_token_ids": CODEC.eos_token_ids, **settings})
    return Request(f"chat-{index}", index, 0, 0, ids, wanted, request_seed(0, f"chat-{index}", 0, 0))


Answer = Callable[[Iterable[Request]], list[Completion]]


def answer_by(engine: Any) -> Answer:
    def answer(requests: Iterable[Request]) -> list[Completion]:
        found = list(engine.run(Feed(iter(list(requests)), look_ahead=100)))
        return sorted(found, key=lambda completion: completion.request.index)

    return answer


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    found = build_engine("vllm", EngineContext(recipe_for("vllm"), CODEC, Clock()))
    yield found
    found.close()


@pytest.fixture
def vllm(engine: Any) -> Answer:
    return answer_by(engine)


@pytest.fixture(scope="module")
def local() -> Iterator[Answer]:
    found = build_engine("continuous", EngineContext(recipe_for("continuous"), CODEC, Clock()))
    yield answer_by(found)
    found.close()


GREEDY: tuple[dict[str, Any], ...] = (
    {},
    {"logprobs": 3},
    {"repetition_penalty": 1.4},
    {"presence_penalty": 1.5, "frequency_penalty": 0.7},
    {"logit_bias": ((40, 30.0),), "max_new_tokens": 4},
    {"min_new_tokens": 15},
    {"stop": ("e",)},
    {"stop": ("never to be found",), "logprobs": 0},
    {"stop_token_ids": tuple(range(20, 400))},
    {"max_new_tokens": 1, "logprobs": 20},
)


def test_greedy_answers_are_those_of_the_local_engine(vllm: Answer, local: Answer) -> None:
    requests = [request(n, **settings) for n, settings in enumerate(GREEDY * 3)]
    found, expected = vllm(requests), local(requests)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.error is None, ours.error
        assert (ours.token_ids, ours.text, ours.finish_reason) == (theirs.token_ids, theirs.text, theirs.finish_reason)
        assert (ours.logprobs is None) == (theirs.logprobs is None)
        for step, other in zip(ours.logprobs or (), theirs.logprobs or (), strict=True):
            assert step.token_id == other.token_id
            assert step.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert [number for number, _ in step.top][:1] == [number for number, _ in other.top][:1]
            assert [one for _, one in step.top] == pytest.approx([one for _, one in other.top], abs=1e-3)
    assert {done.finish_reason for done in found} >= {"stop", "stop_string", "length"}


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMS = (
    Structure("json_schema", json.dumps(PERSON), "none"),
    Structure("json_schema", json.dumps({"type": "array", "items": {"type": "boolean"}, "maxItems": 3})),
    Structure("regex", "[a-f]{3}-[0-9]{2}"),
    Structure("choice", '["certainly", "certainly not"]'),
    Structure("grammar", 'start: "(" start ")" | "x"'),
    None,
)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_have_their_forms(vllm: Answer, local: Answer, temperature: float) -> None:
    requests = [
        request(n, structured=FORMS[n % len(FORMS)], max_new_tokens=48, temperature=temperature) for n in range(24)
    ]
    found, expected = vllm(requests), local(requests)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.error is None, ours.error
        form = ours.request.settings.structured
        if form is not None:
            state = agreement(form, ours.text, cut=ours.finish_reason == "length").state
            assert state == ("valid" if ours.finish_reason == "stop" else "cut off"), ours.text
        if not temperature:
            assert (ours.token_ids, ours.finish_reason) == (theirs.token_ids, theirs.finish_reason)
    stopped = [done.request.index % len(FORMS) for done in found if done.finish_reason == "stop"]
    assert {0, 2, 3} <= set(stopped)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [0.0, 1.6])
def test_calls_of_strict_tools_are_what_the_tools_take(
    vllm: Answer, local: Answer, temperature: float, backend: GrammarBackend
) -> None:
    schemas = strict_schemas(TOOLS, every=True)
    assert schemas is not None
    form = replace(calls_structure(call_syntax(CODEC), schemas), backend=backend)
    asks = ("What is the weather in Lisbon?", "Set a timer for 12 minutes.", "Tell Anna something.", "Hello!")
    requests = []
    for number in range(12):
        messages = (Message("user", asks[number % 4]),)
        one = request(number, structured=form, max_new_tokens=80, temperature=temperature)
        requests.append(replace(one, prompt_ids=CODEC.render(messages, TOOLS), messages=messages, tools=TOOLS))
    calls = 0
    for ours, theirs in zip(vllm(requests), local(requests), strict=True):
        assert ours.error is None, ours.error
        if not temperature:
            assert (ours.token_ids, ours.finish_reason) == (theirs.token_ids, theirs.finish_reason)
        message = CODEC.parse(ours).message
        if message.tool_calls:
            calls += 1
            assert calls_agreement(schemas, message.tool_calls).state == "valid", ours.text
    assert calls >= 3


def test_a_form_that_allows_nothing_more_costs_its_row(vllm: Answer) -> None:
    """Nor does it keep others waiting."""
    short = Structure("regex", "[0-9]")
    stuck, other = vllm([request(0, structured=short, min_new_tokens=9), request(1, max_new_tokens=4)])
    assert other.error is None
    assert stuck.finish_reason == "error"
    assert "no token is left for step 2 of the answer" in (stuck.error or "")


def test_a_sampled_answer_comes_from_its_own_seed(vllm: Answer) -> None:
    settings = [{"temperature": 2.0}, {"temperature": 1.9, "top_p": 0.98}, {"temperature": 2.0, "top_k": 40}]
    requests = [request(n, **settings[n % 3], max_new_tokens=12) for n in range(24)]
    whole = {done.request.key: done.token_ids for done in vllm(requests)}
    shuffled = random.Random(1).sample(requests, len(requests))
    alone = {done.request.key: done.token_ids for one in shuffled[:6] for done in vllm([one])}
    assert {key: whole[key] for key in alone} == alone
    other = {done.request.key: done.token_ids for done in vllm([replace(one, seed=one.seed ^ 5) for one in requests])}
    assert sum(whole[key] != other[key] for key in whole) > 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": 3.0}, "vLLM refused the request: temperature must be in [0, 2]"),
        ({"temperature": 0.001}, "a temperature of 0.01 at least, and this row asks for 0.001"),
        ({"stop_token_ids": (99_999,)}, "vLLM refused the request: token_id(s) [99999]"),
        ({"bad_texts": ("blue",)}, "bans tokens and not texts"),
        ({"flags": (("num_beams", 2),)}, "vLLM does not know num_beams"),
        ({"structured": Structure("regex", "(a"), "temperature": 0.0}, "form cannot be kept"),
        ({"structured": Structure("choice", '["a"]'), "logprobs": 1}, "of what an answer's form allows"),
        ({"logprobs": 1, "logprobs_of": "processed"}, "set generation.logprobs_of=processed"),
        ({"max_new_tokens": 4000}, "do not fit into the 2048 for which vLLM has room; raise engine.max_batch_tokens"),
    ],
)
def test_what_it_does_not_do_costs_that_row(vllm: Answer, changes: dict[str, Any], says: str) -> None:
    good, bad, other = vllm([request(0), request(1, **changes), request(2)])
    assert (good.error, other.error) == (None, None)
    assert bad.finish_reason == "error"
    assert says in (bad.error or "")


def test_an_empty_prompt_and_an_answer_of_no_tokens(vllm: Answer) -> None:
    empty, none = vllm([replace(request(0), prompt_ids=()), request(1, max_new_tokens=0)])
    assert empty.error == "the prompt has no tokens; give the chat some text"
    assert (none.token_ids, none.finish_reason) == ((), "length")


def test_a_run_that_is_left_gives_up_what_is_in_flight(engine: Any, vllm: Answer) -> None:
    requests = [request(n, min_new_tokens=18 if n else 0, max_new_tokens=20) for n in range(6)]
    running = engine.run(Feed(iter(requests), look_ahead=100))
    next(running)
    running.close()
    assert [done.error for done in vllm(requests)] == [None] * 6


def test_what_it_says_of_itself(engine: Any, vllm: Answer) -> None:
    shared = tuple(request(0).prompt_ids) * 16
    vllm([replace(request(n), prompt_ids=(*shared, *request(n).prompt_ids)) for n in range(12)])
    facts = engine.describe()
    assert isinstance(facts, VllmFacts)
    assert (facts.dtype, facts.devices, facts.reproducible, facts.tensor_parallel) == ("float32", ("cpu",), "fast", 1)
    assert (facts.max_context, facts.max_rows, facts.kv_budget_tokens) == (2048, 6, 4096)
    assert facts.parameters == 2_795_904
    assert facts.prompt_tokens_reused > 0


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"engine": {"reproducible": "strict"}}, "which vLLM promises on accelerators only"),
        ({"engine": {"vllm": {"args": {"kv_cache_dtyp": "fp8"}}}}, "did you mean kv_cache_dtype?"),
        ({"engine": {"vllm": {"quantization": "nonsense"}}}, "vLLM cannot run builtin:tiny-chat as the recipe asks"),
    ],
)
def test_what_cannot_be_started_is_said(sections: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", os.environ.get("VLLM_BATCH_INVARIANT", "1"))
    with pytest.raises(UsageError) as caught:
        build_engine("vllm", EngineContext(recipe_for("vllm", **sections), CODEC, Clock()))
    assert says in str(caught.value)


def job(folder: Path, **sections: Any) -> Path:
    """Chats of two turns, as MT-Bench's."""
    rows = [{"question_id": n, "turns": [QUESTIONS[n % 10] + f" {n}", "And now, in other words?"]} for n in range(40)]
    values: dict[str, Any] = {
        "name": "test",
        "model": {"name": "builtin:tiny-chat", "dtype": "float32"},
        "source": {"path": str(write_jsonl(folder / "in.jsonl", rows))},
        "generation": {"max_new_tokens": 24, "samples": 2, "temperature": 0.9},
        "engine": {"kind": "vllm", "cuda_graphs": False, "max_batch_rows": 8},
        "sink": {"directory": str(folder / "runs" / "{name}")},
    }
    for section, found in sections.items():
        values[section] = {**values.get(section, {}), **found} if isinstance(found, dict) else found
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def start(recipe: Path, *settings: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "batchchat", "run", str(recipe), *settings, "-q"]
    return subprocess.Popen(command, env=environment(), cwd=ROOT)


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}  # for our kernels only
    return {**kept, "PYTHONPATH": str(ROOT)}


def num_turns(database: Path) -> int:
    if not database.exists():
        return 0
    try:
        opened = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        return int(opened.execute("select count(*) from turns").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Its samples are requests of their own, which begin anew where they were in flight, and come out the same."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert start(job(tmp_path / "whole")).wait(300) == 0
    killed = job(tmp_path / "killed")
    process = start(killed)
    database = tmp_path / "killed/runs/test/run.sqlite"
    deadline = time.monotonic() + 300
    while num_turns(database) < 20:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = num_turns(database)
    assert 20 <= before < 160
    assert start(killed).wait(300) == 0
    report = report_of(killed, "test")
    assert (report["rows"]["answered"], report["turns"], len(report["sessions"])) == (40, 160, 2)
    assert report["engine"]["engine"] == "vllm"

    def texts(name: str) -> Any:
        rows = read_jsonl(tmp_path / name / "runs/test/outputs.jsonl")
        return [[message["content"] for message in row["messages"]] for row in rows]

    assert texts("killed") == texts("whole")


NUMBERS = """
from tests.engines.test_vllm_engine import *

recipe = recipe_for("vllm", model={"dtype": "auto"})
for kept in ({}, {"dtype": "bfloat16"}, {"dtype": "float32"}):
    before = dict(kept)
    engine = build_engine("vllm", EngineContext(recipe, CODEC, Clock(), kept=kept))
    print("found", json.dumps([before, engine.describe().dtype, kept]))
    engine.close()
"""


def test_a_run_goes_on_in_the_numbers_that_it_began_with() -> None:
    """On a machine that would choose others, too."""
    done = subprocess.run([sys.executable, "-c", NUMBERS], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    new, *resumed = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("found ")]
    assert new[2] == {"dtype": new[1]}
    assert resumed == [[{"dtype": name}, name, {"dtype": name}] for name in ("bfloat16", "float32")]


def test_a_judge_by_vllm_after_a_run_by_vllm(tmp_path: Path) -> None:
    """Two engines in one process, one after the other."""
    judge = {
        "model": {"name": "builtin:tiny-chat", "dtype": "float32"},
        "generation": {"max_new_tokens": 8},
        "engine": {"kind": "vllm", "cuda_graphs": False},
    }
    recipe = job(tmp_path, judges={"quality": judge}, source={"limit": 4})
    assert start(recipe).wait(300) == 0
    assert len(read_jsonl(tmp_path / "runs/test/outputs.jsonl")) == 8
    (judged,) = (tmp_path / "runs/test/judges").glob("*/report.json")
    report = json.loads(judged.read_text(encoding="utf-8"))
    assert (report["engine"]["engine"], report["rows"]["failed"]) == ("vllm", 0)


def test_an_adapter(tmp_path: Path, batchchat: Command) -> None:
    """Split over two workers, a LoRA adapter whose weights are not small answers as by the local engine, and otherwise
    than without."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    import torch
    from transformers import AutoModelForCausalLM

    from batchchat.models import resolve_name

    model = AutoModelForCausalLM.from_pretrained(resolve_name("builtin:tiny-chat"), dtype="float32")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    torch.manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    wrapped.save_pretrained(tmp_path / "adapter")
    recipe = job(tmp_path, generation={"temperature": 0.0, "samples": 1}, source={"limit": 10})
    adapted = f"model.adapter={tmp_path / 'adapter'}"
    assert start(recipe, "name=adapted", adapted, "engine.vllm.tensor_parallel=2").wait(300) == 0
    for name, settings in {"local": [adapted], "plain": []}.items():
        ended = batchchat("run", recipe, f"name={name}", "engine.kind=pipeline", *settings, "-q")
        assert ended.code == 0, ended.err
    found = {name: read_jsonl(tmp_path / f"runs/{name}/outputs.jsonl") for name in ("adapted", "local", "plain")}
    texts = {name: [row["messages"] for row in rows] for name, rows in found.items()}
    assert texts["adapted"] == texts["local"] != texts["plain"]
