"""The review loop's status as one HTML page."""
