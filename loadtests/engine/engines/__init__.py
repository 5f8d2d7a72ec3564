"""What a worker process runs: one module for each engine, each with `load(options) -> Engine`."""
