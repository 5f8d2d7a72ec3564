"""Locust scenarios: what hospitals ask, at rates that do not wait for answers (`python -m loadtests.scenarios`)."""
