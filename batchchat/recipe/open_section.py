"""Sections that grow by the options of what is named in them, and the type of a setting that names something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model, model_validator
from pydantic_core import PydanticCustomError, core_schema

from batchchat.plugins.registry import Registry
from batchchat.recipe.section import MAY_CHANGE, Section


class OpenSection(Section):
    """A section in which entries of `tables` may have their own options, each under its name in the table.

    A section that was read has a field for each entry that it names, and no others: an installed package that is not
    named is not imported.
    """

    # An entry may be called like an attribute of pydantic's models (`json`): fields carry the names as aliases.
    model_config = ConfigDict(serialize_by_alias=True)

    tables: ClassVar[tuple[Registry[Any], ...]] = ()
    options_may_change: ClassVar[bool] = False
    """Whether a run may be resumed with other options, as with settings marked `MAY_CHANGE`."""

    @classmethod
    def entries(cls, data: Mapping[str, Any]) -> Iterator[Any]:
        """What plain values name whose options belong to this section even where it does not set them."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _with_options(cls, data: Any, handler: Any) -> Any:
        if not isinstance(data, Mapping):
            return handler(data)
        opened = {field.alias for field in cls.model_fields.values()}
        entries = [name for name in cls.entries(data) if isinstance(name, str)]
        named = {*(name for name in data if isinstance(name, str) and name not in cls.model_fields), *entries}
        wanted = [name for name in named if name not in opened and option_models(cls, name)]
        silent = [name for name in wanted if name in data and data[name] is None and name not in entries]
        if silent:  # sections whose lines are all commented out set nothing
            data = {name: value for name, value in data.items() if name not in silent}
            wanted = [name for name in wanted if name not in silent]
        return _opened(cls, tuple(sorted(wanted))).model_validate(data) if wanted else handler(data)

    def options_of(self, name: str) -> Any:
        """The options of an entry; None where the section does not name it or it has none."""
        return getattr(self, _field(name), None)


def option_models(section: type[OpenSection], name: str) -> list[tuple[Registry[Any], type[BaseModel]]]:
    """The models of the options that entries of this name have in the section's tables: none, or one.

    Raises EnvironmentFault where a package's entry cannot be used, or its options are no strict model.
    """
    found = []
    for table in section.tables:
        model = table.options(name) if name in table else None
        if model is None:
            continue
        if not (isinstance(model, type) and issubclass(model, BaseModel) and model.model_config.get("frozen")):
            raise table.fault(name, "has options that are no frozen pydantic model", _DERIVE)
        if model.model_config.get("extra") != "forbid":
            raise table.fault(name, "has options that take unknown names", _DERIVE)
        if name in section.model_fields:
            raise table.fault(name, f"has options, but {name} is a setting of its own there", "give it another name")
        found.append((table, model))
    if len(found) > 1:
        (first, _), (second, _) = found
        raise first.fault(name, f"and a {second.kind} of this name both have options", "rename one of them")
    return found


_DERIVE = "derive them from batchchat.recipe.Section"


@cache
def _opened(section: type[OpenSection], names: tuple[str, ...]) -> type[OpenSection]:
    """The section with a field for each of the entries."""
    fields: dict[str, Any] = {}
    for name in names:
        ((table, model),) = option_models(section, name)
        described = Field(
            default={},
            validate_default=True,
            alias=name,
            description=f"Options of the {table.kind} {name}.",
            json_schema_extra=MAY_CHANGE if section.options_may_change else None,
        )
        fields[_field(name)] = (model, described)
    opened: type[OpenSection] = create_model(
        section.__name__, __base__=section, __doc__=section.__doc__, __module__=section.__module__, **fields
    )
    return opened


def _field(name: str) -> str:
    return f"{name}_"


@dataclass(frozen=True)
class OneOf:
    """Marks a text that names an entry of `table`, or one of `besides`. Entries are looked up, not imported."""

    table: Registry[Any]
    besides: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [*self.besides, *self.table], "type": "string"}

    def _check(self, name: str) -> str:
        if name not in self.besides and name not in self.table:
            raise PydanticCustomError("unknown_name", "there is no such {kind}", {"kind": self.table.kind})
        return name
