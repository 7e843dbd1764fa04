"""A model with short lengths has the weights of the model itself, and does early what that does late."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from batchchat.models.shortened import SHORT, longest_length, rope_threshold, shortened
from tests.support.architectures import ARCHITECTURES, OF_OTHER_KINDS, VOCABULARY
from tests.support.zoo import llama


def named(name: str) -> Any:
    return next(a for a in (*ARCHITECTURES, *OF_OTHER_KINDS) if a.name.startswith(name)).model()


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("mistral", {"sliding_window": 50}),
        ("ministral3", {"original_max_position_embeddings": 64}),
        ("llama4", {"attention_chunk_size": 128, "floor_scale": 64}),
        ("phi3, longrope", {"original_max_position_embeddings": 64}),
        ("llama, dynamic", {"max_position_embeddings": 64}),
        ("minimax", {"block_size": 256}),
        ("gemma4", {"sliding_window": 50}),
    ],
)
def test_all_lengths_are_short_and_all_weights_are_the_models_own(name: str, lengths: dict[str, int]) -> None:
    model = named(name)
    before = model.config.to_dict()
    short = shortened(model)
    assert short is not None
    assert short.lengths.items() >= lengths.items()
    own = dict(model.named_parameters())
    assert {key: one.data_ptr() for key, one in short.model.named_parameters()} == {
        key: one.data_ptr() for key, one in own.items()
    }
    assert model.config.to_dict() == before
    ids = torch.arange(5, 5 + 3 * SHORT)[None] % VOCABULARY
    with torch.inference_mode():
        ours, theirs = (one(ids, use_cache=False).logits[0] for one in (short.model, model))
    if name in ("mistral", "llama4", "gemma4"):
        torch.testing.assert_close(ours[: SHORT - 1], theirs[: SHORT - 1])
    if name != "minimax":  # its blocks are only a way to compute
        assert float((ours[-1] - theirs[-1]).abs().max()) > 1e-3


def test_a_model_without_lengths_has_no_such_copy() -> None:
    assert shortened(llama()) is None
    assert longest_length(llama().config) == 256


def test_a_length_that_shapes_weights_cannot_be_short() -> None:
    model = named("mistral")
    window = model.config.sliding_window
    kind = type(model)

    class Shaped(kind):  # type: ignore[misc,valid-type]
        def __init__(self, config: Any):
            super().__init__(config)
            self.register_parameter("bias_of_places", torch.nn.Parameter(torch.zeros(config.sliding_window)))

    with pytest.raises(ValueError, match="shapes its weights"):
        shortened(Shaped(model.config))
    assert model.config.sliding_window == window


@pytest.mark.parametrize(
    ("name", "threshold"), [("phi3, longrope", 64), ("llama, dynamic", 64), ("llama, yarn", None), ("gemma4", None)]
)
def test_which_rotary_embeddings_change(name: str, threshold: int | None) -> None:
    assert rope_threshold(named(name).config) == threshold
