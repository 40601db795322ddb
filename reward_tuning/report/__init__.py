"""Pages that show a run to people: one self-contained HTML file, and the live page."""
