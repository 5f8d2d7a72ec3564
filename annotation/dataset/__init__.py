"""Judgements into versioned instruction data: rows, duplicates, decontamination, splits, immutable versions."""
