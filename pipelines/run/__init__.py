"""Run a pipeline from this machine: options, runners, workers, progress, counters."""
