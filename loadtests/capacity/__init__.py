"""How many replicas for how many radiologists: a simulator, calibrated by measured runs (docs/capacity.md)."""
