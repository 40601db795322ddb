"""Bytes on disk: atomic writes, YAML, clips, pictures and tables. Knows no model."""
