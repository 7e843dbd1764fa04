"""A pipeline: recipes that feed each other, in one YAML file that is checked as a whole before anything happens."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError

from batchchat.errors import UsageError
from batchchat.recipe.json_schema import WithoutFieldTitles, recipe_json_schema
from batchchat.recipe.loading import read_located
from batchchat.recipe.located import Located, Origin
from batchchat.recipe.located import Path as Place
from batchchat.recipe.mistakes import Mistake, RecipeError, dotted
from batchchat.recipe.overrides import apply_overrides
from batchchat.recipe.schema import FOLDER_NAME, Recipe
from batchchat.recipe.section import Section, Text, Texts
from batchchat.recipe.validation import validate

StepName = Annotated[str, Field(pattern=FOLDER_NAME, max_length=60)]
Form = Literal["rows", "table", "messages", "prompt-completion"]


class StepSection(Section):
    """A step: a recipe, and what it reads."""

    recipe: Text | Mapping[str, JsonValue] = Field(
        description="A recipe's file, or its sections themselves. Its name and folder are the step's."
    )
    reads: Texts = Field(
        default=(),
        description="The steps whose kept answers it reads; empty is the step before, and for the first one what its "
        "recipe names.",
    )
    form: Form = Field(
        default="rows",
        description="How answers are handed to it: rows as in kept.jsonl; a table with question and answer, for "
        "source.prompt_template; messages alone; or prompt-completion.",
    )
    kind: Literal["run", "score"] = Field(
        default="run",
        description="run writes answers; score takes those that it reads, and only scores, judges and keeps.",
    )


class PipelineSection(Section):
    """The whole pipeline."""

    name: StepName = Field(default="pipeline", description="The pipeline's name, and its folder's.")
    directory: Text = Field(
        default="runs/{name}", description="Where it lies; each step has a run directory of its name in it."
    )
    shared: Mapping[str, JsonValue] = Field(
        default={}, description="Sections that all recipes have which are written here and not in files."
    )
    steps: Annotated[Mapping[StepName, StepSection], Field(min_length=1)] = Field(
        description="The steps by name, in their order."
    )


@dataclass(frozen=True)
class Step:
    """A step whose recipe is checked. `reads` are earlier steps; none for one that reads what its recipe names."""

    name: str
    kind: Literal["run", "score"]
    recipe: Recipe
    reads: tuple[str, ...]
    form: Form


@dataclass(frozen=True)
class Pipeline:
    """The steps in their order."""

    name: str
    directory: Path
    steps: tuple[Step, ...]


def load_pipeline(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """The pipeline in a YAML file, with overrides `STEP.section.setting=value` and `name=value` laid over it.

    Raises RecipeError with what is wrong with the first step that is wrong, UsageError where a file cannot be read.
    """
    located = read_located(path)
    if not isinstance(located.data, dict):
        raise UsageError(f"{path} is no pipeline; it has a mapping `steps:`, each with a recipe")
    own = [one for one in overrides if one.partition("=")[0] in ("name", "directory")]
    apply_overrides(located, own)
    try:
        section = PipelineSection.model_validate(located.data)
    except ValidationError as error:
        raise RecipeError([*located.mistakes, *_mistakes(error, located)]) from error
    if located.mistakes:
        raise RecipeError(located.mistakes)
    directory = Path(section.directory.replace("{name}", section.name)).expanduser()
    steps: list[Step] = []
    for name, step in section.steps.items():
        unknown = [read for read in step.reads if read not in [one.name for one in steps]]
        if unknown:
            raise _mistake(located, ("steps", name, "reads"), f"reads {unknown[0]}, which is no step before it")
        reads = step.reads or tuple(one.name for one in steps[-1:])
        if step.kind == "score" and not reads:
            raise _mistake(located, ("steps", name, "kind"), "is score, but there is no step before it to score")
        mine = [one.removeprefix(f"{name}.") for one in overrides if one.startswith(f"{name}.")]
        files = [str(directory / read / handed_file(step.form)) for read in reads]
        steps.append(Step(name, step.kind, _recipe(located, section, name, files, mine, directory), reads, step.form))
    known = ("name", "directory", *(f"{step.name}." for step in steps))
    for override in overrides:
        if not override.startswith(known):
            raise UsageError(f"override '{override}': begin it with a step: {steps[0].name}.section.setting=value")
    return Pipeline(section.name, directory, tuple(steps))


def pipeline_json_schema(*, added: bool = True) -> dict[str, Any]:
    """The schema that editors check pipelines with (draft 2020-12): recipes within it by that of recipes, of which
    `shared` and what a step reads may hold any part. `added` as in `recipe_json_schema`."""
    recipe = recipe_json_schema(added=added)
    schema = PipelineSection.model_json_schema(schema_generator=WithoutFieldTitles)
    defs = {**recipe.pop("$defs"), **schema.pop("$defs")}
    head = {"$schema": recipe.pop("$schema"), "$id": "pipeline.schema.json", "title": "batchchat pipeline"}
    defs["Recipe"] = {key: value for key, value in recipe.items() if key not in ("$id", "title", "required")}
    for node in recipe["properties"].values():
        defs.get(node.get("$ref", "").rpartition("/")[2], {}).pop("required", None)
    step = defs["StepSection"]["properties"]["recipe"]
    step["anyOf"] = [{"minLength": 1, "type": "string"}, {"$ref": "#/$defs/Recipe"}]
    shared = schema["properties"]["shared"]
    schema["properties"]["shared"] = {"$ref": "#/$defs/Recipe", "description": shared["description"]}
    schema["properties"]["steps"]["additionalProperties"] = False  # beside names of the pattern that steps have
    return {**head, "$defs": defs, **{key: value for key, value in schema.items() if key != "title"}}


def handed_file(form: Form) -> str:
    """The name, in a step's directory, of what it hands on."""
    return "kept.jsonl" if form == "rows" else f"kept-{form}.jsonl"


