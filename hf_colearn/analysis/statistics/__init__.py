"""Numbers over runs: comparisons, intervals, calibration, sweeps."""
