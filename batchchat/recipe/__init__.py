"""The recipe: one strict YAML file that is the whole job."""

from batchchat.recipe.chat import ChatSection
from batchchat.recipe.engine import EngineSection
from batchchat.recipe.flags import freeze_flags, thaw_flags
from batchchat.recipe.generation import GenerationSection
from batchchat.recipe.identity import recipe_difference
from batchchat.recipe.json_schema import recipe_json_schema
from batchchat.recipe.loading import load_recipe, recipe_from_mapping
from batchchat.recipe.mistakes import Mistake, RecipeError
from batchchat.recipe.model import ModelSection
from batchchat.recipe.schema import JudgeSection, Recipe, SimulateSection
from batchchat.recipe.section import MAY_CHANGE, Section
from batchchat.recipe.sink import SinkSection
from batchchat.recipe.source import SourceSection

__all__ = [
    "MAY_CHANGE",
    "ChatSection",
    "EngineSection",
    "GenerationSection",
    "JudgeSection",
    "Mistake",
    "ModelSection",
    "Recipe",
    "RecipeError",
    "Section",
    "SimulateSection",
    "SinkSection",
    "SourceSection",
    "freeze_flags",
    "load_recipe",
    "recipe_difference",
    "recipe_from_mapping",
    "recipe_json_schema",
    "thaw_flags",
]
