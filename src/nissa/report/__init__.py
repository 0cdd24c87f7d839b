"""HTML report of a run: one self-contained page, generated from its OTLP files."""

from nissa.report.writing import Written as Written
from nissa.report.writing import write_report as write_report
