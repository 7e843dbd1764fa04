"""The small model that drafts for a large one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from batchchat.errors import UsageError
from batchchat.models.loading import load_model
from batchchat.models.shape import has_experts
from batchchat.models.text import load_tokenizer
from batchchat.recipe.model import FROM_THE_CHAT, Draft, ModelSection


def load_draft(section: ModelSection, model: Any, tokenizer: Any, widened: Collection[str] = ()) -> Any | None:
    """The model of `model.draft`, or None where the chat itself drafts.

    `model` and `tokenizer` are those that it drafts for; `widened`: see `computing_dtype`. Raises UsageError where the
    two do not go together, and what `load_model` raises.
    """
    draft = section.draft
    assert draft is not None, "the recipe has a draft"
    if has_experts(model.config) and not draft.force:
        raise UsageError(
            f"{section.name} is a mixture of experts: each drafted token passes through experts of its own, so that "
            "verifying costs more than it gains; leave model.draft out, or set model.draft.force=true"
        )
    if draft.name == FROM_THE_CHAT:
        return None
    own = draft_section(section, draft)
    _require_same_vocabulary(section.name, draft.name, tokenizer, load_tokenizer(own))
    return load_model(own, widened)


def draft_section(section: ModelSection, draft: Draft) -> ModelSection:
    """The draft as a model section: fetched from the same places as the large model, loaded in its own way."""
    return ModelSection(
        name=draft.name,
        dtype=draft.dtype,
        revision=draft.revision,
        device_map=section.device_map if isinstance(section.device_map, str) else "auto",
        trust_remote_code=section.trust_remote_code,
        local_files_only=section.local_files_only,
        endpoint=section.endpoint,
        cache_dir=section.cache_dir,
    )


def _require_same_vocabulary(name: str, draft: str, tokenizer: Any, other: Any) -> None:
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    different = sum(theirs.get(token) != number for token, number in ours.items())
    if different:
        raise UsageError(
            f"the draft {draft} has another vocabulary than {name} ({different} of {len(ours)} tokens differ), so its "
            "tokens mean nothing to it; set model.draft.name to a smaller model of the same family"
        )
