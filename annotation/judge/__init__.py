"""What several experts' verdicts on one item come to. Pure: no database, no network."""
