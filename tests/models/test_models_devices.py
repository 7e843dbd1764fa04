"""Devices that cannot be used, and what is said of those that can."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from batchchat.engines import EngineContext
from batchchat.engines import loading as engines_loading
from batchchat.errors import EnvironmentFault
from batchchat.models import devices, loading
from batchchat.models.devices import Device, remarks
from batchchat.models.names import explained
from batchchat.recipe import Recipe
from tests.support.requests import CODEC
from tests.support.zoo import Clock, llama

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version."
)
MESSAGES = [
    ("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors …", "taken by another process"),
    (OLD_DRIVER, "update the driver"),
    ("CUDA driver version is insufficient for CUDA runtime version", "update the driver"),
    ("CUDA error: no kernel image is available for execution on the device", "not built for this kind of device"),
    ("CUDA error: invalid device ordinal", "set model.device_map=auto"),
    ("CUDA error: an illegal memory access was encountered", "the device fails (CUDA error: an illegal memory access"),
]


@pytest.mark.parametrize(("words", "sentence"), MESSAGES)
def test_what_cuda_says_becomes_a_sentence_with_what_to_do(words: str, sentence: str) -> None:
    with pytest.raises(EnvironmentFault) as caught, explained("the-model"):
        raise RuntimeError(words)
    assert str(caught.value).startswith("the model the-model cannot be loaded: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def cuda_that(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """A torch built for CUDA whose first use of it raises these words."""

    def init() -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)


def devices_of(device_map: str) -> Any:
    section = {"name": "m", "device_map": device_map}
    recipe = Recipe.model_validate({"model": section, "source": {"path": "-"}})
    return loading.place_of(recipe.model)


def test_a_device_that_cannot_be_used_is_not_passed_over_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_that(monkeypatch, OLD_DRIVER)
    for device_map in ("auto", "cuda:0"):
        with pytest.raises(EnvironmentFault, match=r"update the driver.*model\.device_map=cpu"):
            devices_of(device_map)
    assert devices_of("cpu") == "cpu"
    cuda_that(monkeypatch, "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized")
    with pytest.raises(EnvironmentFault, match=r"Error 802: system not yet initialized.*model\.device_map=cpu"):
        devices_of("auto")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
@pytest.mark.parametrize(
    "words", ["Found no NVIDIA driver on your system. Please check that you have …", "No CUDA GPUs are available"]
)
def test_a_machine_without_a_device_computes_on_the_cpu(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_that(monkeypatch, words)
    assert devices_of("auto") is None


class Placed:
    """A model that lies on devices that are not there."""

    def __init__(self, dtype: torch.dtype, *places: int):
        self.dtype = dtype
        self._places = places

    def parameters(self) -> Any:
        for place in self._places:
            parameter = type("Parameter", (), {"device": torch.device("cuda", place)})
            yield parameter()


KINDS = [Device("Tesla T4", (7, 5)), Device("NVIDIA A100", (8, 0)), Device("NVIDIA A100", (8, 0))]


@pytest.mark.parametrize(
    ("dtype", "places", "said"),
    [
        (torch.bfloat16, (1, 2), []),
        (torch.float16, (0,), []),
        (torch.bfloat16, (0,), ["slow_dtype"]),
        (torch.bfloat16, (0, 1), ["slow_dtype", "unlike_devices"]),
        (torch.float16, (0, 2), ["unlike_devices"]),
    ],
)
def test_remarks(dtype: torch.dtype, places: tuple[int, ...], said: list[str]) -> None:
    found = dict(remarks(Placed(dtype, *places), lambda place: KINDS[place.index or 0]))
    assert list(found) == said
    if "slow_dtype" in found:
        assert "Tesla T4 has no units for bfloat16" in found["slow_dtype"]
        assert "model.dtype=float16" in found["slow_dtype"]
    if "unlike_devices" in found:
        assert "NVIDIA A100 and Tesla T4" in found["unlike_devices"]


def test_the_report_hears_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(llama(layers=1))
    monkeypatch.setattr(engines_loading, "load_model", lambda section, *_: model)
    monkeypatch.setattr(engines_loading, "remarks", lambda model: iter([("slow_dtype", "a sentence")]))
    recipe = Recipe.model_validate({"model": {"name": "m"}, "source": {"path": "-"}})
    clock = Clock()
    assert engines_loading.load(EngineContext(recipe, CODEC, clock)) is model
    assert clock.events == [("slow_dtype", "a sentence")]
    assert not list(devices.remarks(model)), "a model on the CPU"
