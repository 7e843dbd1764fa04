"""How fast models answered on this machine, kept in the user's cache folder so that a plan can tell a job's time."""

from __future__ import annotations

import hashlib
import json

from batchchat.cache import read_cache, write_cache
from batchchat.engines.facts import EngineFacts
from batchchat.engines.machine import machine_facts
from batchchat.reporting.report import Session

_FILE = "speeds.json"
_FEWEST_TOKENS = 1000
"""Runs that generated less say little about speed."""


def remember_speed(model: str, quantization: str, engine: EngineFacts, session: Session) -> None:
    """Keep the generated tokens per second of a run's session, where it is long enough to tell them. Several replicas
    say nothing of one."""
    speed = session.generated_tokens_per_second
    if engine.dtype is not None and not engine.replicas and speed and (session.generated_tokens or 0) >= _FEWEST_TOKENS:
        key = _key(model, engine.dtype, quantization, engine.engine)
        write_cache(_FILE, {**read_cache(_FILE), key: speed})


def known_speed(model: str, dtype: str, quantization: str, engine: str) -> float | None:
    """Generated tokens per second of the last such session on a machine like this one."""
    found = read_cache(_FILE).get(_key(model, dtype, quantization, engine))
    return float(found) if isinstance(found, int | float) and found > 0 else None


def _key(*what: str) -> str:
    text = json.dumps([*what, machine_facts().as_dict()], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
