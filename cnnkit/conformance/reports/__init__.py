"""The forms of a conformance report, each made from the report alone: the same report gives the same text."""

from cnnkit.conformance.reports.badge import to_badge
from cnnkit.conformance.reports.junit import to_junit
from cnnkit.conformance.reports.markdown import to_markdown
from cnnkit.conformance.reports.page import to_html
from cnnkit.conformance.reports.plain import report_schema, to_json

__all__ = ["report_schema", "to_badge", "to_html", "to_json", "to_junit", "to_markdown"]
