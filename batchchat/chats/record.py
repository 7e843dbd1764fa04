"""The base of what batchchat writes: typed, closed to unknown names, and every figure with its unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Record(BaseModel):
    """A frozen part of a result. What was never set is not written; what was set to None is written as null."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())

    def as_dict(self) -> dict[str, Any]:
        """The plain values that JSON holds."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def values(self) -> dict[str, Any]:
        """What was set, by name, as it is: what another record takes over from this one."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


@dataclass(frozen=True)
class Unit:
    """The unit of a figure, as its JSON schema says it."""

    name: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "unit": self.name}


def unit_of(node: Mapping[str, Any]) -> str | None:
    """The unit in the JSON schema of a field; of a list or a mapping, that of its values."""
    return next(_units(node), None)


def _units(node: Mapping[str, Any]) -> Iterator[str]:
    if "unit" in node:
        yield node["unit"]
    for branch in node.get("anyOf", ()):
        yield from _units(branch)
    for inside in ("items", "additionalProperties"):
        if isinstance(node.get(inside), Mapping):
            yield from _units(node[inside])


Place = Annotated[int, Unit("from 0")]
"""Which one of several."""
Line = Annotated[int, Unit("from 1")]
TokenId = Annotated[int, Unit("token id")]
Nats = Annotated[float, Unit("nats")]
Rows = Annotated[int, Unit("rows")]
Samples = Annotated[int, Unit("samples")]
Turns = Annotated[int, Unit("turns")]
Tokens = Annotated[int, Unit("tokens")]
Batches = Annotated[int, Unit("batches")]
Requests = Annotated[int, Unit("requests")]
Answers = Annotated[int, Unit("answers")]
Scores = Annotated[int, Unit("scores")]
Times = Annotated[int, Unit("times")]
Numbers = Annotated[int, Unit("numbers")]
Bytes = Annotated[int, Unit("bytes")]
Seconds = Annotated[float, Unit("s")]
Joules = Annotated[float, Unit("J")]
Flops = Annotated[float, Unit("FLOP")]
TokensPerSecond = Annotated[float, Unit("tokens/s")]
TurnsPerSecond = Annotated[float, Unit("turns/s")]
FlopsPerSecond = Annotated[float, Unit("FLOP/s")]
BytesPerSecond = Annotated[float, Unit("bytes/s")]
MeanRows = Annotated[float, Unit("rows")]
MeanTokens = Annotated[float, Unit("tokens")]
Money = Annotated[float, Unit("the prices' currency")]
Share = Annotated[float, Unit("share of 1")]
Metric = Annotated[float, Unit("the metric's own")]
"""What a scorer gives: 0 to 1 for most, words for lengths, grades for judges."""
Ratio = Annotated[float, Unit("times")]
