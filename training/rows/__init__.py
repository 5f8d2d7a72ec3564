"""Instruction rows and preference pairs in files: read, checked, counted, turned into sequences of ids."""
