"""What a run records of its machine: memory over time, and how much of the machine's limits it used."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from batchchat.cache import cache_file, read_cache, write_cache
from batchchat.engines.cpu.products import make
from batchchat.engines.facts import ContinuousFacts, EngineFacts, ProductFacts
from batchchat.engines.work import Work
from batchchat.reporting.limits import MachineLimits, machine_limits, measure_limits
from batchchat.reporting.report import Utilisation
from batchchat.reporting.utilisation import utilisation
from batchchat.reporting.watch import Watcher


def test_memory_is_recorded_over_time() -> None:
    with Watcher(interval=0.01) as watcher:
        time.sleep(0.05)
        block = bytearray(64 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(0.1)
    columns = watcher.recording().columns
    assert list(columns["seconds"]) == sorted(columns["seconds"])
    assert len({len(column) for column in columns.values()}) == 1
    held = [found or 0 for found in columns["host_bytes"]]
    assert max(held) - held[0] >= 60 * 2**20
    assert len(block) == 64 * 2**20


def test_the_peak_of_a_process_is_its_own() -> None:
    """Not that of the process which started it."""
    block = bytearray(256 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    code = "from batchchat.reporting.meters import host_peak_bytes; held = bytearray(b'x') * (%d << 20); "
    code += "print(host_peak_bytes() >> 20)"
    few, more = (
        int(subprocess.run([sys.executable, "-c", code % size], check=True, stdout=subprocess.PIPE).stdout)
        for size in (0, 64)
    )
    assert len(block) >> 20 == 256
    assert few < 128
    assert 60 <= more - few <= 80


def test_points_are_bounded_however_long_it_takes() -> None:
    with Watcher(interval=0.002, most=8) as watcher:
        time.sleep(0.4)
    found = watcher.recording()
    seconds = found.columns["seconds"]
    assert len(seconds) <= 9
    assert found.interval_seconds > 0.002
    assert (seconds[-1] or 0) >= 0.35


def test_what_cannot_be_recorded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchchat.reporting.watch._nvml_devices", dict)
    with Watcher() as watcher:
        pass
    assert "energy_joules" not in watcher.recording().as_dict()
    assert "batchchat[gpu]" in watcher.missing["watch.energy_joules"]


def test_limits_are_measured_once() -> None:
    first = machine_limits("float32", "cpu")
    assert first.flops_per_second > 1e8
    assert first.bytes_per_second > 1e7
    began = time.perf_counter()
    assert machine_limits("float32", "cpu") == first
    assert time.perf_counter() - began < 0.1


def test_a_narrow_number_type_is_never_a_lower_limit_on_a_processor() -> None:
    """Engines compute narrow weights in float32 where that is faster, so that rate counts for both."""
    wide, narrow = measure_limits("float32", "cpu"), measure_limits("bfloat16", "cpu")
    assert narrow.flops_per_second > 0.3 * wide.flops_per_second


def test_a_limit_is_what_the_best_product_does() -> None:
    """Which torch's own of narrow numbers is not, on many processors."""
    limits = measure_limits("bfloat16", "cpu")
    product = make("kernel", torch.randn(1536, 1536).bfloat16())
    rows = torch.randn(1, 48, 1536).bfloat16()
    with torch.inference_mode():
        product(rows)
        began = time.perf_counter()
        product(rows)
        rate = 2 * 48 * 1536 * 1536 / (time.perf_counter() - began)
    assert rate < 2 * limits.flops_per_second


def test_a_cache_that_is_broken_or_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_cache("x.json", {"a": 1})
    assert read_cache("x.json") == {"a": 1}
    cache_file("x.json").write_text("{broken", encoding="utf-8")
    assert read_cache("x.json") == {}
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    write_cache("x.json", {"a": 1})
    assert read_cache("x.json") == {}


