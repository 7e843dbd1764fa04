"""Gates as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from batchchat.reporting.escape import xml
from batchchat.reporting.report import AnyReport
from batchchat.reporting.scores import GateOutcome

FILE = "gates.xml"


def render(report: AnyReport) -> str:
    return render_gates(report.gates or (), report.name)


def render_gates(gates: Sequence[GateOutcome], run: str) -> str:
    """A JUnit test suite named after the run, one test case per gate; what XML cannot hold is made visible."""
    failed = sum(not gate.passed for gate in gates)
    suite = ElementTree.Element(
        "testsuite", name=xml(run), tests=str(len(gates)), failures=str(failed), errors="0", skipped="0"
    )
    for gate in gates:
        case = ElementTree.SubElement(suite, "testcase", classname=xml(f"{run}.gates"), name=xml(gate.gate))
        if not gate.passed:
            failure = ElementTree.SubElement(case, "failure", message=xml(gate.reason), type="gate")
            failure.text = xml(gate.reason)
    root = ElementTree.Element("testsuites", tests=str(len(gates)), failures=str(failed), errors="0")
    root.append(suite)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'
