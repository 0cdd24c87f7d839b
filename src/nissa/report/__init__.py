"""The report: what a run wrote, as one page that needs no server and no network."""

from nissa.report.writing import Written as Written
from nissa.report.writing import write_report as write_report
