"""How far experts agree with each other and with gold tasks. Pure: no database, no network."""
