"""From records to a table with errors, comparisons, calibration, plots, JSON and a page."""
