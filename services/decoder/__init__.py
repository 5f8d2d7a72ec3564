"""Service 3: image codes to picture files, marked as synthetic."""
