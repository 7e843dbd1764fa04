"""Gates as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from batchchat.reporting.report import AnyReport
from batchchat.reporting.scores import GateOutcome

FILE = "gates.xml"

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: AnyReport) -> str:
    return render_gates(report.gates or (), report.name)


def render_gates(gates: Sequence[GateOutcome], run: str) -> str:
    """A JUnit test suite named after the run, one test case per gate; what XML cannot hold is shown as `\\xNN`."""
    failed = sum(not gate.passed for gate in gates)
    suite = ElementTree.Element(
        "testsuite", name=_xml(run), tests=str(len(gates)), failures=str(failed), errors="0", skipped="0"
    )
    for gate in gates:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(f"{run}.gates"), name=_xml(gate.gate))
        if not gate.passed:
            failure = ElementTree.SubElement(case, "failure", message=_xml(gate.reason), type="gate")
            failure.text = _xml(gate.reason)
    root = ElementTree.Element("testsuites", tests=str(len(gates)), failures=str(failed), errors="0")
    root.append(suite)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
