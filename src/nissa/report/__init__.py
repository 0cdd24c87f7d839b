"""HTML report of a run: one self-contained page, generated from its OTLP files."""

from nissa.report.writer import WrittenReport as WrittenReport
from nissa.report.writer import write_report as write_report
