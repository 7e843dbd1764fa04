"""What a recipe says about its input, in the words of sources and formats."""

from __future__ import annotations

from batchchat.chats.formats import ReadOptions
from batchchat.recipe import Recipe
from batchchat.sources.source import Source, open_source


def read_options(recipe: Recipe) -> ReadOptions:
    """What the recipe says about reading rows, in the words of the formats."""
    columns = recipe.source.columns.model_dump(exclude_none=True)
    return ReadOptions(
        turns=recipe.chat.turns,
        prefill=recipe.chat.prefill,
        system=recipe.chat.system,
        columns=columns,
        prompt_template=recipe.source.prompt_template,
        own=recipe.source.options_of(recipe.source.format),
    )


def open_recipe_source(recipe: Recipe) -> Source:
    """The input that a recipe names. Raises UsageError where it cannot be read at all."""
    section = recipe.source
    return open_source(
        section.path,
        split=section.split,
        subset=section.subset,
        revision=section.revision,
        streaming=section.streaming,
        options=section.options_of,
    )
