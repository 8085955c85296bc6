"""What stays of an evaluation: report.json, errors.csv, and report.html, which is drawn from report.json alone."""

from headrace.report.files import (
    ERRORS,
    FORMAT_VERSION,
    MAX_TEXT_CHARACTERS,
    REPORT,
    error_rows,
    mistake_confidence,
    mistakes,
    versions,
    write_errors,
    write_report,
)
from headrace.report.page import PAGE, page_of, write_page
from headrace.report.verdict import verdict

__all__ = [
    "ERRORS",
    "FORMAT_VERSION",
    "MAX_TEXT_CHARACTERS",
    "PAGE",
    "REPORT",
    "error_rows",
    "mistake_confidence",
    "mistakes",
    "page_of",
    "verdict",
    "versions",
    "write_errors",
    "write_page",
    "write_report",
]
