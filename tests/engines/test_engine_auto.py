"""Which engine a recipe gets, and that it says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchchat.engines import EngineContext, build_engine, continuous
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.prompts import TokenizerCodec
from batchchat.recipe import Recipe
from tests.support.architectures import ARCHITECTURES
from tests.support.zoo import Clock, byte_bpe, llama


def context(folder: Path, clock: Clock, generation: dict[str, object] | None = None, **engine: object) -> EngineContext:
    recipe = Recipe.model_validate(
        {
            "model": {"name": str(folder), "dtype": "float32"},
            "source": {"path": "-"},
            "generation": generation or {},
            "engine": engine,
        }
    )
    return EngineContext(recipe, TokenizerCodec(byte_bpe()), clock)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    llama().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("biased")
    next(a for a in ARCHITECTURES if a.name.startswith("bloom")).model().save_pretrained(folder)
    return folder


def test_a_model_that_passes_is_run_in_flight(dense: Path) -> None:
    clock = Clock()
    engine = build_engine("auto", context(dense, clock, kind="auto", reproducible="strict"))
    assert engine.describe().engine == "continuous"
    assert engine.describe().reproducible == "strict"
    assert [name for name, _ in clock.events] == ["self_check"]


def test_a_model_that_cannot_gets_the_pipeline_and_the_report_says_why(biased: Path) -> None:
    clock = Clock()
    assert build_engine("auto", context(biased, clock)).describe().engine == "pipeline"
    assert [(name, "attention function cannot be replaced" in detail) for name, detail in clock.events] == [
        ("fallback", True)
    ]


def test_a_flag_that_it_does_not_know_takes_the_pipeline(dense: Path) -> None:
    clock = Clock()
    assert build_engine("auto", context(dense, clock, {"num_beams": 2})).describe().engine == "pipeline"
    assert "num_beams" in clock.events[0][1]


def test_what_was_asked_for_by_name_does_not_fall_back(biased: Path) -> None:
    with pytest.raises(UsageError, match=r"engine\.kind=pipeline"):
        build_engine("continuous", context(biased, Clock()))
    with pytest.raises(UsageError, match=r"engine\.reproducible=fast"):
        build_engine("auto", context(biased, Clock(), reproducible="strict"))


def test_a_flag_in_the_models_own_file_takes_the_pipeline_and_one_that_is_off_does_not(
    dense: Path, tmp_path: Path
) -> None:
    shutil.copytree(dense, tmp_path / "own")
    (tmp_path / "own" / "generation_config.json").write_text('{"no_repeat_ngram_size": 3, "eos_token_id": 1}')
    clock = Clock()
    engine = build_engine("auto", context(tmp_path / "own", clock))
    assert engine.describe().engine == "pipeline"
    assert "no_repeat_ngram_size, which the model's own file sets" in clock.events[0][1]
    with pytest.raises(UsageError, match="no_repeat_ngram_size"):
        build_engine("continuous", context(tmp_path / "own", Clock()))
    for off in ({"no_repeat_ngram_size": 0}, {"model_defaults": False}):
        assert build_engine("auto", context(tmp_path / "own", Clock(), off)).describe().engine == "continuous"
    for idle in ({"num_beams": 1}, {"length_penalty": 2.0}, {"typical_p": 0.5}, {"use_cache": True}):
        assert build_engine("auto", context(dense, Clock(), idle)).describe().engine == "continuous"
    sampled = {"typical_p": 0.5, "temperature": 1.0}
    assert build_engine("auto", context(dense, Clock(), sampled)).describe().engine == "pipeline"


@pytest.mark.parametrize("when", ["self_check", "ContinuousEngine"])
def test_an_engine_that_cannot_be_built_leaves_the_model_as_it_was(
    when: str, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here for want of memory, which is known only once the model is prepared."""
    undone = [0]

    def prepare(model: Any, *_: Any) -> Callable[[], None]:
        def undo() -> None:
            undone[0] += 1

        return undo

    def full(*_: Any, **__: Any) -> Any:
        raise EnvironmentFault("0.00 GB are free")

    monkeypatch.setattr(continuous, "prepare", prepare)
    monkeypatch.setattr(continuous, when, full)
    with pytest.raises(EnvironmentFault, match=r"0\.00 GB"):
        build_engine("auto", context(dense, Clock()))
    assert undone == [1]


def test_what_a_draft_model_changed_is_undone_too(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(dense, tmp_path / "small")
    byte_bpe().save_pretrained(tmp_path / "small")
    prepared, undone = [0], [0]

    def prepare(model: Any, *_: Any) -> Callable[[], None]:
        prepared[0] += 1

        def undo() -> None:
            undone[0] += 1

        return undo

    monkeypatch.setattr(continuous, "prepare", prepare)
    asked = context(dense, Clock())
    draft = asked.recipe.model.model_validate(
        {**asked.recipe.model.model_dump(), "draft": {"name": str(tmp_path / "small")}}
    )
    engine = build_engine("auto", replace(asked, recipe=asked.recipe.model_copy(update={"model": draft})))
    assert (prepared, undone) == ([2], [0])
    engine.close()
    assert undone == [2]
