"""Bulk tokenization of pictures and data sets on Ray Data."""