def test_work_is_counted_by_phase() -> None:
    work = Work()
    work.add(rows=3, width=10, steps=4, prefill_seconds=0.5, decode_seconds=2.0)
    prefill, decode = work.facts().prefill, work.facts().decode
    assert (prefill.passes, prefill.token_places, prefill.outputs) == (1, 30, 3)
    assert prefill.context_tokens == 3 * sum(range(1, 11))
    assert (decode.passes, decode.token_places) == (3, 9)
    assert decode.cache_token_reads == 3 * (11 + 12 + 13)


def engine_facts(**values: object) -> EngineFacts:
    work = Work()
    work.add(rows=2, width=5, steps=3, prefill_seconds=0.5, decode_seconds=1.0)
    facts = {
        "engine": "one", "work": work.facts(), "devices": ("cpu",), "dtype": "float32", "footprint_bytes": 10**8,
        "flops_per_token": 100.0, "flops_per_output": 10.0, "flops_per_context_token": 1.0, "cache_bytes_per_token": 4,
    }  # fmt: skip
    return EngineFacts.model_validate({**facts, **values})


def some_limits(dtype: str, device: str) -> MachineLimits:
    assert (dtype, device) == ("float32", "cpu")
    return MachineLimits(flops_per_second=4400.0, bytes_per_second=8e8)


def test_use_is_work_over_time_and_its_share_of_the_limits() -> None:
    found = utilisation(engine_facts(), some_limits)
    assert isinstance(found, Utilisation)
    assert found.prefill is not None
    assert found.decode is not None
    assert found.prefill.flops_per_second == (10 * 100 + 2 * 10 + 30) / 0.5
    assert found.decode.bytes_per_second == 2 * 10**8 + 2 * (6 + 7) * 4
    assert found.prefill.share_of_flops_per_second == pytest.approx(2100 / 4400, abs=1e-4)
    assert found.prefill.above_limit is None
    two = utilisation(engine_facts(devices=("cuda:0", "cuda:1")), some_limits)
    assert isinstance(two, Utilisation)
    assert two.prefill is not None
    assert two.prefill.share_of_flops_per_second is None


def test_weights_are_read_as_they_are_held() -> None:
    """Laid out for the processor in another width."""
    product = ProductFacts(
        product="64 to 96", count=1, by="a kernel", weights="bfloat16", arithmetic="float32", held_bytes=5 * 10**7
    )
    facts = {**CONTINUOUS, **engine_facts().values(), "engine": "continuous", "products": (product,)}
    found = utilisation(ContinuousFacts.model_validate(facts), some_limits)
    assert isinstance(found, Utilisation)
    assert found.decode is not None
    assert found.decode.bytes_per_second == 2 * 5 * 10**7 + 2 * (6 + 7) * 4


def test_a_share_above_the_limit_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(dtype: str, device: str) -> MachineLimits:
        return MachineLimits(flops_per_second=2000.0, bytes_per_second=1e8)

    for cache, why in ((2 * 10**8, "fit into the processor's cache"), (10**6, "something else ran on it")):
        monkeypatch.setattr("os.sysconf", lambda _, cache=cache: cache)
        found = utilisation(engine_facts(), lower)
        assert isinstance(found, Utilisation)
        assert found.prefill is not None
        assert found.decode is not None
        assert "multiplied more slowly" in str(found.prefill.above_limit)
        assert why in str(found.decode.above_limit)


def test_shares_of_a_toy_say_nothing() -> None:
    assert "so small" in str(utilisation(engine_facts(footprint_bytes=5 * 10**6), some_limits))


CONTINUOUS = {
    "reproducible": "fast", "computed_by": "program", "max_rows": 1, "kv_budget_tokens": 1, "kv_peak_tokens": 1,
    "prompt_tokens_reused": 0, "preempted": 0, "steps_replayed": 0,
}  # fmt: skip


def test_use_that_cannot_be_told_says_why() -> None:
    def limits(dtype: str, device: str) -> MachineLimits:
        raise AssertionError("there is nothing to compare with them")

    assert "does not say what it computed" in str(utilisation(EngineFacts(engine="one"), limits))
    facts = EngineFacts(engine="one", work=Work().facts(), dtype="float32", missing={"flops_per_token": "no shape"})
    assert utilisation(facts, limits) == "no shape"
