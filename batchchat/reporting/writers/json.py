"""report.json: every figure, as docs/OUTPUT.md describes them."""

from __future__ import annotations

import json

from batchchat.reporting.report import AnyReport

FILE = "report.json"


def render(report: AnyReport) -> str:
    return json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n"
