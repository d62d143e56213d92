"""The report on finished runs: `from hf_colearn.analysis.report import report`."""

from hf_colearn.analysis.report.reporting import report
