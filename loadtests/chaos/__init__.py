"""Faults against a real stack, and the count of what they cost (`python -m loadtests.chaos`)."""
