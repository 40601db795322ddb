"""From prompt and condition files to what the generator reads."""
