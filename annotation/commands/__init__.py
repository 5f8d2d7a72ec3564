"""Commands of `medmax review`."""
