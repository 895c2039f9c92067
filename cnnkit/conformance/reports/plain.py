"""The report as JSON, and the schema of that file."""

from __future__ import annotations

import json
from typing import Any

from cnnkit.conformance.report import OUTCOMES, REPORT_FORMAT, Report

LATER = ("tier", "probed", "kernels", "compiled_for")
"""Fields that older reports do not have. Without them a report is of the tier run."""


def to_json(report: Report) -> str:
    """The whole report, `counts` too. `Report.model_validate_json` reads it.

    It is JSON as RFC 8259 has it: an infinite error is "Infinity", a text. `report_schema` says what it holds; its
    `format` goes up when a program that reads it would have to change.
    """
    data = json.loads(report.model_dump_json())
    cases = data.pop("cases")
    return json.dumps({**data, "counts": report.counts, "cases": cases}, indent=1, allow_nan=False) + "\n"


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `to_json` writes."""
    schema = Report.model_json_schema(mode="serialization")
    cases = schema["properties"].pop("cases")
    schema["properties"]["counts"] = {
        "additionalProperties": False,
        "description": "How many cases had each outcome",
        "properties": {outcome: {"minimum": 0, "type": "integer"} for outcome in OUTCOMES},
        "required": list(OUTCOMES),
        "title": "Counts",
        "type": "object",
    }
    schema["properties"]["cases"] = cases
    # All of it is always written, so all of it can be relied on, but for what older reports do not have.
    schema["required"] = [name for name in schema["properties"] if name not in LATER]
    result = schema["$defs"]["CaseResult"]
    result["required"] = list(result["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cnnkit:conformance-report:{REPORT_FORMAT}",
        **schema,
    }
