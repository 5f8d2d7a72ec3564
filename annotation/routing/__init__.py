"""Which answers go to experts, and why. Pure: no database, no network."""