def _recipe(
    located: Located, pipeline: PipelineSection, name: str, files: list[str], overrides: list[str], directory: Path
) -> Recipe:
    given = located.data["steps"][name]["recipe"]
    if isinstance(given, str):
        found = read_located(given)
        if not isinstance(found.data, dict):
            raise UsageError(f"{given}, the recipe of the step {name}, holds no sections; name a recipe's YAML file")
    else:
        place: Place = ("steps", name, "recipe")
        origins = {where[len(place) :]: origin for where, origin in located.origins.items() if where[:3] == place}
        origins.setdefault((), Origin(located.origin(place).spot))
        found = Located(_laid_over(pipeline.shared, given), origins)
    data = found.data
    data["name"] = name
    data["sink"] = {**(data.get("sink") or {}), "directory": str(directory / name)}
    if files:
        data["source"] = {**(data.get("source") or {}), "path": files}
    apply_overrides(found, overrides)
    recipe = validate(found)
    if recipe.matrix or recipe.source.shard is not None:
        what = "a matrix" if recipe.matrix else "source.shard"
        raise UsageError(f"the recipe of the step {name} has {what}, which is for runs of their own; take it out")
    return recipe


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings as one, section by section; what is said twice is as `above` says it."""
    found: dict[str, Any] = copy.deepcopy(dict(below))
    for key, value in above.items():
        inner = found.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        found[key] = _laid_over(inner, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return found


def _mistakes(error: ValidationError, located: Located) -> list[Mistake]:
    found: dict[Place, Mistake] = {}
    for details in error.errors(include_url=False):
        path: Place = tuple(piece for piece in details["loc"] if piece != "[key]")
        known = StepSection if path[:1] == ("steps",) else PipelineSection
        text = f"{dotted(path)} is wrong: {details['msg']}"
        if details["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(path[-1]), known.model_fields, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known.model_fields)}"
            text = f"{dotted(path)} is not a setting; {advice}"
        elif details["type"] == "missing":
            text = f"{dotted(path)} is missing; write it"
        found.setdefault(path[:3], Mistake(located.origin(path).spot, dotted(path), text))
    return list(found.values())


def _mistake(located: Located, path: Place, text: str) -> RecipeError:
    return RecipeError([Mistake(located.origin(path).spot, dotted(path), f"{dotted(path)} {text}")])
