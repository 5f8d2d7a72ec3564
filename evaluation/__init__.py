"""Measuring the assistant: synthetic pictures with exact truth, tasks, metrics and reports."""
