"""What a recipe can name, and who may add to it: five tables, one door each.

    table    a recipe names it in      an entry is                       entry points of packages
    ENGINES  engine.kind               `engines.base.EngineKind`         batchchat.engines
    FORMATS  source.format             `chats.formats.options.Format`    batchchat.formats
    SOURCES  source.path: NAME:…       `sources.records.Reader`          batchchat.sources
    SCORERS  scoring                   a module, see `scoring.table`     batchchat.scorers
    WRITERS  sink.formats              `store.writers.Writer`            batchchat.writers

An entry may have options of its own, a pydantic model that becomes a section of the recipe under the entry's name.
This room is at the bottom, so entries are named by their places here and typed where they are used.
"""

from __future__ import annotations

from typing import Any

from batchchat.plugins.registry import Package, Registry

_KINDS = "batchchat.engines.kinds"
ENGINES: Registry[Any] = Registry(
    "engine",
    "batchchat.engines",
    {
        "auto": f"{_KINDS}:AUTO",
        "continuous": f"{_KINDS}:CONTINUOUS",
        "pipeline": f"{_KINDS}:PIPELINE",
        "endpoint": f"{_KINDS}:ENDPOINT",
        "vllm": f"{_KINDS}:VLLM",
        "scripted": f"{_KINDS}:SCRIPTED",
    },
    "batchchat.engines.base:EngineKind",
)

_FORMATS = "batchchat.chats.formats"
FORMATS: Registry[Any] = Registry(
    "format",
    "batchchat.formats",
    {
        "openai": f"{_FORMATS}.openai:OPENAI",
        "messages": f"{_FORMATS}.messages:MESSAGES",
        "sharegpt": f"{_FORMATS}.sharegpt:SHAREGPT",
        "turns": f"{_FORMATS}.turns:TURNS",
        "alpaca": f"{_FORMATS}.alpaca:ALPACA",
        "prompt": f"{_FORMATS}.prompt:PROMPT",
        "blank": f"{_FORMATS}.blank:BLANK",
    },
    "batchchat.chats.formats.options:Format",
)
"""Those that come along stand in the order in which `auto` looks for them: the more telling sign first."""

_SOURCES = "batchchat.sources"
SOURCES: Registry[Any] = Registry(
    "source",
    "batchchat.sources",
    {
        "jsonl": f"{_SOURCES}.opening:JSONL",
        "json": f"{_SOURCES}.opening:JSON",
        "csv": f"{_SOURCES}.delimited:CSV",
        "parquet": f"{_SOURCES}.opening:PARQUET",
        "blank": f"{_SOURCES}.blank:BLANK",
    },
    "batchchat.sources.records:Reader",
)

_SCORERS = "batchchat.scoring.scorers"
SCORERS: Registry[Any] = Registry(
    "scorer",
    "batchchat.scorers",
    {
        "exact": f"{_SCORERS}.exact",
        "includes": f"{_SCORERS}.includes",
        "regex": f"{_SCORERS}.pattern",
        "numeric": f"{_SCORERS}.numeric",
        "math": f"{_SCORERS}.symbolic",
        "choice": f"{_SCORERS}.choice",
        "f1": f"{_SCORERS}.f1",
        "bleu": f"{_SCORERS}.bleu",
        "chrf": f"{_SCORERS}.chrf",
        "rouge": f"{_SCORERS}.rouge",
        "json": f"{_SCORERS}.json_value",
        "tool_call": f"{_SCORERS}.tool_call",
        "ifeval": f"{_SCORERS}.ifeval",
        "length": f"{_SCORERS}.length",
        "language": f"{_SCORERS}.language",
        "refusal": f"{_SCORERS}.refusal",
        "python": f"{_SCORERS}.custom",
    },
    "batchchat.scoring.base:ScorerModule",
    options="Options",
)

_WRITERS = "batchchat.store.writers"
WRITERS: Registry[Any] = Registry(
    "writer",
    "batchchat.writers",
    {"jsonl": f"{_WRITERS}:JSONL", "parquet": f"{_WRITERS}:PARQUET"},
    "batchchat.store.writers:Writer",
)

TABLES: tuple[Registry[Any], ...] = (ENGINES, FORMATS, SOURCES, SCORERS, WRITERS)

__all__ = ["ENGINES", "FORMATS", "SCORERS", "SOURCES", "TABLES", "WRITERS", "Package", "Registry"]
