"""Giving a model of the common form (`form`) a program, if that computes what the model's modules compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.base import KVStore
from batchchat.engines.continuous.form import DecoderForm, OtherFormError, form_of
from batchchat.engines.continuous.model_runner import NO_PROGRAM, PROGRAMS, Lowered, ModelRunner
from batchchat.models.shortened import longest_length

NewCache = Callable[[], KVStore[Any]]
MakeProgram = Callable[[DecoderForm, dict[int, AttentionSpec]], Lowered]
"""From a model's parts, and how each layer scores its keys. May raise anything for a model of another form."""
Agree = Callable[[torch.Tensor, torch.Tensor], bool]
"""Whether logits are those of the modules."""

_TAKES = ((20, 7), (1, 1), (3, 1), (0, 2))
"""How many tokens of each of two prompts the passes of the trial take."""
_LEAST = 5
"""Places of a pass: some are padding."""


def adopt(model: Any, make: MakeProgram, new_cache: NewCache, agree: Agree) -> Callable[[], None]:
    """Give a prepared model its program where it is right near the first positions and beyond the longest length.
    Returns what undoes it. `NO_PROGRAM` says why where it is not."""
    reason = None
    try:
        form = form_of(model)
        wanted, scorings = _trial(model, new_cache(), by_modules=True)
        PROGRAMS[model] = make(form, scorings)
        if not agree(_trial(model, new_cache())[0], wanted):
            reason = "its logits were not those of the model's modules"
    except torch.OutOfMemoryError:
        PROGRAMS.pop(model, None)
        raise
    except OtherFormError as error:
        reason = str(error)
    except Exception as error:  # a model of any other form may fail in any way; it is computed by its modules
        reason = f"it raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason is not None:
        PROGRAMS.pop(model, None)
        NO_PROGRAM[model] = reason

    def undo() -> None:
        PROGRAMS.pop(model, None)
        NO_PROGRAM.pop(model, None)

    return undo


def _trial(model: Any, cache: KVStore[Any], by_modules: bool = False) -> tuple[torch.Tensor, dict[int, AttentionSpec]]:
    """Logits `[tokens, vocabulary]` of two prompts, of which one begins at position 0 and one beyond the longest
    length, and how each layer scores its keys."""
    runner = ModelRunner(model, cache, by_modules=by_modules)
    tokens = probe.prompts(
        model.config.get_text_config().vocab_size, [sum(counts) for counts in zip(*_TAKES, strict=True)]
    )
    offsets = (0, 1 + longest_length(model.config))
    return torch.cat(probe.logits(runner, _TAKES, tokens, least=_LEAST, offsets=offsets)), runner.scorings
