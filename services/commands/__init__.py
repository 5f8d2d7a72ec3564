"""What `medmax` does, one module a command. Heavy imports stay inside the functions: `medmax --help` is quick."""
