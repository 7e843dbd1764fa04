"""Who attends over pages: what fails in its trial is not taken, and the report says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from batchchat.engines import EngineContext, build_engine
from batchchat.engines.base import EngineConfig
from batchchat.engines.continuous.admission import self_check
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.paged import trial
from batchchat.engines.continuous.paged.backends import BACKENDS, tried
from batchchat.engines.continuous.passes import recorded_forms
from batchchat.engines.cuda.backend import LayerKind
from batchchat.recipe import Recipe
from batchchat.schedule import Feed
from tests.support import backends
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.pages import CPU, TRITON
from tests.support.recording import Replays
from tests.support.requests import CODEC, mixed, prompt
from tests.support.zoo import Clock, llama, request


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(BACKENDS, "cpu", "tests.support.backends")
    backends.offered.clear()
    tried.cache_clear()
    yield
    tried.cache_clear()


REASONS = {
    "missing": r"No module named 'triton'",
    "not compiled": r"It raised RuntimeError: ptxas fatal : Unsupported \.version\.",
    "wrong numbers": r"Its numbers differ from those of torch's operators by 0\.2, where rounding explains 0\.005\.",
    "no numbers": r"differ from those of torch's operators by nan",
    "wrong places": r"It writes other keys and values",
}


def test_what_fails_is_not_taken_and_the_answers_are_right() -> None:
    requests = [request(n, prompt(n, 30 * n + 1), max_new_tokens=3) for n in range(4)]
    found = []
    for offered in ([], list(REASONS)):
        backends.offered[:] = offered
        tried.cache_clear()
        engine = continuous(llama(layers=2), Clock(), max_rows=4, max_tokens=512, cache="paged")
        found.append({done.request.index: done.token_ids for done in engine.run(Feed(iter(requests), look_ahead=9))})
        facts = engine.describe().pages
        assert facts is not None
        assert facts.by == ("gathered",)
        assert list(facts.not_by) == offered
        for name in offered:
            assert re.search(REASONS[name], facts.not_by[name]), facts.not_by[name]
    assert found[0] == found[1]


def test_the_first_one_that_is_right_is_taken() -> None:
    backends.offered[:] = ["missing", "right", "wrong numbers"]
    engine = continuous(llama(layers=2), Clock(), max_rows=2, max_tokens=512, cache="paged", record=Replays())
    facts = engine.describe()
    assert facts.pages is not None
    assert (facts.pages.by, list(facts.pages.not_by)) == (("right",), ["missing"])
    assert facts.steps_recorded == len(recorded_forms(EngineConfig(max_rows=2)))


def test_a_fallback_is_an_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends.offered[:] = ["not compiled"]
    monkeypatch.setattr(self_check, "make_cache", lambda kind, *budget: make_cache("paged", *budget))
    llama(layers=2).save_pretrained(tmp_path)
    recipe = Recipe.model_validate({"model": {"name": str(tmp_path), "dtype": "float32"}, "source": {"path": "-"}})
    clock = Clock()
    engine = build_engine("continuous", EngineContext(recipe, CODEC, clock))
    list(engine.run(Feed(iter(mixed()[:4]), look_ahead=9)))
    engine.close()
    told = [detail for name, detail in clock.events if name == "attention_fallback"]
    assert len(told) == 1
    assert told[0].startswith("not compiled does not attend over the pages: It raised RuntimeError: ptxas")


@pytest.mark.parametrize("attention", [TRITON])
def test_the_kernels_pass_the_trial(attention: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shorter rows, as the interpreter is slow."""
    monkeypatch.setattr(trial, "_LENGTHS", (1, 40))
    assert trial.fault(attention, LayerKind(2, 1, 32, 16, 16, torch.float32, CPU, sinks=True)) is None


def test_layers_of_several_kinds_are_tried_each() -> None:
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == "gpt_oss, window 50").model()
    backends.offered[:] = ["right"]
    engine = continuous(model, Clock(), max_rows=2, max_tokens=512, cache="paged")
    list(engine.run(Feed(iter([request(0, prompt(0, 70), max_new_tokens=3)]), look_ahead=9)))
    facts = engine.describe().pages
    assert facts is not None
    assert facts.by == ("right",)
