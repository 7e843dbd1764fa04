"""What `batchchat bench` measures with, on a tiny shape."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from batchchat.benchmarks.compare import table
from batchchat.benchmarks.flips import count_flips
from batchchat.benchmarks.names import NAMES, chosen
from batchchat.benchmarks.peers import PEERS
from batchchat.benchmarks.peers.gguf_file import write_gguf
from batchchat.benchmarks.shapes import SHAPES, first_layers, shape_model
from batchchat.benchmarks.worker import least_passes, least_seconds, measure
from batchchat.benchmarks.workloads import WORKLOADS, mixed, shared_prefix
from batchchat.chats import Settings
from batchchat.errors import UsageError
from batchchat.models.facts import model_facts
from batchchat.reporting.limits import MachineLimits
from tests.support.jobs import Command, write_jsonl
from tests.support.quantized import in_4_bits, in_8_bits

TINY = {
    "model_type": "llama",
    "vocab_size": 8000,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setitem(SHAPES, "layered", {**TINY, "num_hidden_layers": 4})
    monkeypatch.setitem(WORKLOADS, "few", lambda: mixed(6))


def test_the_mixed_workload_is_the_published_one() -> None:
    requests = mixed(48)
    assert sum(len(request.prompt_ids) for request in requests) == 4572
    assert sum(request.settings.max_new_tokens for request in requests) == 3514


def test_chats_under_one_system_prompt_share_it_and_no_more() -> None:
    one, other = shared_prefix(2)
    assert one.prompt_ids[:1000] == other.prompt_ids[:1000]
    assert one.prompt_ids[1000] != other.prompt_ids[1000]


def test_names_are_those_that_exist() -> None:
    from batchchat.benchmarks.contenders import CONTENDERS

    assert set(NAMES["engine"]) == {*CONTENDERS, *PEERS}
    assert set(NAMES["workload"]) == set(WORKLOADS) - {"few"}
    with pytest.raises(UsageError, match="did you mean continuous"):
        chosen("engine", "continous")


@pytest.mark.parametrize(
    "engine", ["plain", "pipeline", "pipeline-unknown", "continuous", "strict", "drafted", "transformers"]
)
def test_a_measurement_of_each_engine(engine: str) -> None:
    job = {
        "engine": engine,
        "model": "layered" if engine == "drafted" else "tiny",
        "dtype": "float32",
        "rows": 4,
        "workload": "few",
    }
    found = measure(job)
    assert json.loads(json.dumps(found)) == found
    assert found["generated_tokens"] == sum(request.settings.max_new_tokens for request in mixed(6))
    assert 0 < found["to_first_completion"] <= found["seconds"]
    assert 0 < found["least_seconds"] < found["seconds"]


def test_the_least_time_is_that_of_multiplying_or_of_reading() -> None:
    model = shape_model("tiny", "float32")
    per_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32
    wanted = 2 * (15 * (per_layer + 32) + 5 * 8000 * 32)
    slow = MachineLimits(flops_per_second=1.0, bytes_per_second=1e9)
    fast = MachineLimits(flops_per_second=1e12, bytes_per_second=1.0)
    facts = model_facts(model)
    assert least_seconds(facts, 10, 5, 3, slow) == wanted
    read = 3 * 4 * (per_layer + 32 + 8000 * 32)
    assert least_seconds(facts, 10, 5, 3, fast) == pytest.approx(read, rel=1e-3), "but for its few buffers"
    for layer in model.model.layers:
        layer.mlp.down_proj = in_4_bits(layer.mlp.down_proj)
        layer.mlp.up_proj = in_8_bits(layer.mlp.up_proj)
    packed = model_facts(model)
    assert least_seconds(packed, 10, 5, 3, slow) == wanted
    assert least_seconds(packed, 10, 5, 3, fast) < least_seconds(facts, 10, 5, 3, fast)


def test_every_pass_gives_each_row_a_token_at_most() -> None:
    lengths = [one.settings.max_new_tokens or 0 for one in mixed(48)]
    assert least_passes(mixed(48), 48) == max(lengths)
    assert least_passes(mixed(48), 2) == -(-sum(lengths) // 2)


def test_the_table_names_every_engine() -> None:
    result = {
        "seconds": 2.0,
        "tokens_per_second": 50.0,
        "to_first_completion": 0.5,
        "process_to_first_completion": 5.0,
        "host_peak_bytes": 2_000_000_000,
        "share_of_limit": 0.25,
        "requests": 4,
        "prompt_tokens": 10,
        "generated_tokens": 100,
        "flops_per_second": 3e11,
        "bytes_per_second": 2e10,
        "dtype": "bfloat16",
    }
    text = table([{**result, "engine": "pipeline", "ratio": 1.0}, {**result, "engine": "continuous", "ratio": 5.1}])
    assert "| continuous | 2.0 | 50 | 5.10 | 0.5 | 5.0 | 2.0 GB | 25% |" in text
    assert "300 GFLOP/s in bfloat16" in text
    told = {"version": "0.1", "numbers": "q8_0 weights, f16 cache"}
    peers = table([{**result, "engine": "llama.cpp-q8", "ratio": 1.0, "facts": told}])
    assert peers.endswith("\n\nllama.cpp-q8 0.1: q8_0 weights, f16 cache.")


def test_flips_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "two", lambda: [r for r in mixed(2) if r.settings != Settings(0)])
    counted = count_flips("tiny", "float32", "two", 2)
    assert counted["answers"] == 2
    assert counted["flipped"] == len(counted["first_differences"])


def test_engines_are_measured_in_processes_of_their_own(batchchat: Command) -> None:
    ended = batchchat("bench", "--model", "builtin:tiny-chat", "--engines", "plain,continuous", "--workload", "four")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[:4] if "---" not in line] == ["engine", "plain", "continuous"]
    assert "GFLOP/s in bfloat16" in lines[-1]


def test_a_recipes_own_chats(tmp_path: Path, batchchat: Command) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": f"What is {n} + 4?"} for n in range(9)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {{dtype: bfloat16}}\nsource: {{path: {source}}}\n", encoding="utf-8")
    ended = batchchat("bench", recipe, "--engines", "pipeline,continuous", "--limit", "5", "--json")
    assert ended.code == 0, ended.err
    results = json.loads(ended.out)
    assert [one["run"] for one in results] == ["pipeline", "continuous"]
    assert [one["report"]["engine"]["engine"] for one in results] == ["pipeline", "continuous"]
    assert {one["report"]["rows"]["answered"] for one in results} == {5}
    assert results[0]["ratio"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "recipe.yaml"]
    ways = ["--with", "model.dtype=float32 generation.max_new_tokens=4"]
    table = batchchat("bench", recipe, "--limit", "2", *ways)
    assert table.code == 0, table.err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.out.splitlines()]
    assert [row[0] for row in rows[2:]] == ["as it is", ways[1]]
    sizes = [float(row[7].removesuffix(" MB")) for row in rows[2:]]
    assert sizes[0] < sizes[1]
    wrong = batchchat("bench", recipe, "--engines", "plain")
    assert wrong.code == 2
    assert "pipeline, continuous, strict" in wrong.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engines", "vllm,continuous"], "give --peer vllm=DIR/bin/python"),
        (["--engines", "openvino"], "optimum-intel"),
        (["--engines", "llama.cpp-q8"], "give --peer llama.cpp=DIR/bin/python or llama.cpp=build/bin/llama-server"),
        (["--engines", "vllm", "--peer", "vllm=/no/such/python"], "/no/such/python cannot be run"),
        (["--engines", "vllm", "--peer", "vllm"], "has to be NAME=PATH"),
        (["--engines", "vllm", "--peer", "sglang=python3"], "llama.cpp, openvino, vllm"),
        (["--engines", "vllm", "--peer", "vllm=python3", "--workload", "two-turns"], "single turns"),
    ],
)
def test_a_peer_that_cannot_be_measured_is_told_before_anything_is(
    given: list[str], said: str, batchchat: Command
) -> None:
    ended = batchchat("bench", "--model", "builtin:tiny-chat", "--workload", "four", *given)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_a_peer_that_fails_says_its_last_words(batchchat: Command) -> None:
    ended = batchchat(
        *("bench", "--model", "tiny", "--engines", "vllm", "--workload", "four", "--peer", f"vllm={sys.executable}")
    )
    assert ended.code == 5
    assert "the measurement of vllm ended with 1 (ModuleNotFoundError: No module named 'vllm')" in ended.err


def test_a_peer_that_fails_takes_no_figure_of_the_others_along(batchchat: Command) -> None:
    given = ("bench", "--model", "tiny", "--engines", "vllm,continuous", "--workload", "four", "--rounds", "2")
    ended = batchchat(*given, "--peer", f"vllm={sys.executable}", "--json")
    measured, failed = json.loads(ended.out)
    assert (ended.code, measured["engine"], measured["ratio"]) == (5, "continuous", 1.0)
    assert failed["engine"] == "vllm"
    assert failed["failed"] in ended.err.splitlines()
    assert "vllm was not measured: the measurement of vllm ended with 1" in table([measured, failed])


@pytest.mark.parametrize(("engine", "asked"), [("vllm", "vllm.json"), ("openvino", "openvino.json prepare")])
def test_only_a_peer_that_reads_another_form_of_the_model_is_asked_to_make_it(
    engine: str, asked: str, tmp_path: Path, batchchat: Command
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit 3\n')
    python.chmod(0o755)
    batchchat("bench", "--model", "tiny", "--engines", engine, "--workload", "four", "--peer", f"{engine}={python}")
    assert (tmp_path / "asked").read_text().rstrip().endswith(f"/{asked}")
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_the_first_layers_of_the_guessable_shape_are_those_of_the_model() -> None:
    model = shape_model("layered", "float32")
    draft = first_layers(model)
    assert draft.config.num_hidden_layers == 3
    assert torch.equal(draft.model.layers[2].mlp.up_proj.weight, model.model.layers[2].mlp.up_proj.weight)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_the_model_that_llama_cpp_reads_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As transformers reads it back: the order of queries and keys, norms, biases, tied embeddings."""
    from transformers import AutoModelForCausalLM

    width = 128 if kind == "qwen3" else 8  # the only width of heads that transformers reads of a Qwen3
    monkeypatch.setitem(SHAPES, "other", {**TINY, "model_type": kind, "num_hidden_layers": 2, "head_dim": width})
    model = shape_model("other", "float32")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_gguf(model, tmp_path / "model.gguf", "float32")
    back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    ids = torch.arange(300, 330)[None]
    with torch.inference_mode():
        torch.testing.assert_close(back(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_models_whose_layout_llama_cpp_would_not_know_are_refused(tmp_path: Path) -> None:
    model = shape_model("tiny", "float32")
    model.config.model_type = "gemma2"
    with pytest.raises(UsageError, match="llama, qwen2, qwen3, not gemma2"):
        write_gguf(model, tmp_path / "model.gguf", "q8_0")
