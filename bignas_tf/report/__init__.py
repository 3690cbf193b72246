"""One HTML page about a run, made from the files in its folder."""

from bignas_tf.report.fields import ReportError
from bignas_tf.report.page import write_report

__all__ = ["ReportError", "write_report"]
