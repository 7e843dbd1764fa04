"""Shapes that are found out once: see `models/kept_shapes.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchchat.cache import cache_file
from batchchat.models import kept_shapes
from batchchat.models.shape import empty_like, shape_of
from tests.support.architectures import ARCHITECTURES


@pytest.fixture
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("name", ["llama", "gemma2, window 50", "qwen3_moe", "deepseek_v3"])
def test_a_kept_shape_is_the_one_that_was_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(one for one in ARCHITECTURES if one.name == name).model()
    wanted = shape_of(empty_like(model))
    assert kept_shapes.shape_like(model) == wanted
    monkeypatch.setattr(kept_shapes, "empty_like", None)
    assert kept_shapes.shape_like(model) == wanted


@pytest.mark.usefixtures("_kept")
def test_another_config_has_another_shape() -> None:
    model = ARCHITECTURES[0].model()
    before = kept_shapes.shape_like(model)
    model.config.vocab_size *= 2
    assert kept_shapes.shape_like(model).vocabulary == 2 * before.vocabulary


@pytest.mark.usefixtures("_kept")
def test_what_is_broken_is_found_anew_and_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ARCHITECTURES[0].model()
    wanted = kept_shapes.shape_like(model)
    file = cache_file("shapes.json")
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({**{f"old {n}": {} for n in range(200)}, key: {"parameters": "many"}}))
    assert kept_shapes.shape_like(model) == wanted
    kept = json.loads(file.read_text())
    assert len(kept) == kept_shapes._MOST
    assert kept[key]["parameters"] == wanted.parameters


@pytest.mark.usefixtures("_kept")
def test_code_that_is_not_of_transformers_is_not_kept() -> None:
    model = ARCHITECTURES[0].model()

    class Own(type(model)):  # type: ignore[misc]
        """Code that may change."""

    model.__class__ = Own
    assert kept_shapes.shape_like(model) == shape_of(empty_like(model))
    assert not cache_file("shapes.json").exists()
