"""report.json, read back."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from batchchat.errors import UsageError
from batchchat.reporting.report import AnyReport, Report, ScoreReport


def read_run_report(path: Path) -> Report:
    """The report of a run. Raises UsageError, with what to do, where it cannot be read."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(
            f"{path} cannot be read ({_why(error)}), so another version of batchchat may have written it; remove it "
            "and run the recipe again: the answers are kept, and the report is made anew, without that session's speed"
        ) from error


def read_report(path: Path) -> AnyReport:
    """The report of a run, or of answers that another tool wrote. Raises UsageError where it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({_why(error)}); score the answers again") from error
    if not isinstance(found, dict) or "answers_in" not in found:
        return read_run_report(path)
    try:
        return ScoreReport.model_validate(found)
    except ValidationError as error:
        raise UsageError(
            f"{path} cannot be read ({_why(error)}), so another version of batchchat may have written it; score the "
            "answers again"
        ) from error


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(piece) for piece in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
