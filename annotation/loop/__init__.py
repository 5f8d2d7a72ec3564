"""The controller of the review loop: its settings, its steps, and the process that keeps them going."""
