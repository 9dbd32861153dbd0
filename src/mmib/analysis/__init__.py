"""Analysis of finished runs: comparisons, calibration, reports."""
